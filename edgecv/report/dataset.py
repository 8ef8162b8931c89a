"""What a run was trained and judged on: how many images, of what size, in which classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv.data.annotations import IGNORED, Boxes, Maps
from edgecv.data.images import Images
from edgecv.errors import DataError
from edgecv.report.folder import Run
from edgecv.report.missing import Missing

Data = dict[str, Any]
SPLITS = ("train", "test")
PART = "the data"


def splits(run: Run, missing: Missing) -> Iterator[Data]:
    """{"split", "images", "size": [H, W, C], "made_up", "blank", "counted",
    "classes": {name: count}} of each split that the store holds.

    counted: what classes counts: "images", "objects" (boxes), "pixels"; "" without classes
    """
    for name in SPLITS:
        node = run.nodes.get(f"data:{name}")
        if node is None:
            continue
        place = run.place(node["id"])
        try:
            images = Images.load(place) if place else None
        except DataError:
            images = None
        if images is None:
            missing.add(PART, f"{name}: its images are in the run's store, which is not here")
            continue
        yield counted_split(name, images)


def counted_split(name: str, images: Images) -> Data:
    """One split, as `splits` gives it."""
    counted, counts = _counts(images)
    return {
        "split": name, "images": len(images), "size": list(map(int, images.pixels.shape[1:])),
        "made_up": images.made_up, "blank": images.blank, "counted": counted,
        "classes": dict(zip(images.classes, counts, strict=True)) if counted else {},
    }  # fmt: skip


def _counts(images: Images) -> tuple[str, list[int]]:
    """How many of each class there are, and of what."""
    size, truth = len(images.classes), images.truth
    if isinstance(truth, Boxes):
        return "objects", np.bincount(truth.index, minlength=size)[:size].tolist()
    if isinstance(truth, Maps):
        # `flat` may be larger than memory: 2^24 pixels at a time
        found = np.zeros(max(256, size), np.int64)
        for begin in range(0, len(truth.flat), 1 << 24):
            found[:256] += np.bincount(truth.flat[begin : begin + (1 << 24)], minlength=256)
        found[IGNORED] = 0
        return "pixels", found[:size].tolist()
    if images.kind == "index":
        return "images", np.bincount(images.labels, minlength=size).tolist()
    return "", []


def table(found: list[Data], most: int) -> Data:
    """Classes as lines with a count for each split, the rarest first where there are too many.

    {"lines": [{"name", "counts": [int or None, ...]}], "left_out": int, "most": int}
    """
    names = dict.fromkeys(name for one in found for name in one["classes"])
    lines = [{"name": n, "counts": [one["classes"].get(n) for one in found]} for n in names]
    left_out = max(0, len(lines) - most)
    if left_out:
        lines = sorted(lines, key=lambda line: sum(filter(None, line["counts"])))[:most]
    largest = [max(one["classes"].values(), default=0) or 1 for one in found]
    return {"lines": lines, "left_out": left_out, "most": largest}


def balance(one: Data) -> str:
    """The rarest class beside the most frequent: "every class 300", "120 to 4,210 a class"."""
    counts = list(one["classes"].values())
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low:,} of each class" if low == high else f"{low:,} to {high:,} of a class"
