"""What goes into a network and what comes out, and what an engine says of its layers.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

PIXELS = ("float32", "uint8", "int8")  # what an engine may take an image in
PARTED = ("groups", "bounds")
IMAGE_CHANNELS = 4  # of several inputs with four axes, one with more channels is no image


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor of a compiled network.

    shape is static and includes the batch axis (most often 1). layout is "NCHW", "NHWC" or "NC"
    (anything that is not an image). scale and zero_point are set where the engine's own holds
    integers: real = scale * (q - zero_point). kind says what an output holds
    (`edgecv.runtime.fidelity.KINDS`); None where only the shape tells. groups: the axis, channels
    first, along which it holds several quantities, 0, and where each ends; bounds: the largest
    magnitude of each, 0 where its operator says none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "NC"
    scale: float | None = None
    zero_point: int | None = None
    kind: str | None = None
    groups: tuple[int, ...] | None = None
    bounds: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        data = {k: v for k, v in asdict(self).items() if v is not None}
        return data | {k: list(data[k]) for k in PARTED if k in data}

    @staticmethod
    def from_json(data: dict[str, Any]) -> TensorSpec:
        parted = {k: tuple(data[k]) if data.get(k) else None for k in PARTED}
        return TensorSpec(**{**data, "shape": tuple(data["shape"]), **parted})


def plain(spec: TensorSpec) -> TensorSpec:
    """The same tensor in real numbers, channels first."""
    shape, kind = spec.shape, "float32" if on_grid(spec) else spec.dtype
    if spec.layout == "NHWC" and len(shape) == 4:
        shape = (shape[0], shape[3], *shape[1:3])
    layout = "NCHW" if len(shape) == 4 else spec.layout
    return replace(spec, dtype=kind, shape=shape, layout=layout, scale=None, zero_point=None)


def ungrouped(spec: TensorSpec) -> TensorSpec:
    """The same tensor, of whose groups nothing is said."""
    return replace(spec, groups=None, bounds=None)


def image_of(specs: Sequence[TensorSpec]) -> TensorSpec | None:
    """The input that takes the image: the only one of four axes, or the first of few channels."""
    maps = [s for s in specs if len(s.shape) == 4 and s.layout != "NC" and s.dtype in PIXELS]
    if len(maps) < 2:
        return maps[0] if maps else None
    channels = {s.name: s.shape[1 if s.layout == "NCHW" else 3] for s in maps}
    return next((s for s in maps if channels[s.name] <= IMAGE_CHANNELS), None)


def batch_of(specs: Sequence[TensorSpec]) -> int:
    """How many samples a call takes: the first axis of the image, or of the first input."""
    first = image_of(specs) or specs[0]
    return first.shape[0] if len(first.shape) > 1 else 1


def on_grid(spec: TensorSpec) -> bool:
    """Whether the tensor holds integers that stand for real values."""
    return spec.scale is not None and np.dtype(spec.dtype).kind in "iu"


def quantise(real: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Real values on the tensor's integer grid: clip(round(x / scale) + zero_point)."""
    limits = np.iinfo(spec.dtype)
    q = np.rint(real / np.float32(spec.scale or 1.0)) + (spec.zero_point or 0)
    return np.clip(q, limits.min, limits.max).astype(spec.dtype)


def dequantise(q: np.ndarray, grid: TensorSpec) -> np.ndarray:
    """float32 scale * (q - zero_point)."""
    real = np.subtract(q, grid.zero_point or 0, dtype=np.float32)
    real *= grid.scale or 1.0
    return real


def joined(calls: Sequence[np.ndarray]) -> np.ndarray:
    """One tensor of several calls: along its first axis where that is 1, else on an axis in front
    of it, as a bundle keeps it."""
    one = calls[0].shape[:1] == (1,)
    return np.concatenate(calls) if one else np.stack(calls)


def of_call(values: np.ndarray, spec: TensorSpec, call: int) -> np.ndarray:
    """The tensor of one call, of those that were `joined`; memory of its own."""
    one = spec.shape[:1] == (1,)
    return np.array(values[call : call + 1] if one else values[call], order="C")


def joined_shape(spec: TensorSpec) -> tuple[int, ...]:
    """What `joined` gives, without the axis of calls."""
    return spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape


def first_axis(spec: TensorSpec, axis: int) -> int:
    """Where an axis of the tensor is with channels first."""
    return (0, 2, 3, 1)[axis] if spec.layout == "NHWC" and len(spec.shape) == 4 else axis


def own_axis(spec: TensorSpec, axis: int) -> int:
    """Where an axis of channels first is in the tensor."""
    return (0, 3, 1, 2)[axis] if spec.layout == "NHWC" and len(spec.shape) == 4 else axis


def channels_last(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """(N, C, H, W) as (N, H, W, C), where the tensor is laid out so; others as they are."""
    last = spec.layout == "NHWC" and values.ndim == 4
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if last else values


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
