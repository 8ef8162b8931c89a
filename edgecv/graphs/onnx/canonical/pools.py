"""Pools whose windows end where the pads say.

ceil_mode: out = ceil((n + b + e - K) / s) + 1, K = (k - 1) d + 1, less the window that would begin
behind the image and its begin pad; the same windows come of ceil_mode 0 and end pads
e' = (out - 1) s + K - n - b. A maximum never sees pads. An average divides by the values that lie
in the image (count_include_pad 0), or in the image and its *own* pads (1), never by what
ceil_mode adds:

    AveragePool(x; b, e, ceil, include) = AveragePool(Pad(x; b, e); 0, e' - e, exclude)

Engines read that differently (ONNX Runtime's int8 kernel divides by the whole window), pads written
as numbers they all read alike. An average over every d-th value (opset 19), for which engines have
no int8 kernel, is a depthwise convolution with 1 / k in every place, times k over the number of
values that lie in the image where pads do not count. A mean or maximum over height and width is
a pool over the whole image, which engines have int8 kernels for, flattened where the axes go.
Source: onnx/docs/Operators.md, AveragePool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes


def pools(draft: Draft) -> None:
    _ends(draft)
    for node in draft.nodes("AveragePool"):
        if attributes(node).get("dilations"):
            _as_convolution(draft, node)
    for node in draft.nodes("ReduceMean", "ReduceMax"):
        _whole(draft, node)


def _whole(draft: Draft, node: Any) -> None:
    """ReduceMean(x; H and W) = GlobalAveragePool(x), ReduceMax = GlobalMaxPool."""
    given, shape = attributes(node), draft.known_shape(node.input[0])
    held = draft.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    named = given.get("axes") if held is None else held.reshape(-1)
    if shape is None or len(shape) != 4 or named is None:
        return
    if sorted(int(a) % 4 for a in named) != [2, 3]:
        return
    if draft.constant(node.input[0]) is not None:
        return
    if not given.get("keepdims", 1):
        out, pooled = node.output[0], draft.unique(f"{node.output[0]}/pooled")
        node.output[0] = pooled
        node.name = pooled if node.name == out else node.name  # no two nodes of one name
        draft.behind(node, draft.make("Flatten", [pooled], out, axis=1))
    node.op_type = "GlobalAveragePool" if node.op_type == "ReduceMean" else "GlobalMaxPool"
    del node.input[1:], node.attribute[:]


def counted_pads_apart(draft: Draft) -> None:
    """AveragePool(x; b, e, include) = AveragePool(Pad(x; b, e); 0, 0)

    For graphs of integers: a pad is the zero point there, and OpenVINO's kernel counts integers 0.
    """
    for node in draft.nodes("AveragePool"):
        given = attributes(node)
        pads = list(given.get("pads", ()))
        if given.get("count_include_pad") and not given.get("ceil_mode") and any(pads):
            _pad_before(draft, node, pads)
            write_attributes(node, {"pads": [0] * len(pads), "count_include_pad": None})


def _ends(draft: Draft) -> None:
    for node in draft.nodes("MaxPool", "AveragePool", "LpPool"):
        given = attributes(node)
        ceil, include = bool(given.get("ceil_mode", 0)), bool(given.get("count_include_pad", 0))
        own = list(given["pads"])
        if not ceil:
            _plain(node, include, own)
            continue
        size = draft.shape(node, node.input[0])[2:]
        ends, sides = overhang(size, given), len(own) // 2
        if ends is None:
            draft.refuse(
                node, "a window of it lies outside of the image", "smaller pads or strides"
            )
        beyond = [new - old for new, old in zip(ends, own[sides:], strict=True)]
        counts = node.op_type == "AveragePool" and include and any(beyond)
        pads = [0] * sides + beyond if counts else own[:sides] + ends
        if any(p >= k for p, k in zip(pads, [*given["kernel_shape"]] * 2, strict=True)):
            continue  # engines refuse pads as large as the window: it keeps its ceil_mode
        if counts:
            _pad_before(draft, node, own)
        write_attributes(node, {"pads": pads})
        _plain(node, include and not counts, pads)


def _plain(node: Any, include: bool, pads: list[int]) -> None:
    """Without pads nothing is counted but the image."""
    counted = 1 if include and any(pads) and node.op_type == "AveragePool" else None
    write_attributes(node, {"ceil_mode": None, "count_include_pad": counted})


def overhang(size: tuple[int, ...], given: dict[str, Any]) -> list[int] | None:
    """End pads with which ceil_mode 0 gives the same windows; None: a window holds no value."""
    ends, rank = [], len(size)
    dilations = given.get("dilations", [1] * rank)
    for i, (n, k, s, d) in enumerate(
        zip(size, given["kernel_shape"], given["strides"], dilations, strict=True)
    ):
        begin, end, span = given["pads"][i], given["pads"][i + rank], (k - 1) * d + 1
        out = -(-(n + begin + end - span) // s) + 1
        if (out - 1) * s >= n + begin:
            out -= 1
        last = (out - 1) * s - begin
        if not any(0 <= last + j * d < n for j in range(k)):
            return None
        ends.append(max(end, last + span - n))
    return ends


def _pad_before(draft: Draft, node: Any, pads: list[int]) -> None:
    if not any(pads):
        return
    sides = len(pads) // 2
    whole = [0, 0, *pads[:sides], 0, 0, *pads[sides:]]
    name = draft.hold(f"{node.output[0]}/pads", np.array(whole, np.int64))
    padded = draft.unique(f"{node.input[0]}/padded")
    draft.before(node, draft.make("Pad", [node.input[0], name], padded, mode="constant"))
    node.input[0] = padded


def _as_convolution(draft: Draft, node: Any) -> None:
    given = attributes(node)
    if given.get("ceil_mode"):
        draft.refuse(node, "is dilated, with pads as large as its window", "smaller pads")
    shape = draft.shape(node, node.input[0])
    kernel, size = given["kernel_shape"], shape[2:]
    places = int(np.prod(kernel))
    out = node.output[0]
    weight = draft.hold(f"{out}/weight", np.full((shape[1], 1, *kernel), 1 / places, np.float32))
    inside = _inside(size, given)
    counted = given.get("count_include_pad") or bool((inside == places).all())
    summed = out if counted else draft.unique(f"{out}/summed")
    window = {k: given[k] for k in ("kernel_shape", "strides", "pads", "dilations")}
    made = [draft.make("Conv", [node.input[0], weight], summed, group=shape[1], **window)]
    if not counted:
        share = draft.hold(f"{out}/share", (places / inside).astype(np.float32)[None, None])
        made.append(draft.make("Mul", [summed, share], out))
    draft.before(node, *made)
    draft.remove(node)


def _inside(size: tuple[int, ...], given: dict[str, Any]) -> np.ndarray:
    """How many values of the image each window holds, a map of the output's size."""
    rank, counts = len(size), np.ones((), np.int64)
    for i, n in enumerate(size):
        k, s, d = given["kernel_shape"][i], given["strides"][i], given["dilations"][i]
        begin, end = given["pads"][i], given["pads"][i + rank]
        starts = np.arange(0, n + begin + end - (k - 1) * d, s) - begin
        at = starts[:, None] + np.arange(k) * d
        counts = np.multiply.outer(counts, ((at >= 0) & (at < n)).sum(1))
    return np.asarray(counts)
