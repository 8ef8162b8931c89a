"""Pads in front of a maximum → the pool's own, over one more row that a convolution gives.

    MaxPool(Pad(x; t, b); k, s)  =  MaxPool(x'; k, s, SAME)[: out]      x' = x and e rows behind it

SAME has (pads // 2) in front, where the pads are what the size lacks: of 176 rows, 3x3 with stride
2 lacks one, and none goes in front; of 177 it lacks two. So the convolution in front gives a row
more, which no window that is kept sees, for a few zeros behind its own input. The pad copied the
network's largest image: 0.39 of 3.7 ms of FastestDet in fp32, and 0.30 of 4.3 in int8; what is cut
off is copied at a quarter of the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.backends.tflite.parts import activation, numbers, operator
from edgecv.graphs.tflite import flatbuffer, geometry
from edgecv.graphs.tflite.index import Index

MOST = 2  # rows more that a convolution gives
WIDENED = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class _Place:
    """pad ─ pool, alone behind what `conv` makes. extra: rows and columns more of it."""

    conv: Any
    pad: Any
    pool: Any
    extra: tuple[int, int]


def padded_pools(model: Any) -> int:
    """Rewrite such pools of a ModelT in place; how many there were."""
    graph, count = flatbuffer.graph_of(model), 0
    for pool in list(graph.operators):
        place = _place(model, pool)
        if place is None:
            continue
        if any(place.extra):
            _widen(model, place)
        _cut(model, place)
        count += 1
    return count


def _place(model: Any, pool: Any) -> _Place | None:
    graph = flatbuffer.graph_of(model)
    index, same = Index(graph), geometry.is_same
    if flatbuffer.op_name(model, pool) != "MAX_POOL_2D" or same(pool.builtinOptions.padding):
        return None
    pad = index.makers.get(int(pool.inputs[0]))
    x = -1 if pad is None else int(pad.inputs[0])
    conv = index.makers.get(x)
    if conv is None or not _alone(index, graph, int(pool.inputs[0])):
        return None
    sides, options = _sides(model, pad), pool.builtinOptions
    if sides is None or not _lowest(model, pad, conv) or not _alone(index, graph, x):
        return None
    sizes, outs = (list(graph.tensors[t].shape)[1:3] for t in (x, pool.outputs[0]))
    kernel = (options.filterHeight, options.filterWidth)
    steps = (options.strideH, options.strideW)
    if min(steps) < 2:
        return None
    each = zip(map(int, sizes), map(int, outs), kernel, steps, sides[1:3], strict=True)
    extra = [_extra(n, out, k, s, int(front)) for n, out, k, s, (front, _) in each]
    if any(e is None for e in extra):
        return None
    high, wide = (int(e or 0) for e in extra)
    fits = not (high or wide) or flatbuffer.op_name(model, conv) in WIDENED
    return _Place(conv, pad, pool, (high, wide)) if fits else None


def _extra(n: int, out: int, k: int, s: int, front: int) -> int | None:
    """Rows behind n of them with which SAME has `front` pads in front."""
    for extra in range(MOST + 1):
        more = -(-(n + extra) // s)
        lacks = max((more - 1) * s + k - n - extra, 0)
        unseen = not extra or (out - 1) * s - front + k <= n
        if lacks // 2 == front and more >= out and unseen:
            return extra
    return None


def _lowest(model: Any, pad: Any, conv: Any) -> bool:
    """Whether a pad is no more than whatever it stands beside."""
    graph = flatbuffer.graph_of(model)
    if len(pad.inputs) == 3:
        held = flatbuffer.constant(model, graph.tensors[pad.inputs[2]])
        if held is None or held.dtype.kind == "f":
            return held is not None and bool(held <= np.finfo(np.float32).min)
        return bool(held == np.iinfo(held.dtype).min)
    tensor = graph.tensors[pad.inputs[0]]
    if tensor.type == flatbuffer.enum("TensorType", "INT8"):
        return [int(z) for z in tensor.quantization.zeroPoint] == [-128]
    clipped = {flatbuffer.enum("ActivationFunctionType", name) for name in ("RELU", "RELU6")}
    return getattr(conv.builtinOptions, "fusedActivationFunction", 0) in clipped


def _widen(model: Any, place: _Place) -> None:
    """The convolution gives more rows and columns, and reads zeros for them."""
    graph, conv = flatbuffer.graph_of(model), place.conv
    options, source, sides = conv.builtinOptions, int(conv.inputs[0]), _own_pads(model, conv)
    pad = Index(graph).makers.get(source)
    own = None if geometry.is_same(options.padding) or pad is None else _sides(model, pad)
    if pad is not None and own is not None and flatbuffer.op_name(model, pad) == "PAD":
        source, sides = int(pad.inputs[0]), own
        if _alone(Index(graph), graph, int(pad.outputs[0])):
            graph.operators = [op for op in graph.operators if op is not pad]
    weight, result = graph.tensors[conv.inputs[1]], graph.tensors[conv.outputs[0]]
    before = graph.tensors[source]
    steps, spread = _steps(options)
    shape, read = (list(map(int, t.shape)) for t in (result, before))
    for axis, (extra, s, d) in enumerate(zip(place.extra, steps, spread, strict=True), 1):
        shape[axis] += extra
        reach = (shape[axis] - 1) * s + (int(weight.shape[axis]) - 1) * d + 1
        sides[axis, 1] = max(reach - int(before.shape[axis]) - sides[axis, 0], 0)
        read[axis] += int(sides[axis].sum())
    result.shape, options.padding = shape, flatbuffer.enum("Padding", "VALID")
    name = f"{bytes(result.name).decode()}/padded"
    padded = activation(model, name, read, before)
    held = numbers(model, f"{name}.1", sides)
    made = operator(model, "PAD", [source, held], padded)
    conv.inputs = [padded, *conv.inputs[1:]]
    at = next(i for i, op in enumerate(graph.operators) if op is conv)
    graph.operators = [*graph.operators[:at], made, *graph.operators[at:]]


def _own_pads(model: Any, conv: Any) -> np.ndarray:
    """The zeros that a convolution has around its image by itself, int32 (4, 2)."""
    tensors, options = flatbuffer.graph_of(model).tensors, conv.builtinOptions
    sizes, kernel = (list(map(int, tensors[t].shape))[1:3] for t in conv.inputs[:2])
    pads = geometry.pads(sizes, kernel, *_steps(options), options.padding)
    return np.array([(0, 0), pads[0::2], pads[1::2], (0, 0)], np.int32)


def _steps(options: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Strides and dilations."""
    spread = (options.dilationHFactor, options.dilationWFactor)
    return (options.strideH, options.strideW), spread


def _cut(model: Any, place: _Place) -> None:
    """The pool pads for itself, and gives what it gave."""
    graph, pool = flatbuffer.graph_of(model), place.pool
    x, out = (graph.tensors[t] for t in (place.conv.outputs[0], pool.outputs[0]))
    pool.inputs = [place.conv.outputs[0]]
    pool.builtinOptions.padding = flatbuffer.enum("Padding", "SAME")
    steps = (pool.builtinOptions.strideH, pool.builtinOptions.strideW)
    shape = [-(-int(n) // s) for n, s in zip(x.shape[1:3], steps, strict=True)]
    operators = [op for op in graph.operators if op is not place.pad]
    if shape != [int(n) for n in out.shape[1:3]]:
        operators.insert(operators.index(pool) + 1, _kept(model, pool, shape))
    graph.operators = operators


def _kept(model: Any, pool: Any, shape: list[int]) -> Any:
    """A SLICE of a pool's rows and columns that gives what the pool gave."""
    old = flatbuffer.graph_of(model).tensors[pool.outputs[0]]
    name, sizes = bytes(old.name).decode(), list(map(int, old.shape))
    made = activation(model, f"{name}/whole", [sizes[0], *shape, sizes[3]], old)
    begin = numbers(model, f"{name}/begin", np.zeros(4, np.int32))
    size = numbers(model, f"{name}/size", np.array(sizes, np.int32))
    op = operator(model, "SLICE", [made, begin, size], int(pool.outputs[0]))
    pool.outputs = [made]
    return op


def _sides(model: Any, pad: Any) -> np.ndarray | None:
    """The pads of an image's height and width alone, int (4, 2), None where it has others."""
    if flatbuffer.op_name(model, pad) not in ("PAD", "PADV2"):
        return None
    held = flatbuffer.constant(model, flatbuffer.graph_of(model).tensors[pad.inputs[1]])
    if held is None or held.shape != (4, 2) or held.min() < 0:
        return None
    return None if np.any(held[[0, 3]]) else held


def _alone(index: Index, graph: Any, tensor: int) -> bool:
    """Whether one operator reads a tensor, and it is no output."""
    ends = {int(t) for t in graph.outputs}
    return len(index.readers.get(tensor, [])) == 1 and tensor not in ends
