"""What goes into a network and what comes out, and what an engine says of its layers.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor of a compiled network.

    shape is static and includes the batch axis (1). layout is "NCHW", "NHWC" or "NC" (anything
    that is not an image). scale and zero_point are set where the engine's own tensor holds
    integers: real = scale * (q - zero_point). kind says what an output holds
    (`edgecv.runtime.fidelity.KINDS`); None where only the shape tells.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "NC"
    scale: float | None = None
    zero_point: int | None = None
    kind: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}

    @staticmethod
    def from_json(data: dict[str, Any]) -> TensorSpec:
        return TensorSpec(**{**data, "shape": tuple(data["shape"])})


def channels_first(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """(N, H, W, C) as (N, C, H, W), where the tensor is laid out so; others as they are."""
    last = spec.layout == "NHWC" and values.ndim == 4
    return values.transpose(0, 3, 1, 2) if last else values


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


@dataclass(frozen=True)
class Layer:
    """One step of a compiled network as the engine's own profiler tells it: one kernel, with what
    was fused into it.

    name:      the engine's own name for it
    layer:     the layer of the model that it computes, "stage2.0.conv1"; "" when unknown
    op:        what ran, in the engine's words
    precision: what it computed in: "int8", "fp32", "fp16", ...; "" where nothing is computed
               (copies, layouts, conversions)
    time_ms:   of one call; None where the engine does not tell. Engines count in whole
               microseconds, rounded down, so a layer can take up to 0.001 ms more than this
    bytes:     what it moves: activations in and out, and parameters (weights, bias, scales) as
               the engine holds them; None when unknown
    """

    name: str
    layer: str
    op: str
    precision: str
    time_ms: float | None = None
    bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Profile:
    """A network's layers in the order in which they run; reason says why times are missing."""

    layers: tuple[Layer, ...]
    reason: str = ""
