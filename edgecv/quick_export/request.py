"""What is asked for: a network, targets, how images become its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv import (
    pixel_units,
)
from edgecv.graphs.onnx.pins import Pins
from edgecv.limits import Limits
from edgecv.plan.recipe import NO_LIMITS

# Field of a checked type -> the option that sets it.
OPTIONS = {
    "size": "--input-size",
    **{f: f"--{f.replace('_', '-')}" for f in (
        "samples", "opset", "mean", "std", "interpolation", "channels", "crop_pct", "keep_float",
        "name", "resize", "pad_value", "pad_at", "color", "units",
    )},
    "engine": "--quantizer",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What to export and how images become its input.

    model: a Model folder, a graph file, module:function or a zoo name; args: its builder's
    precision: None takes what a graph file comes in, else int8 with calibration and fp32 without
    targets: device profiles; what they can share is done once
    mean, std: in units of 0..255 pixels, or of 0..1 where they can be nothing else, or where
           `units` says so (`edgecv.pixel_units`); None takes the Model folder's own, or what
           published weights of the zoo expect, else 0 and 255
    resize, pad_value, pad_at, color, crop_pct, interpolation: as the runtime's Preprocess; None
           takes the Model folder's own, or its default
    size:  input side in pixels; None takes what the model says, else 224
    labels: names of the classes, or a file of one a line
    evaluate: source of test images ("imagefolder:DIR"), whose accuracy is measured
    keep_float: layers that int8 leaves out, by name
    quantizer: "edgecv" or "nncf", `engine` of the stage quantize; None leaves it to that
    activations: "hardswish", "relu6" or "relu" in the place of costlier ones (stage restructure);
          activations_share: of the numbers that these make, at most; None is all
    task: a name of `edgecv.tasks` or "none", for what `open_bundle(...)(image)` answers; None is
          inferred. decode: what is said of how its outputs are read, fields of the task's value
    limits:   what the result must meet; it is then compared with fp32, and timed
    pins:     what an .onnx file leaves open, and where it is cut; its size is `size`
    weights:  a file of weights for the network that a function or the zoo builds
    """

    model: str
    targets: tuple[str, ...]
    precision: str | None = None
    calibration: Path | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    units: pixel_units.Units | None = None
    resize: str | None = None
    pad_value: int | None = None
    pad_at: str | None = None
    color: str | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    labels: Path | tuple[str, ...] | None = None
    samples: int = 256
    keep_float: tuple[str, ...] = ()
    quantizer: str | None = None
    activations: str | None = None
    activations_share: float | None = None
    opset: int = 18
    name: str | None = None
    evaluate: str | None = None
    limits: Limits = NO_LIMITS
    args: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    decode: dict[str, Any] = field(default_factory=dict)
    pins: Pins = field(default_factory=Pins)
    weights: Path | None = None
