"""What arranges numbers or takes some of them together: pads, slices, joins, sizes, sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.models.importing.tflite.reader import Reader, Translate

_TO_FIRST = {0: 0, 1: 2, 2: 3, 3: 1}  # an axis of NHWC in NCHW
_HINT = "run it with --target tflite"


def pad(r: Reader, _: Any) -> None:
    """PAD, PADV2: with zeros or a value."""
    value = r.known(r.inputs[2], "value") if len(r.inputs) > 2 else np.float32(0)
    _padded(r, [r.hold(np.float32(value))], "constant")


def mirrored(r: Reader, o: Any) -> None:
    """MIRROR_PAD: without the border itself."""
    if int(o.mode) != 0:
        r.refuse("repeats the border itself (SYMMETRIC), which has no form in ONNX", _HINT)
    _padded(r, [], "reflect")


def _padded(r: Reader, value: list[str], mode: str) -> None:
    pads = r.known(r.inputs[1], "padding").astype(np.int64)
    first = r.rank(r.inputs[0]) == 4
    if first:
        pads = pads[[0, 3, 1, 2]]
    x = r.first(r.inputs[0]) if first else r.plain(r.inputs[0])
    made = r.add("Pad", [x, r.hold(pads.T.reshape(-1), np.int64), *value], mode=mode)
    r.give(made, first)


def reshape(r: Reader, _: Any) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the output's own shape says it all."""
    shape = r.hold(r.shape(r.outputs[0]), np.int64)
    r.give(r.add("Reshape", [r.plain(r.inputs[0]), shape]), first=False)


def transpose(r: Reader, _: Any) -> None:
    """TRANSPOSE."""
    perm = [int(p) for p in r.known(r.inputs[1], "permutation")]
    r.give(r.add("Transpose", [r.plain(r.inputs[0])], perm=perm), first=False)


def concat(r: Reader, o: Any) -> None:
    """CONCATENATION."""
    axis = r.axis(int(o.axis), r.outputs[0])
    first = r.rank(r.outputs[0]) == 4 and any(r.is_first(i) for i in r.inputs)
    names = [r.first(i) if first else r.plain(i) for i in r.inputs]
    made = r.add("Concat", names, axis=_TO_FIRST[axis] if first else axis)
    r.give(r.fused(made, o), first)


def stack(r: Reader, o: Any) -> None:
    """PACK."""
    axis = r.axis(int(o.axis), r.outputs[0])
    at = r.hold([axis], np.int64)
    parts = [r.add("Unsqueeze", [r.plain(i), at]) for i in r.inputs]
    r.give(r.add("Concat", parts, axis=axis), first=False)


def unstack(r: Reader, o: Any) -> None:
    """UNPACK."""
    axis = r.axis(int(o.axis), r.inputs[0])
    parts = _parts(r, r.inputs[0], axis, [1] * len(r.outputs))
    at = r.hold([axis], np.int64)
    for part, i in zip(parts, r.outputs, strict=True):
        r.give(r.add("Squeeze", [part, at]), first=False, i=i)


def split(r: Reader, _: Any) -> None:
    """SPLIT: equal parts; the axis comes first."""
    axis = r.axis(int(r.known(r.inputs[0], "axis")), r.inputs[1])
    _split(r, r.inputs[1], axis)


def split_sizes(r: Reader, _: Any) -> None:
    """SPLIT_V: parts of given sizes."""
    _split(r, r.inputs[0], r.axis(int(r.known(r.inputs[2], "axis")), r.inputs[0]))


def _split(r: Reader, source: int, axis: int) -> None:
    first = r.is_first(source)
    sizes = [r.shape(i)[axis] for i in r.outputs]
    parts = _parts(r, source, _TO_FIRST[axis] if first else axis, sizes, first)
    for part, i in zip(parts, r.outputs, strict=True):
        r.give(part, first, i)


def _parts(r: Reader, source: int, axis: int, sizes: list[int], first: bool = False) -> list[str]:
    x = r.first(source) if first else r.plain(source)
    return r.many("Split", [x, r.hold(sizes, np.int64)], len(sizes), axis=axis)


def strided(r: Reader, o: Any) -> None:
    """STRIDED_SLICE."""
    if o.ellipsisMask or o.newAxisMask:
        r.refuse("adds axes", _HINT)
    begin, end, step = (
        r.known(i, what).astype(np.int64)
        for i, what in zip(r.inputs[1:4], ("begin", "end", "step"), strict=True)
    )
    dropped = [k for k in range(len(begin)) if o.shrinkAxisMask >> k & 1]
    far = np.iinfo(np.int64).max
    for k in range(len(begin)):
        if o.beginMask >> k & 1:
            begin[k] = 0 if step[k] > 0 else far
        if o.endMask >> k & 1:
            end[k] = far if step[k] > 0 else -far
        if k in dropped:
            step[k], end[k] = 1, begin[k] + 1 or far
    _sliced(r, begin, end, step, dropped)


def cut(r: Reader, _: Any) -> None:
    """SLICE: begins and sizes; -1 is all the rest."""
    begin, size = (r.known(i, "begin and size").astype(np.int64) for i in r.inputs[1:3])
    end = np.where(size < 0, np.iinfo(np.int64).max, begin + size)
    _sliced(r, begin, end, np.ones_like(begin), [])


def _sliced(r: Reader, begin: Any, end: Any, step: Any, dropped: list[int]) -> None:
    first = r.is_first(r.inputs[0]) and not dropped
    axes = [_TO_FIRST[k] if first else k for k in range(len(begin))]
    x = r.first(r.inputs[0]) if first else r.plain(r.inputs[0])
    made = r.add("Slice", [x, *(r.hold(v, np.int64) for v in (begin, end, axes, step))])
    if dropped:
        made = r.add("Squeeze", [made, r.hold(dropped, np.int64)])
    r.give(made, first)


def gather(r: Reader, o: Any) -> None:
    """GATHER along one axis."""
    if int(o.batchDims or 0):
        r.refuse("gathers by batch", _HINT)
    index = r.hold(r.known(r.inputs[1], "index").astype(np.int64))
    axis = r.axis(int(o.axis), r.inputs[0])
    r.give(r.add("Gather", [r.plain(r.inputs[0]), index], axis=axis), first=False)


def reduce(op: str) -> Translate:
    """MEAN, SUM, REDUCE_MAX, REDUCE_MIN over constant axes."""

    def translate(r: Reader, o: Any) -> None:
        source = r.inputs[0]
        over = np.atleast_1d(r.known(r.inputs[1], "axes"))
        axes = sorted({r.axis(int(a), source) for a in over})
        keep = bool(o.keepDims)
        # without them, rows of channels are the same in both layouts
        first = r.is_first(source) and (keep or axes == [1, 2])
        held = r.hold([_TO_FIRST[a] if first else a for a in axes], np.int64)
        x = r.first(source) if first else r.plain(source)
        r.give(r.add(op, [x, held], keepdims=int(keep)), first and keep)

    return translate


def resize(linear: bool) -> Translate:
    """RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR."""

    def translate(r: Reader, o: Any) -> None:
        size = [int(n) for n in r.known(r.inputs[1], "size")]
        n, h, w, c = r.shape(r.inputs[0])
        del h, w
        how = "asymmetric"
        if o.alignCorners:
            how = "align_corners"
        elif o.halfPixelCenters:
            how = "half_pixel"
        given: dict[str, Any] = {"mode": "linear" if linear else "nearest"}
        if not linear:
            given["nearest_mode"] = "floor" if how == "asymmetric" else "round_prefer_ceil"
        sizes = r.hold([n, c, *size], np.int64)
        x = r.first(r.inputs[0])
        made = r.add("Resize", [x, "", "", sizes], coordinate_transformation_mode=how, **given)
        r.give(made, first=True)

    return translate


def depth_to_space(r: Reader, o: Any) -> None:
    """DEPTH_TO_SPACE: blocks before channels."""
    x = r.first(r.inputs[0])
    r.give(r.add("DepthToSpace", [x], blocksize=int(o.blockSize), mode="DCR"), first=True)


def space_to_depth(r: Reader, o: Any) -> None:
    """SPACE_TO_DEPTH."""
    x = r.first(r.inputs[0])
    r.give(r.add("SpaceToDepth", [x], blocksize=int(o.blockSize)), first=True)


def matmul(r: Reader, o: Any) -> None:
    """BATCH_MATMUL."""
    names = []
    for i, turned in zip(r.inputs, (o.adjX, o.adjY), strict=True):
        name, rank = r.plain(i), r.rank(i)
        if turned:
            perm = [*range(rank - 2), rank - 1, rank - 2]
            name = r.add("Transpose", [name], perm=perm)
        names.append(name)
    r.give(r.add("MatMul", names), first=False)


def best(op: str) -> Translate:
    """ARG_MAX, ARG_MIN: the axis goes."""

    def translate(r: Reader, _: Any) -> None:
        import onnx

        axis = r.axis(int(r.known(r.inputs[1], "axis")), r.inputs[0])
        found = r.add(op, [r.plain(r.inputs[0])], axis=axis, keepdims=0)
        r.give(r.add("Cast", [found], to=onnx.TensorProto.INT32), first=False)

    return translate
