"""Two detectors on the same images: what the compressed one finds more, less and elsewhere.

Boxes of the two are paired, first within a class, then across classes, the pair with the largest
intersection over union first, as long as that is SAME at the least. What stays alone was lost or
gained. A box is right where an object of its class lies under it with SAME or more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgecv.data.annotations import Boxes, PictureBoxes
from edgecv.tasks.base import Parts
from edgecv.tasks.detection.matching import SAME, of_one_class, overlaps, paired
from edgecv.tasks.drawing import Found, named

MOVED = 0.8  # below it a pair's box has moved so far that one sees it
KINDS = ("lost", "gained", "renamed", "moved")
RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO asks for the precision


class Change(NamedTuple):
    """One thing that the compressed network finds otherwise.

    kind:  one of KINDS
    box:   (x0, y0, x1, y1) in pixels of the image: of the compressed network, of what is lost of
           the float one
    score: 0..1, and index, the class, likewise
    was:   the float network's box of what moved or is renamed; its class in was_index
    right: whether it is right; of what is lost, whether it was. None without truths
    """

    kind: str
    box: tuple[float, ...]
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    was: tuple[float, ...] | None = None
    was_index: int | None = None
    right: bool | None = None


def changes(before: Found, after: Found, truth: PictureBoxes | None = None) -> list[Change]:
    """What differs on one image, by kind and falling score.

    before, after: what the float and the compressed network found, at one confidence
    """
    over = overlaps(before.boxes, after.boxes)
    pairs = of_one_class(before, after)
    renamed = paired(_without(over, pairs))
    found = [
        _pair("moved", before, after, i, j) for i, j in pairs if over[i, j] < MOVED
    ] + [_pair("renamed", before, after, i, j) for i, j in renamed]  # fmt: skip
    taken = [*pairs, *renamed]
    for kind, read, side in (("lost", before, 0), ("gained", after, 1)):
        alone = set(range(len(read.boxes))) - {pair[side] for pair in taken}
        found += [_alone(kind, read, i) for i in sorted(alone)]
    if truth is not None:
        found = [change._replace(right=_right(change, truth)) for change in found]
    return sorted(found, key=lambda c: (KINDS.index(c.kind), -c.score, c.box))


def _without(over: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    left = over.copy()
    for i, j in pairs:
        left[i], left[:, j] = 0.0, 0.0
    return left


def _pair(kind: str, before: Found, after: Found, i: int, j: int) -> Change:
    was = tuple(before.boxes[i].tolist())
    return _alone(kind, after, j)._replace(was=was, was_index=int(before.index[i]))


def _alone(kind: str, read: Found, i: int) -> Change:
    return Change(kind, tuple(read.boxes[i].tolist()), float(read.scores[i]), int(read.index[i]))


def _right(change: Change, truth: PictureBoxes) -> bool:
    own = truth.boxes[(truth.index == change.index) & ~truth.crowd]
    return bool((overlaps(np.array(change.box), own) >= SAME).any())


def counted(of_images: Iterable[Sequence[Change]]) -> dict[str, int]:
    """How many of each kind over all images: {"lost": 5, "lost_right": 3, ...}."""
    counts = Counter({key: 0 for kind in KINDS for key in (kind, f"{kind}_right")})
    for change in (c for image in of_images for c in image):
        counts[change.kind] += 1
        counts[f"{change.kind}_right"] += bool(change.right)
    return dict(counts)


def telling(of_images: Sequence[Sequence[Change]], count: int) -> list[int]:
    """The images to be shown: most is lost that was right, or gained that is wrong, surest first;
    then whatever else differs. Images without a change are left out."""

    def weight(image: Sequence[Change]) -> tuple[float, float]:
        grave = [c for c in image if (c.kind == "lost") == (c.right is not False)]
        return (
            sum(c.score for c in grave if c.kind in ("lost", "gained")),
            sum(c.score for c in image),
        )

    order = sorted(range(len(of_images)), key=lambda i: [-w for w in weight(of_images[i])])
    return [i for i in order if of_images[i]][:count]


def compared(
    before: Sequence[Found], after: Sequence[Found], truth: Boxes | None
) -> list[list[Change]]:
    """`changes` of every image, in their order."""
    return [
        changes(was, now, None if truth is None else truth[i])
        for i, (was, now) in enumerate(zip(before, after, strict=True))
    ]


def said(change: Change, labels: Sequence[str]) -> str:
    """A change in words: "lost: cat 0.61, which was right"."""
    name = f"{named(labels, change.index)} {change.score:.2f}"
    if change.was_index is not None and change.was_index != change.index:
        name = f"{named(labels, change.was_index)} is now {name}"
    if change.right is None:
        return f"{change.kind}: {name}"
    verb = "was" if change.kind == "lost" else "is"
    return f"{change.kind}: {name}, which {verb} {'right' if change.right else 'wrong'}"


def curve(parts: Parts, threshold: int = 0) -> np.ndarray:
    """Precision at RECALLS, float64 (101,), the mean over the classes that the images have.

    parts: of the score of a detector (`edgecv.tasks.detection.metric`), classes one after another,
    each by falling score; threshold: which of COCO's overlaps, 0 for 0.5, 9 for 0.95
    The mean of it is AP50 (of threshold 0), as pycocotools has it.
    """
    of_class = [_curve(parts, int(k), threshold) for k in np.unique(parts["truth_index"])]
    return np.asarray(np.mean(of_class, axis=0)) if of_class else np.zeros(len(RECALLS))


def _curve(parts: Parts, index: int, threshold: int) -> np.ndarray:
    there = int(parts["truth_count"][parts["truth_index"] == index].sum())
    rows = parts["index"] == index
    matched, ignored = (
        (parts[key][rows] >> threshold & 1).astype(bool) for key in ("matched", "ignored")
    )
    right = matched[~ignored].cumsum()
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(right / max(there, 1), RECALLS, "left")
    return np.append(best, 0.0)[np.minimum(place, len(best))]


def by_class(
    before: Mapping[str, float | None], after: Mapping[str, float | None], most: int
) -> list[dict[str, Any]]:
    """The classes whose metric changed most: {"label", "before", "after", "change"}, in 0..1, the
    largest change first. Classes that no image has are left out."""
    rows: list[dict[str, Any]] = [
        {"label": label, "before": was, "after": now, "change": now - was}
        for label, was in before.items()
        if was is not None and (now := after.get(label)) is not None
    ]
    return sorted(rows, key=lambda r: (-abs(r["change"]), r["label"]))[:most]
