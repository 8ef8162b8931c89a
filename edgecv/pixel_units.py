"""The units that mean and std are given in: 0..255 pixels, or 0..1. The one place that decides.

    real = (pixel - mean) / std          pixel 0..255: mean 123.7, std 58.4
         = (pixel / 255 - mean) / std    0..1:         mean 0.485, std 0.229

Both are taken, in recipes and by `edgecv export`, and told from each other by what can only be one:

    a value above 4                                     0..255
    a std below 1; a mean below 1 that is not 0         0..1
    one of each                                         refused: they contradict each other
    between 1 and 4                                     refused: it may be either
    mean 0 (or none said) and std 1 (or none said)      the unit at home: 0..1 in a recipe, where it
                                                        says "scaled to 0..1"; 0..255 in `export`,
                                                        where it says "pixels as they are"

`units: 0..1` or `units: 0..255` beside them says it outright. Bundles hold 0..255, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Units = Literal["0..1", "0..255"]
_OTHER = {"0..1": "0..255", "0..255": "0..1"}
_SURE = 4.0  # no pixel of 0..1 is above 1, no deviation of 0..255 worth having below 4
HINT = "say units 0..1 or 0..255"


def told(mean: Sequence[float] | None, std: Sequence[float] | None, home: Units) -> Units:
    """The units of what was given; None: not given.

    home: what mean 0 and std 1 are here. Raises ValueError: not to be told.
    """
    off, spread = max(map(abs, mean or (0.0,))), tuple(std or (1.0,))
    if min(spread) <= 0:  # no deviation: whoever checks it says so
        return home
    large = max(off, *spread) > _SURE
    small = min(spread) < 1 or 0 < off < 1
    if large and small:
        raise ValueError(f"{_said(mean, std)}: one looks like 0..255 and the other like 0..1")
    if large or small:
        return "0..255" if large else "0..1"
    if off or max(spread) > 1:
        raise ValueError(f"{_said(mean, std)} may be units of 0..1 or of 0..255")
    return home


def _said(mean: Sequence[float] | None, std: Sequence[float] | None) -> str:
    both = (("mean", mean), ("std", std))
    return " and ".join(f"{name} {listed(v)}" for name, v in both if v is not None)


def listed(values: Sequence[float]) -> str:
    """ "0.485 0.456 0.406"."""
    return " ".join(f"{v:.6g}" for v in values)


def sentence(mean: Sequence[float], std: Sequence[float], units: Units) -> str:
    """What was understood, in both units. mean, std: in units of 0..1."""
    if units == "0..255" and not any(mean) and all(abs(255 * v - 1) < 1e-6 for v in std):
        return "mean 0 and std 1 are units of 0..255 here: pixels go in as they are"
    if units == "0..1" and not any(mean) and set(std) == {1.0}:
        return ("mean 0 and std 1 are units of 0..1 here: pixels are scaled to 0..1; units 0..255 "
                "leaves them as they are")  # fmt: skip
    ours, other = (1.0, 255.0) if units == "0..1" else (255.0, 1.0)
    given, turned = (
        f"mean {listed([v * by for v in mean])} and std {listed([v * by for v in std])}"
        for by in (ours, other)
    )
    return f"{given} are units of {units}, which in {_OTHER[units]} is {turned}"
