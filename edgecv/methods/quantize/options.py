"""How a float graph becomes integers: the knobs that every quantizer here understands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from edgecv.errors import StageError

Engine = Literal["edgecv", "nncf"]

Calibration = Literal["minmax", "percentile", "entropy", "mse", "mean"]
Rounding = Literal["nearest", "gptq", "descent", "adaround"]
Reconstruction = Literal["none", "network"]
Sensitivity = Literal["noise", "hessian"]
Preset = Literal["performance", "mixed"]


@dataclass(frozen=True)
class Options:
    """One choice of the knobs; the defaults are what served best on EfficientNet-Lite0.

    calibration:     how an activation's range is chosen from what it held (`ranges.py`)
    rounding:        how weights become integers (`rounding.py`)
    bias_correction: put the mean error of a layer's rounded weights into its bias
    equalization:    even out the channels of neighbouring layers first
    reconstruction:  afterwards, tune weights and biases of the whole network by its float self
                     (`reconstruction.py`; minutes)
    weight_bits:     8 or 4; 4-bit weights are kept in int8 and take 15 levels of it
    keep_float:      names of layers that stay float, as `edgecv bench --profile` shows them
    engine:          whose quantizer: ours, or NNCF's (`nncf.py`), which has some of these knobs
                     and three of its own:
    preset:          activations symmetric ("performance") or with a zero point ("mixed")
    smooth_quant:    move outliers of what a matrix product reads into its weights first
    fast_bias_correction: by one pass over the float network instead of layer behind layer
    """

    calibration: Calibration = "mse"
    rounding: Rounding = "gptq"
    bias_correction: bool = True
    equalization: bool = False
    reconstruction: Reconstruction = "none"
    weight_bits: Literal[4, 8] = 8
    keep_float: tuple[str, ...] = ()
    engine: Engine = "edgecv"
    preset: Preset = "mixed"
    smooth_quant: bool = False
    fast_bias_correction: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: what the engine has no use for is left out."""
        data = asdict(self) | {"keep_float": list(self.keep_float)}
        idle = (*NNCF_ALONE, "engine") if self.engine == "edgecv" else EDGECV_ALONE
        return {k: v for k, v in data.items() if k not in idle}


DEFAULT = Options()
NNCF_ALONE = ("preset", "smooth_quant", "fast_bias_correction")
EDGECV_ALONE = ("rounding", "equalization", "reconstruction", "weight_bits")
# Where NNCF starts: what served best on a CNN of depthwise layers and a vision transformer.
_NNCF_START: dict[str, Any] = {"engine": "nncf", "calibration": "minmax", "rounding": "nearest"}
NNCF_CALIBRATIONS = ("minmax", "mse")
_KNOWN: dict[str, tuple[Any, ...]] = {
    "calibration": get_args(Calibration),
    "rounding": get_args(Rounding),
    "reconstruction": get_args(Reconstruction),
    "weight_bits": (4, 8),
    "engine": get_args(Engine),
    "preset": get_args(Preset),
}


def for_nncf(options: Options, given: Collection[str]) -> Options:
    """The same choice for NNCF's quantizer. given: knobs that the user set, which stay"""
    return replace(options, **{k: v for k, v in _NNCF_START.items() if k not in given})


def without(options: Options) -> str:
    """What of the options NNCF's quantizer does not have; "" where it has them all."""
    if options.engine != "nncf":
        return ""
    for name in EDGECV_ALONE:
        value, only = getattr(options, name), "nearest" if name == "rounding" else None
        if value != (only or getattr(DEFAULT, name)):
            return f"engine nncf has no {name}: {_said(value)}; leave it out, or take engine edgecv"
    if options.calibration not in NNCF_CALIBRATIONS:
        return (
            f"engine nncf has no calibration: {options.calibration}; it has "
            f"{' and '.join(NNCF_CALIBRATIONS)}"
        )
    return ""


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check(options: Options) -> None:
    """Raises StageError naming the option that holds no known value, and what it may be."""
    for name, known in _KNOWN.items():
        value = getattr(options, name)
        if value not in known:
            hint = f"one of {', '.join(map(str, known))}"
            raise StageError(f"quantize.{name}", f"unknown: {value!r}", hint)
