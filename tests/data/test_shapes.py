"""The set of shapes: boxes, outlines and masks say the same, and a seed gives the same bytes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def shapes():
    found = importlib.util.spec_from_file_location("shapes", ROOT / "benchmarks" / "shapes.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_boxes_and_masks_agree(tmp_path):
    made = shapes()
    made.write(tmp_path / "a", 20, 64, 7)
    told = json.loads((tmp_path / "a" / "annotations.json").read_text())
    assert (tmp_path / "a" / "classes.txt").read_text().split() == ["background", *made.CLASSES]
    assert len(told["images"]) == 20
    for image in told["images"]:
        mask = np.asarray(Image.open(tmp_path / "a" / "masks" / image["file_name"]))
        pixels = np.asarray(Image.open(tmp_path / "a" / "images" / image["file_name"]))
        assert mask.shape == pixels.shape[:2] == (image["height"], image["width"])
        own = [a for a in told["annotations"] if a["image_id"] == image["id"]]
        assert own
        left = mask != 0
        for a in own:
            x, y, w, h = a["bbox"]
            near = np.s_[max(0, int(y) - 1) : int(y + h) + 2, max(0, int(x) - 1) : int(x + w) + 2]
            part = mask[near]
            assert set(np.unique(part)) - {0, made.IGNORED} == {a["category_id"]}
            ring = (part == made.IGNORED).sum()
            inside = (part == a["category_id"]).sum()
            assert abs(inside - a["area"]) <= ring  # by the width of the outline at the most
            left[near] = False
        assert not left.any()


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path):
    made = shapes()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made.write(tmp_path / name, 2, 48, seed)
    a, b, c = (
        [p.read_bytes() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()]
        for name in "abc"
    )
    assert a == b != c
