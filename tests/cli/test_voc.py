"""Pascal VOC's folder through every command that reads it: a file judged on it, a recipe that
learns from it, and what is said where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")
pytest.importorskip("onnx")
pytest.importorskip("PIL")

import onnx
from PIL import Image

from tests.cli.test_detectors import SIDE, _network
from tests.data.test_voc import thing

LAMP = (5, 3, 20, 14)  # pixels from 1, the last one in: x0 = 4, y0 = 2
HARD = "<difficult>1</difficult>"


def annotate(root: Path, name: str, *things: str, level: int = 150) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (SIDE, SIDE // 2), (level,) * 3)
    picture.save(root / "JPEGImages" / f"{name}.png")
    size = f"<size><width>{SIDE}</width><height>{SIDE // 2}</height><depth>3</depth></size>"
    text = f"<annotation>{size}{''.join(things)}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """spots.onnx, which always finds a lamp, and set/, in which a lamp is on every picture."""
    onnx.save(_network(), tmp_path / "spots.onnx")
    root = tmp_path / "set"
    for n, level in enumerate((90, 150, 210)):
        far = thing("moth", 1, 1, 3, 3, more=HARD)  # which the network never finds
        annotate(root, str(n), thing("lamp", *LAMP), far, level=level)
    (root / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("0\n1\n2\n")
    return tmp_path


def exported(edgecv: Callable, room: Path, *more: str):  # type: ignore[no-untyped-def]
    return edgecv("export", "spots.onnx", "--target", "cpu", "--json", "--evaluate", "voc:set",
                  "--out", "out", *more, cwd=room)  # fmt: skip


def test_a_file_is_judged_on_it_and_asked(edgecv: Callable, room: Path) -> None:
    done = exported(edgecv, room, "--decoder", "end2end")  # boxes say the task
    assert done.code == 0, done.err
    metric = json.loads(done.out)["metric"]
    assert (metric["name"], metric["samples"]) == ("map50_95", 3)
    assert metric["per_class"] == {"moth": None, "lamp": pytest.approx(1)}  # difficult: not missed
    (bundle,) = (room / "out").glob("*.edgecv")
    said = edgecv("predict", bundle, room / "set" / "JPEGImages", "--json").out.splitlines()
    found = [json.loads(line)["predictions"] for line in said]
    assert [[(d["label"], d["box"]) for d in one] for one in found] == [
        [("lamp", [4, 2, 20, 14])]
    ] * 3


def test_what_is_wrong_is_told(edgecv: Callable, room: Path) -> None:
    root = room / "set"
    x0, y0, x1, y1 = LAMP
    annotate(root, "1", thing("lamp", x1, y1, x0, y0))
    (root / "Annotations" / "2.xml").unlink()
    done = exported(edgecv, room, "--decoder", "end2end")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metric"]["samples"] == 2
    assert "boxes with swapped corners, turned: 1" in done.err
    assert "1 names have no annotation (2, ...): left out" in done.err
    annotate(root, "0", thing("lantern", *LAMP))
    done = exported(edgecv, room, "--decoder", "end2end")
    assert done.code == 2
    (line,) = [x for x in done.err.splitlines() if x.startswith("error:")]
    assert "class 'lantern' is no output of the network" in line
    (root / "classes.txt").write_text("moth\nlamp\n")
    done = exported(edgecv, room, "--decoder", "end2end")
    assert done.code == 2
    assert "0.xml: class 'lantern' is not in classes.txt" in done.err


def test_a_recipe_learns_from_it(edgecv: Callable, room: Path) -> None:
    (room / "tiny.yaml").write_text(f"""
model: {{zoo: tiny_detector, width: 4}}
data: {{train: "voc:set", test: "voc:set", size: {SIDE}, resize: letterbox}}
bench: {{rounds: 3, burst_ms: 1, budget_s: 0.2}}
stages:
  - train: {{epochs: 1, batch_size: 2}}
targets: [cpu]
""")
    done = edgecv("run", "tiny.yaml", "--out", "run", "--no-report", cwd=room)
    assert done.code == 0, done.err
    (row,) = json.loads((room / "run" / "results.json").read_text())["results"]
    assert (row["metric"]["name"], row["metric"]["samples"]) == ("map50_95", 3)
    assert list(row["metric"]["per_class"]) == ["lamp", "moth"]
