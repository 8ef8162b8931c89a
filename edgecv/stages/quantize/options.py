"""How a float graph becomes integers: the knobs that every quantizer here understands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from edgecv.errors import StageError

Calibration = Literal["minmax", "percentile", "entropy", "mse"]
Rounding = Literal["nearest", "gptq", "descent", "adaround"]
Reconstruction = Literal["none", "network"]
Sensitivity = Literal["noise", "hessian"]


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
    """

    calibration: Calibration = "mse"
    rounding: Rounding = "gptq"
    bias_correction: bool = True
    equalization: bool = False
    reconstruction: Reconstruction = "none"
    weight_bits: Literal[4, 8] = 8
    keep_float: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"keep_float": list(self.keep_float)}


DEFAULT = Options()
_KNOWN: dict[str, tuple[Any, ...]] = {
    "calibration": get_args(Calibration),
    "rounding": get_args(Rounding),
    "reconstruction": get_args(Reconstruction),
    "weight_bits": (4, 8),
}


def check(options: Options) -> None:
    """Raises StageError naming the option that holds no known value, and what it may be."""
    for name, known in _KNOWN.items():
        value = getattr(options, name)
        if value not in known:
            hint = f"one of {', '.join(map(str, known))}"
            raise StageError(f"quantize.{name}", f"unknown: {value!r}", hint)
