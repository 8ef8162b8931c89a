"""A network as the ladder reads it: layers in order, with names, constants and grids, and a way to
look at any tensor between them, whichever engine holds it.

Everything is told channels first and in real numbers, so that a permutation between two formats
(NCHW and NHWC, OIHW and OHWI) is undone by the form that knows it and never reaches a comparison.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.spec import TensorSpec, quantise

Shape = tuple[int, ...]
Sample = np.ndarray | Mapping[str, np.ndarray]  # an image, or a feed of several inputs
INPUT = "<input>"  # the tensor that a network's own input is called in Layer.inputs
COMPUTE = ("conv", "dense")


@dataclass(frozen=True)
class Grid:
    """real = scale * (q - zero_point), q from low to high. One scale: an activation's grid."""

    scale: float
    zero_point: int
    low: int
    high: int

    def ends(self) -> tuple[float, float]:
        """The least and the largest real number that it holds."""
        return self.scale * (self.low - self.zero_point), self.scale * (self.high - self.zero_point)


@dataclass(frozen=True)
class Layer:
    """One operator that works on activations.

    name:       what the file or the network calls it
    kind:       "conv", "dense", "add", "mean", ... the same word in every format
    tensor:     the name of its result; inputs: of the activations it reads (INPUT for the image)
    shape:      of the result, channels first; () where it is not known
    path:       the module it comes from, ("stage1", "0", "conv1"); () where that is not known
    clip:       what a fused activation, or the grid's own end, limits the result to
    grid:       the integers of the result; None in float
    attributes: strides, padding and the like, as far as they compare between formats
    """

    name: str
    kind: str
    tensor: str
    inputs: tuple[str, ...]
    shape: Shape = ()
    path: tuple[str, ...] = ()
    clip: tuple[float, float] | None = None
    grid: Grid | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Form(Protocol):
    """A network in one of its forms, loaded.

    title:      which form it is, for a reader
    format:     "onnx" or "tflite" where it is a graph file, else ""
    one_by_one: looking at a tensor takes a fused kernel apart, so one is looked at a time
    """

    title: str
    format: str
    precision: str
    layers: tuple[Layer, ...]
    input_grid: Grid | None
    one_by_one: bool

    def answers(self, x: Sample) -> tuple[np.ndarray, ...]:
        """Each output, float32 (1, ...) channels first, for one image, float32 (1, C, H, W),
        normalised; or, of a network of several inputs, for a feed of them all."""

    def values(self, x: Sample, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        """Tensors by name, float32, channels first; INPUT is the image as the grid holds it."""

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:
        """{"weight": OIHW or (out, in), "bias": (out,)} in real numbers; {} where it has none."""

    def close(self) -> None: ...


def image_in(x: Sample) -> np.ndarray:
    """The image, or the first input of a feed."""
    return next(iter(x.values())) if isinstance(x, Mapping) else x


def feeds(x: Sample, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """What an engine with these inputs takes. Raises DataError."""
    return {s.name: placed(v, s) for s, v in zip(specs, named(x, specs).values(), strict=True)}


def named(x: Sample, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Real numbers by the input's name: by the same names, or one array for the first input.

    Raises DataError: an input is missing.
    """
    given = x if isinstance(x, Mapping) else {specs[0].name: x}
    for spec in specs:
        if spec.name not in given:
            raise DataError(f"input {spec.name!r}", "has no values", "give all inputs")
    return {spec.name: given[spec.name] for spec in specs}


def placed(x: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """A real (1, C, H, W) image in an engine's layout, dtype and grid. Raises DataError."""
    if x.shape != spec.shape:
        last = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
        if last.shape != spec.shape:
            raise DataError(f"input {spec.name!r}", f"takes {spec.shape}, the images are {x.shape}")
        x = last
    return on_grid(x, spec)


def on_grid(x: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Real numbers as the integers of a tensor; a float tensor takes them as they are."""
    x = np.asarray(x, np.float32, order="C")
    return x.astype(spec.dtype, copy=False) if spec.scale is None else quantise(x, spec)


def input_grid(spec: TensorSpec) -> Grid | None:
    if spec.scale is None:
        return None
    limits = np.iinfo(spec.dtype)
    return Grid(spec.scale, spec.zero_point or 0, int(limits.min), int(limits.max))


def first(values: np.ndarray) -> np.ndarray:
    """(1, H, W, C) as (1, C, H, W); other ranks as they are."""
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


def first_shape(shape: Sequence[int]) -> Shape:
    sizes = tuple(int(n) for n in shape)
    return (sizes[0], sizes[3], sizes[1], sizes[2]) if len(sizes) == 4 else sizes


def module_path(name: str) -> tuple[str, ...]:
    """("stage1", "0", "conv1") of "/stage1/stage1.0/conv1/Conv", "stage1.0.conv1.weight" or
    what the quantizer calls that weight, "stage1.0.conv1.weight_quantized"."""
    found: list[str] = []
    if name.startswith("/"):
        # TorchScript's scope repeats a Sequential's name before its child's number
        parts = name.strip("/").split("/")[:-1]
        tokens = [t for part in parts for t in part.split(".")]
    else:
        own = name.removesuffix("_quantized")
        tokens = re.sub(r"\.(weight|bias)$", "", own).split(".") if "." in own else []
    for token in tokens:
        if not found or found[-1] != token:
            found.append(token)
    return tuple(found)


def sources(
    tensor: str, known: Container[str], reads: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The nearest known tensors on every path into a tensor, sorted. reads: tensor -> what the
    layer that makes it reads."""
    todo, found, seen = list(reads.get(tensor, ())), set(), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            found.add(name)
        else:
            todo += reads.get(name, ())
    return tuple(sorted(found))


def cuts(layers: Sequence[Layer]) -> Iterator[int]:
    """Indices of the layers whose result is all that is alive after them: every path from the
    image to the answer leads through each."""
    last_use = {INPUT: -1} | {layer.tensor: len(layers) for layer in layers[-1:]}
    for i, layer in enumerate(layers):
        for name in layer.inputs:
            last_use[name] = max(last_use.get(name, -1), i)
    alive: dict[str, int] = {INPUT: last_use[INPUT]}
    for i, layer in enumerate(layers):
        alive = {name: last for name, last in alive.items() if last > i}
        if not alive:
            yield i
        alive[layer.tensor] = last_use.get(layer.tensor, -1)
