"""Numbers as words, the same in the page and on the terminal. A missing number is no text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgecv import tasks

MINUS = "\u2212"
# The figures beside a metric, in the order in which they are shown.
FIGURES = (
    "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "precision", "recall", "f1",
    "pixel_accuracy",
)  # fmt: skip


def signed(value: float | None, digits: int = 2) -> str:
    """ "+0.10", "−0.87", "0.00": with a minus that is as wide as the plus."""
    if value is None:
        return ""
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", MINUS)


def percent(share: float | None, digits: int = 2) -> str:
    return "" if share is None else f"{100 * share:.{digits}f}"


def ms(value: float | None) -> str:
    """Milliseconds with three digits that count: 0.134, 1.34, 13.4, 134."""
    if value is None:
        return ""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def times(value: float | None) -> str:
    """A factor: 1.69, 12.3."""
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def ratio(value: float | None) -> str:
    """A measured ratio: its interval is often narrower than a hundredth."""
    return "" if value is None else f"{value:.3f}"


def size(count: float | None) -> str:
    """Bytes for people: 512 B, 49 KB, 1.1 MB (1 KB is 1024 bytes)."""
    if count is None:
        return ""
    if count < 1024:
        return f"{count:.0f} B"
    if count < 1024**2:
        return f"{count / 1024:.0f} KB"
    return f"{count / 1024**2:.1f} MB"


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 0.95:
        return f"{value:.1g} s"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def p_value(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def interval(pair: Sequence[float] | None, digits: int = 2) -> str:
    """ "[1.66, 1.73]"; with signs where one of the ends is below zero."""
    if pair is None:
        return ""
    low, high = (v + 0.0 for v in pair)  # no negative zero
    if low < 0:
        return f"[{signed(low, digits)}, {signed(high, digits)}]"
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def decibel(value: float | None) -> str:
    """SQNR; 200 dB stands for no difference at all."""
    if value is None:
        return ""
    return "exact" if value >= 200 else f"{value:.0f} dB" if value >= 100 else f"{value:.1f} dB"


def fidelity(parity: Mapping[str, Any], made_up: bool, classifies: bool) -> str:
    """How outputs compare with float: "SQNR 38.2 dB, top-1 agreement 0.979 on 48 images".

    classifies: by its task; the best of what is no class (of an embedding, say) tells nothing
    """
    agreement, ties = parity["top1_agreement"], parity["samples"] - parity.get("clear", 0)
    said = f"SQNR {parity['sqnr_db']:.1f} dB"
    if parity.get("indices"):
        said += f", {100 * agreement:.1f}% of its whole numbers equal"
    agreement = agreement if classifies and not parity.get("indices") else None
    if agreement is not None:
        said += f", top-1 agreement {agreement:.3f}"
    said += f" on {parity['samples']} {'made-up ' if made_up else ''}images"
    if agreement is not None and 0 < ties < parity["samples"]:
        said += f" ({ties} near ties)"
    for name, one in parity.get("outputs", {}).items():
        said += f"; {name} {one['sqnr_db']:.1f} dB"
        said += f" (axis {one['axis']})" if one.get("axis") is not None else ""
    return said


def figure(key: str) -> str:
    """A figure's name in a manifest for people: "AP50", "AP small", "pixel accuracy"."""
    word, *column = key.split(" ", 1)  # a column's own name stays as it is
    told = re.sub(r"^(ap\d*|f1|auc|mae|rmse)\b", lambda m: m[0].upper(), word.replace("_", " "))
    return " ".join([told, *column])


def units(keys: Sequence[str]) -> str:
    """What figures of those names are in."""
    amounts = {word for name in tasks.names() for word in tasks.task(name).amounts}
    own = [key for key in keys if key.split(" ")[0] in amounts]
    return "%" if not own else "in their own units" if len(own) == len(keys) else "% or own units"


def beside(value: float | None, metric: str, key: str) -> str:
    """One of the figures beside a metric: % of a share, else in its own unit."""
    return "" if value is None else tasks.figure(metric, key, value)


def figures(keys: Iterable[str]) -> list[str]:
    """Such keys, each once and in their order; those that nobody knows last."""
    return sorted(dict.fromkeys(keys), key=lambda k: FIGURES.index(k) if k in FIGURES else 99)


def found(counts: Mapping[str, Any]) -> str:
    """What a compressed network finds otherwise, in a phrase (`edgecv.report.seen`)."""
    if "pixels" in counts:
        return f"{percent(counts['pixels'], 1)} % of the pixels are of another class"
    return (
        f"{counts['lost']} lost ({counts['lost_right']} were right), {counts['gained']} gained "
        f"({counts['gained_right']} right), {counts['moved']} moved, {counts['renamed']} of "
        "another class"
    )


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
