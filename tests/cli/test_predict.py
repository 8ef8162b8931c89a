"""`edgecv predict` as a real process: words, JSON lines, what it keeps, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgecv.installation import cure
from tests.conftest import environment
from tests.predicting.bundles import classifier, detector, tensors
from tests.predicting.conftest import film  # noqa: F401 - a fixture

pytest.importorskip("onnxruntime")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of each kind, and photos/: two pictures, one that is damaged, in two folders."""
    folder = tmp_path_factory.mktemp("predict")
    detector(folder / "spots.edgecv")
    classifier(folder / "animals.edgecv")
    tensors(folder / "plain.edgecv")
    (folder / "photos" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name, level in (("a.png", 204), ("deep/a.png", 102)):
        Image.new("RGB", (256, 256), (level,) * 3).save(folder / "photos" / name)
    (folder / "photos" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    np.save(folder / "one.npy", np.full((64, 64, 3), 204, np.uint8))
    return folder


def test_a_folder_in_words(edgecv: Callable, room: Path) -> None:
    done = edgecv("predict", "spots.edgecv", "photos", cwd=room)
    first, second, blank, head, _, row = done.out.splitlines()
    assert first == "photos/a.png: moth 0.80, lamp 0.40"
    assert second == "photos/deep/a.png: moth 0.40"  # the lamp's 0.2 is below 0.25
    assert (blank, head.split()[:2], row.split()[:2]) == ("", ["images", "failed"], ["2", "1"])
    (line,) = done.err.splitlines()
    assert line.startswith("error: photos/bad.jpg: cannot be read as an image")
    assert done.code == 2


def test_json_lines_and_drawn_pictures(edgecv: Callable, room: Path, tmp_path: Path) -> None:
    done = edgecv("predict", "spots.edgecv", "photos", "--json", "--confidence", "0.5",
                  "--save", tmp_path / "out", cwd=room)  # fmt: skip
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [r["image"] for r in rows] == ["photos/a.png", "photos/bad.jpg", "photos/deep/a.png"]
    assert {r["task"] for r in rows} == {"detection"}
    (moth,) = rows[0]["predictions"]
    assert (moth["label"], moth["index"]) == ("moth", 0)
    assert moth["box"] == pytest.approx([32, 64, 160, 192], abs=0.01)  # the input's times four
    assert set(rows[0]["latency_ms"]) == {"preprocess", "engine", "decode"}
    assert "error" in rows[1]
    assert rows[2]["predictions"] == []
    kept = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert kept == {"a.png", "deep/a.png"}
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert drawn.shape == (256, 256, 3)
    assert (drawn[128, 32] != 204).any()  # the box's left side
    assert (drawn[5, 5] == 204).all()


def test_answers_that_are_no_numbers_are_told_once(
    edgecv: Callable, room: Path, tmp_path: Path
) -> None:
    detector(tmp_path / "nan.edgecv", share=(float("nan"), 0.5))
    picture = room / "one.npy"
    done = edgecv("predict", "nan.edgecv", picture, picture, "--json", cwd=tmp_path)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [[found["label"] for found in row["predictions"]] for row in rows] == [["lamp"]] * 2
    said = "note: the network says NaN in 2 of 2 images: 2 of its answers are left out"
    assert (done.code, done.err.splitlines().count(said), done.err.count("NaN")) == (0, 1, 1)


def test_a_network_without_a_task_keeps_its_outputs(
    edgecv: Callable, room: Path, tmp_path: Path
) -> None:
    done = edgecv("predict", "plain.edgecv", "one.npy", "--json", "--save", tmp_path, cwd=room)
    (row,) = map(json.loads, done.out.splitlines())
    assert done.code == 0
    with np.load(tmp_path / "one.npy.npz") as held:
        (output,) = row["predictions"]
        assert output["max"] == pytest.approx(float(held["scores"].max()))
    assert (row["task"], row["saved"]) == ("none", str(tmp_path / "one.npy.npz"))


def test_a_film_is_answered_frame_by_frame(
    edgecv: Callable,
    room: Path,
    film: Callable,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = film("clip.mkv", 22, size=(240, 256))  # frame 21 is of level 210
    done = edgecv("predict", room / "spots.edgecv", path, "--json", "--every", "7",
                  "--save", tmp_path / "out", "--confidence", "0.1")  # fmt: skip
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(r["frame"], r["time_s"]) for r in rows] == [(0, 0), (7, 0.28), (14, 0.56), (21, 0.84)]
    best = [r["predictions"][0]["score"] if r["predictions"] else 0 for r in rows]
    # letterboxed: 240 of 256 rows are the picture's, the rest are 114
    wanted = [(10 * n * 240 + 114 * 16) / 256 / 255 for n in (7, 14, 21)]
    assert best[1:] == pytest.approx(wanted, abs=0.02)
    from edgecv.predicting import video

    drawn = list(video.frames(tmp_path / "out" / "clip.mkv.mp4", "mov"))
    assert [t for _, t, _ in drawn] == pytest.approx([0, 0.28, 0.56, 0.84], abs=1e-3)
    assert drawn[3][2].shape == (240, 256, 3)
    assert np.abs(drawn[3][2][60:180, 32:36].astype(int) - 210).max() > 60  # the box's side


@pytest.mark.parametrize("endless", [True, False])
def test_what_is_stopped_keeps_its_film_only_where_it_has_no_end(
    room: Path, tmp_path: Path, endless: bool
) -> None:
    """A camera is always stopped; half a film is not what was asked for. No camera is here."""
    pytest.importorskip("av")
    from edgecv.predicting import video
    from edgecv.predicting.answering import answered
    from edgecv.predicting.answers import Predictor
    from edgecv.predicting.saving import Kept
    from edgecv.predicting.sources import Picture, Source
    from edgecv.runtime.archive import read_bundle

    def frames() -> Iterator[Picture]:
        for i in range(3):
            grey = partial(np.full, (240, 256, 3), 200, np.uint8)
            yield Picture("camera:0", Path("camera-0"), grey, i, i / 10)
        raise KeyboardInterrupt

    kept = Kept(tmp_path, [], arrays=False)
    predictor = Predictor(read_bundle(room / "spots.edgecv"))
    camera = Source("camera:0", frames, None, film=True, endless=endless)
    with pytest.raises(KeyboardInterrupt):
        list(answered(predictor, [camera], kept))
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["camera-0.mp4"] if endless else [])
    if endless:
        assert len(list(video.frames(tmp_path / "camera-0.mp4", "mov"))) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("spots.edgecv", "never.png"), "never.png: no such file"),
        (("spots.edgecv", "empty"), "empty: holds no images (images end in .jpg"),
        (
            ("spots.edgecv", "one.npy", "--save", "one.npy/sub"),
            "one.npy/sub: cannot be made: one.npy is a file",
        ),
        (("spots.edgecv", "camera:99"), "camera:99: no such camera"),
        (("spots.edgecv", "spots.edgecv"), "is no image or film by its name"),
        (("spots.edgecv", "photos", "--save", "photos"), "is read and written"),
        (("spots.edgecv", "photos/bad.jpg"), "photos/bad.jpg: cannot be read"),
        (("animals.edgecv", "one.npy", "--iou", "0.5"), "--iou: means nothing"),
        (("spots.edgecv", "one.npy", "--confidence", "7"), "--confidence: is 7.0"),
        (("photos", "one.npy"), "is a folder, not a bundle"),
    ],
)
def test_what_is_wrong_is_one_line(
    edgecv: Callable, room: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = edgecv("predict", *arguments, cwd=room)
    (line,) = done.err.splitlines()
    assert done.code == 2
    assert line.startswith("error: ")
    assert said in line
    assert done.out == ""


def test_a_reader_that_has_enough_ends_it_quietly(room: Path) -> None:
    """As `| head -1` does: the pipe is closed while there is more to say."""
    command = [sys.executable, "-m", "edgecv", "predict", "spots.edgecv", *["one.npy"] * 4000]
    process = subprocess.Popen([*command, "--json"], cwd=room, env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["task"] == "detection"
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(60), said) == (0, b"")


def test_npy_pictures_need_numpy_and_the_engine_alone(
    edgecv: Callable, room: Path, site: Callable
) -> None:
    heavy = ("PIL", "av", "torch", "rich", "yaml", "pydantic", "onnx", "pycocotools")
    path = site(f"import sys\nsys.modules.update(dict.fromkeys({heavy!r}))\n")
    done = edgecv("predict", "spots.edgecv", "one.npy", cwd=room, path=path)
    assert (done.code, done.out.splitlines()[0]) == (0, "one.npy: moth 0.80, lamp 0.40"), done.err
    for image, extra in (("photos/a.png", "images"), ("clip.mp4", "video")):
        (room / "clip.mp4").touch()
        done = edgecv("predict", "spots.edgecv", image, cwd=room, path=path)
        assert done.code == 3
        assert f"({cure(extra, '')})" in done.err
