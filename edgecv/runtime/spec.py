"""What goes into a network and what comes out: names, shapes, dtypes, quantized grids.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor of a compiled network.

    shape is static and includes the batch axis (1). layout is "NCHW", "NHWC" or "NC" (anything
    that is not an image). scale and zero_point are set where the engine's own tensor holds
    integers: real = scale * (q - zero_point).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "NC"
    scale: float | None = None
    zero_point: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}

    @staticmethod
    def from_json(data: dict[str, Any]) -> TensorSpec:
        return TensorSpec(**{**data, "shape": tuple(data["shape"])})


@dataclass(frozen=True)
class Probe:
    """What an engine says of itself on this machine (`edgecv doctor`).

    reason says why it is not available, and extra which edgecv extra brings it.
    """

    engine: str
    available: bool
    version: str | None = None
    reason: str = ""
    extra: str = ""
