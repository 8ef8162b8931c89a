"""Which class is answered for which, of every classifier whose answers are kept.

counts[truth, answer] = number of test images
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgecv.report.folder import Row, Run
from edgecv.report.pairing import confusion

Data = dict[str, Any]
MOST = 20  # classes up to which the whole matrix is shown
WORST = 12  # beyond that: so many classes, and so many mistakes


def matrices(run: Run, rows: list[Row], cards: Sequence[Data] = ()) -> list[Data]:
    """`_matrices`; that of the first card's network before the others."""
    first = [(card["step"], card["target"]) for card in cards[:1]]
    found = list(_matrices(run, rows))
    return sorted(found, key=lambda m: (m["step"], m["target"]) not in first)


def _matrices(run: Run, rows: list[Row]) -> Iterator[Data]:
    """{"step", "target", "precision", "samples", "right", "classes": [{"name", "images", "right"}],
    "counts": [[...]] or None, "mistakes": [{"truth", "answer", "count"}]} of every row."""
    for row in rows:
        node = run.bundle(row)
        answers = run.predictions(node)
        images = run.images(node) if node and answers is not None else None
        if images is None or answers is None or images.kind != "index":
            continue
        if len(answers) == len(images):
            yield {
                "step": row["step"], "target": row["target"], "precision": row["precision"],
                **matrix(answers, images.labels, images.classes),
            }  # fmt: skip


def matrix(answers: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> Data:
    """answers, labels: int (images,); names: of the classes, more answers are called by number."""
    size = max(len(names), int(answers.max()) + 1, int(labels.max()) + 1)
    called = [*names, *map(str, range(len(names), size))]
    if size <= MOST:
        counts = confusion(answers, labels, size)
        whole: list[list[int]] | None = counts.tolist()
    else:
        whole = None
    images = np.bincount(labels, minlength=size)
    right = np.bincount(labels[answers == labels], minlength=size)
    classes = [
        {"name": n, "images": int(i), "right": int(r)}
        for n, i, r in zip(called, images, right, strict=True)
    ]
    return {
        "samples": len(labels), "right": int(right.sum()), "counts": whole,
        "classes": classes if whole else _worst(classes),
        "mistakes": _mistakes(answers, labels, called),
    }  # fmt: skip


def _worst(classes: list[Data]) -> list[Data]:
    """Those with the smallest share of right answers."""
    known = [c for c in classes if c["images"]]
    return sorted(known, key=lambda c: (c["right"] / c["images"], -c["images"]))[:WORST]


def _mistakes(answers: np.ndarray, labels: np.ndarray, called: list[str]) -> list[Data]:
    """The most frequent ones."""
    wrong = answers != labels
    cells = labels[wrong].astype(np.int64) * len(called) + answers[wrong]
    found, counts = np.unique(cells, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:WORST]
    return [
        {"truth": called[found[i] // len(called)], "answer": called[found[i] % len(called)],
         "count": int(counts[i])}
        for i in order
    ]  # fmt: skip
