"""How the files of `onnx_nets` end in rows of classes, in several spellings; in outputs of other
shapes: `onnx_tensors`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_nets.onnx_blocks import head
from benchmarks.random_nets.onnx_nets import pointing


def features(w: Any) -> str:
    """(N, C) of a map: by pooling or a mean, flattened in one of four ways."""
    c, pick = w.shape[0], w.rng.random()
    if pick < 0.2:
        if w.opset < 18:
            return w.add("ReduceMean", w.x, axes=[2, 3], keepdims=0)
        return w.add("ReduceMean", w.x, w.ints(2, 3), keepdims=0)
    pooled = w.add(w.rng.choice(["GlobalAveragePool"] * 4 + ["GlobalMaxPool"]), w.x)
    if pick < 0.5:
        return w.add("Flatten", pooled)
    if pick < 0.7:
        return w.add("Reshape", pooled, w.ints(-1, c) if pick < 0.6 else w.ints(0, -1))
    if pick < 0.85:
        if w.opset < 13:
            return w.add("Squeeze", pooled, axes=[2, 3])
        return w.add("Squeeze", pooled, w.ints(2, 3))
    shape = w.add("Shape", pooled)
    batch = w.add("Gather", shape, w.ints(0), axis=0)
    return w.add("Reshape", pooled, w.add("Concat", batch, w.ints(-1), axis=0))


def dense(w: Any, f: str, outputs: int = 6) -> str:
    """A dense layer: Gemm with its factors and bias shapes, or MatMul and Add."""
    weight, bias = pointing(w, w.values[f], outputs)
    pick, rng = w.rng.random(), w.rng
    if pick < 0.25:
        return w.add("Add", w.add("MatMul", f, w.constant(weight.T)), w.constant(bias))
    how: dict[str, Any] = {}
    if pick < 0.6:
        how["transB"] = 1
    alpha, beta = (float(rng.choice([1, 1, 0.5, 2])) for _ in range(2))
    if alpha != 1:
        how["alpha"] = alpha
    if beta != 1:
        how["beta"] = beta
    held = weight / alpha if pick < 0.6 else weight.T / alpha
    bias = bias / beta
    if rng.random() < 0.2:
        bias = bias[None]
    elif rng.random() < 0.1:
        bias = np.float32(0.3)
    given = [f, w.constant(held), w.constant(bias)]
    if w.opset >= 11 and rng.random() < 0.1:
        given.pop()
    return w.add("Gemm", *given, **how)


@head
def classes(w: Any) -> list[str]:
    return [dense(w, features(w))]


@head
def classes_again(w: Any) -> list[str]:
    return [dense(w, features(w))]


@head
def softmax(w: Any) -> list[str]:
    return [w.add("Softmax", dense(w, features(w)), **({"axis": 1} if w.opset < 13 else {}))]


@head
def flattened(w: Any) -> list[str]:
    return [dense(w, w.add("Flatten", w.x, axis=1))]


@head
def hidden(w: Any) -> list[str]:
    """Two dense layers."""
    f = features(w)
    c = w.values[f].shape[1]
    return [dense(w, w.add("Relu", w.add("Gemm", f, w.weight(24, c), w.constant(
        np.zeros(24)), transB=1)))]  # fmt: skip


@head
def by_convolution(w: Any) -> list[str]:
    weight, bias = pointing(w, w.values[w.x].mean((2, 3)))
    y = w.add("Conv", w.x, w.constant(weight[:, :, None, None]), w.constant(bias))
    pooled = w.add("GlobalAveragePool", y)
    return [w.add("Flatten", pooled) if w.rng.random() < 0.7 else pooled]


@head
def two(w: Any) -> list[str]:
    f = features(w)
    return [dense(w, f), dense(w, f, 3)]


@head
def one_logit(w: Any) -> list[str]:
    return [dense(w, features(w), 1)]
