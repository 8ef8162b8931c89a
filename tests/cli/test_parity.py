"""`edgecv parity`: what it prints and its exit codes, 0 agrees, 1 differs, 2 bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import broken_exports as broken
from tests.predicting.bundles import SIZE, detector, segmenter

pytest.importorskip("onnxruntime")


def test_a_run_s_bundle_is_compared_with_what_the_run_made_it_from(
    finished: object, edgecv: Callable
) -> None:
    out: Path = finished.out  # type: ignore[attr-defined]
    command = ("parity", out / "bundles" / "small-int8.cpu.edgecv", "--json")
    done = edgecv(*command, "--trust", cwd=out.parent)
    assert done.code == 0, done.err + done.out
    data = json.loads(done.out)
    steps = ["preprocessing", "export", "quantize", "compile", "runtime"]
    assert [r["step"] for r in data["rungs"]] == steps
    # its builder is code of a user's own, which nobody vouched for
    untrusted = json.loads(edgecv(*command, cwd=out.parent).out)
    assert [r["step"] for r in untrusted["rungs"]] == [s for s in steps if s != "export"]
    assert data["images"] == "test data"
    assert {a["role"] for a in data["accuracy"]} >= {"float", "simulated", "measured"}


def test_a_bundle_that_was_changed_after_its_run(
    finished: object, edgecv: Callable, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished.out, tmp_path / "run"))  # type: ignore[attr-defined]
    bundle = run / "bundles" / "small-int8.openvino.edgecv"
    broken.wrong_normalisation(bundle, bundle)
    done = edgecv("parity", bundle, cwd=run.parent)
    assert done.code == 1, done.err
    assert "first differs at preprocessing: the bundle's preprocessing has mean" in done.out
    assert "top-1 on" in done.out


def test_a_corrupted_layer_is_named(shelf: object, edgecv: Callable, tmp_path: Path) -> None:
    path: Path = shelf.fp32  # type: ignore[attr-defined]
    from edgecv.runtime.archive import read_bundle

    content, layer = broken.onnx_corrupted(read_bundle(path).files["model.onnx"], 1)
    bundle = broken.edited(path, tmp_path / "bad.edgecv", lambda _: content)
    done = edgecv("parity", bundle, "--against", path)
    assert done.code == 1, done.err
    assert f"first differs at export: {layer} (conv) is the first layer that differs" in done.out
    assert "its weights differ in 8 of 32 output channels" in done.out
    assert not done.err


def test_best_classes_are_told_of_a_classifier_alone(
    shelf: object, edgecv: Callable, tmp_path: Path
) -> None:
    """And of others where they are what is wrong."""
    from edgecv.runtime.archive import read_bundle, write_bundle

    path: Path = shelf.int8  # type: ignore[attr-defined]
    good, fp32 = read_bundle(path), shelf.fp32  # type: ignore[attr-defined]
    other = tmp_path / "none.edgecv"
    goldens = dict(good.golden_inputs), dict(good.golden_outputs)
    write_bundle(other, {**good.manifest, "task": None}, dict(good.files), *goldens)
    found = {bundle: edgecv("parity", bundle, "--against", fp32) for bundle in (path, other)}
    assert {done.code for done in found.values()} == {0}
    assert "top-1 agreement" in found[path].out
    assert "top-1 agreement" not in found[other].out
    assert found[other].out.count("SQNR") == found[path].out.count("SQNR")


def test_the_same_answer_is_what_the_task_says(edgecv: Callable, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    for level in (204, 102):
        image.new("RGB", (80, 64), (level,) * 3).save(tmp_path / "photos" / f"{level}.png")
    made = [detector(tmp_path / "a.edgecv"), detector(tmp_path / "b.edgecv", share=(1.0, 0.25)),
            segmenter(tmp_path / "c.edgecv"), segmenter(tmp_path / "d.edgecv")]  # fmt: skip

    def rungs(bundle: Path, against: Path, *more: str) -> list[dict]:
        done = edgecv("parity", bundle, "--against", against, "--images", tmp_path / "photos",
                      "--json", *more)  # fmt: skip
        return list(json.loads(done.out)["rungs"])

    same = {r["step"]: r.get("shared") for r in rungs(made[0], made[0])}
    assert same.pop("preprocessing") is None
    # of the darker picture one box alone reaches the confidence
    assert same.keys() == {"export", "compile", "runtime"}
    assert all(found == {"of": "boxes", "both": 3, "either": 3} for found in same.values())
    other = next(r["shared"] for r in rungs(made[1], made[0]) if r["step"] == "export")
    assert other == {"of": "boxes", "both": 2, "either": 3}, "the brighter picture's lamp is lost"
    maps = next(r["shared"] for r in rungs(made[3], made[2]) if r["step"] == "export")
    assert maps == {"of": "pixels", "both": 2 * SIZE * SIZE, "either": 2 * SIZE * SIZE}
    said = edgecv("parity", made[0], "--against", made[0], "--images", tmp_path / "photos").out
    assert "same boxes" in said
    assert "1.000 (3 of 3)" in said


def test_what_is_wrong_by_its_best_entries_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from edgecv.commands.parity import show
    from edgecv.diagnosis.parity.report_rows import rung
    from edgecv.fidelity import Tolerance
    from edgecv.runtime.fidelity import compare

    rows = np.eye(6, dtype=np.float32)
    swapped = compare(rows, rows[:, ::-1])
    made = rung("compile", "graph", "engine", swapped, Tolerance(-200.0, 0.9), None)
    data = {"task": None, "rungs": [made], "whole": None, "layers": [], "accuracy": []}
    data |= {"notes": [], "agrees": False, "samples": 6, "images": "here"}
    show(data)
    assert "top-1 agreement" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{int8}",), "what it was made from is not here"),
        (("{int8}", "--against", "{fp32}", "--samples", "0"), "--samples: is 0"),
        (("{folder}",), "is a folder, not a bundle"),
        (("{int8}", "--against", "{folder}"), "is not a Model folder"),
        (("{int8}", "--against", "{folder}/mynet.py"), "not a readable bundle"),
        (("{int8}", "--against", "missing.onnx"), "no such file"),
        (("{int8}", "--against", "{fp32}", "--images", "{folder}/mynet.py"), "is no folder"),
    ],
)
def test_bad_input(arguments: tuple, words: str, shelf: object, edgecv: Callable) -> None:
    names = {"int8": shelf.int8, "fp32": shelf.fp32, "folder": shelf.folder}  # type: ignore[attr-defined]
    done = edgecv("parity", *(a.format(**names) for a in arguments))
    assert done.code == 2, done.out
    assert words in done.err
    assert len(done.err.strip().splitlines()) <= 6


def test_photographs_of_any_size_are_images_too(shelf: object, edgecv: Callable) -> None:
    folder = shelf.folder / "images" / "test"  # type: ignore[attr-defined]
    given = ("--images", folder, "--samples", "9", "--json")
    done = edgecv("parity", shelf.int8, "--against", shelf.fp32, *given)  # type: ignore[attr-defined]
    assert done.code == 0, done.out + done.err
    assert json.loads(done.out)["samples"] == 9
