"""Two networks' answers to the same images: how often each is right alone, and which classes move.

The paired counts and McNemar's exact p (edgecv.benchmark) say more than two intervals do: both
networks saw the same images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.benchmark.statistics import mcnemar, paired_drop

CELLS = 8  # changed cells of the confusion matrix that are told
CLASSES = 12  # classes that are drawn


def paired(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What changed between two answers to every image, and whether chance would do it.

    before, after: int (images,), the class each network answered; labels: the true ones

    points: the change of top-1 in percentage points, with its 95% interval (paired bootstrap)
    """
    was, now = before == labels, after == labels
    lost, won = int((was & ~now).sum()), int((~was & now).sum())
    drop, low, high = paired_drop(was, now)
    return {
        "both_right": int((was & now).sum()),
        "only_float": lost,
        "only_compressed": won,
        "both_wrong": int((~was & ~now).sum()),
        "changed": int((before != after).sum()),
        "samples": len(labels),
        "p": mcnemar(lost, won),
        "points": -100 * drop,
        "points_interval": [-100 * high, -100 * low],
    }


def classes_moved(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Per class, its images that only the one or only the other got right; most moved first."""
    was, now = before == labels, after == labels
    rows = []
    for i, name in enumerate(names):
        of = labels == i
        lost, won = int((of & was & ~now).sum()), int((of & ~was & now).sum())
        if lost or won:
            rows.append({"label": name, "lost": lost, "won": won, "images": int(of.sum())})
    return sorted(rows, key=lambda r: (-r["lost"] - r["won"], r["label"]))


def cells_moved(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The mistakes that became more or fewer, most changed first: {"truth", "answer", "change"}."""
    size = max(len(names), *(int(a.max()) + 1 for a in (before, after, labels)))
    change = confusion(after, labels, size) - confusion(before, labels, size)
    np.fill_diagonal(change, 0)
    flat = change.ravel()
    order = np.argsort(-np.abs(flat), kind="stable")[:CELLS]
    return [
        {
            "truth": _name(names, int(i) // size),
            "answer": _name(names, int(i) % size),
            "change": int(flat[i]),
        }
        for i in order
        if flat[i]
    ]


def confusion(answers: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """int64 (truth, answer)."""
    cells = labels.astype(np.int64) * size + answers
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else str(index)
