"""What is said of a bundle without being asked: its figures say nothing, or little is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgecv.fidelity import COMPILE_INT8, SEEN_DB

LOSSY = "much was lost in int8:"


def doubts(parity: Mapping[str, Any], classifies: bool) -> Iterator[str]:
    """What makes an agreement say nothing, a sentence each. parity: the bundle against float."""
    if parity["flat"]:
        yield "the network answers the same for every image: nothing can be judged by it"
    elif classifies and parity["answers"] == 1 and parity["samples"] > 1:
        yield "the network gives one class to every image: equal best classes say nothing"


def losses(precision: str, against_float: Mapping[str, Any] | None) -> Iterator[str]:
    """A sentence where integers left little of the answers: more than recipes allow by default may
    be meant, but is never passed over."""
    if precision == "int8" and against_float:
        found = against_float["sqnr_db"]
        if found < COMPILE_INT8.min_sqnr_db + SEEN_DB:
            yield (
                f"{LOSSY} {found:.1f} dB from float: only accuracy on labelled images can tell "
                "whether it will do; qat trains it in integers"
            )


def guesses(metric: Mapping[str, Any] | None, classes: int) -> Iterator[str]:
    """A sentence where accuracy is what guessing gives, within two standard deviations."""
    if metric is None:
        return
    chance = 1 / classes
    near = 2 * (chance * (1 - chance) / metric["samples"]) ** 0.5
    if metric["value"] <= chance + near:
        said = f"top-1 {100 * metric['value']:.2f} is near chance ({100 * chance:.2f})"
        yield f"{said}: are the weights trained, and the labels in the outputs' order?"
