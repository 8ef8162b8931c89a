"""What to change, by mechanism and by what the bundle's engine computes."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.backends import Facts
from edgecv.diagnosis.why.rounding.mechanisms import CALLED, Mechanism
from edgecv.diagnosis.why.rounding.network import Tensor

EXPORT = "`edgecv export` of the float file"


def cure(kind: str, tensors: Sequence[tuple[Tensor, Mechanism]], engine: Facts) -> str:
    """For the tensors of one guilty mechanism, a sentence."""
    if kind == "inside":
        return _inside({t.inside for t, _ in tensors}, engine)
    return {
        "uneven": "a scale for each channel, or a factor for each that the depthwise weights take "
                  f"back exactly: {EXPORT} evens them out",
        "joined": f"what ends the network in float, which costs no time: {EXPORT} leaves it so; "
                  "where the engine has no floats, end the graph in front of it (--until)",
        "clipped": "a wider range (`calibration: mse` or `minmax`), or more images to calibrate on",
        "outlier": "a range that a rare value does not set (`calibration: mse` or `percentile`), "
                   "and other images to calibrate on",
        "rounding": "those layers in float (keep_float), a search by the task (--accuracy-drop), "
                    "or quantization-aware training",
    }[kind]  # fmt: skip


def _inside(kinds: set[str], engine: Facts) -> str:
    called = " and ".join(CALLED[k] for k in sorted(kinds))
    if kinds <= set(engine.fused):
        return (
            f"{engine.label} computes a layer and its {called} as one: the scale belongs behind "
            f"it, and none inside ({EXPORT} puts it there)"
        )
    if kinds <= set(engine.tables):
        return (
            f"between integers {called} is a table for each channel, whose scale holds what it "
            f"gives and not what it reads: {EXPORT} has {engine.label} look it up"
        )
    return (
        f"{engine.label} has no {called} in int8 that takes in the layer before it: the function "
        "in float between its scales, another one in its place (restructure: {into: hardswish} or "
        "relu6), or a target that computes them as one (openvino)"
    )
