"""How the files of `onnx_nets` end otherwise than in a row of classes: outputs of one to five axes,
several of them; and a block that reads a second input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_nets.onnx_blocks import head
from benchmarks.random_nets.onnx_heads import dense, features
from benchmarks.random_nets.onnx_nets import pointing

ANCHORS = 3


def conditioned(w: Any) -> None:
    """Every channel scaled by what four numbers say."""
    c = w.shape[0]
    said = w.add("Tanh", w.add("Gemm", "numbers", w.weight(4, c, fan=4), w.constant(np.zeros(c))))
    gain = w.add("Add", w.add("Mul", said, w.constant(0.5)), w.constant(1.0))
    w.x = w.add("Mul", w.x, w.add("Reshape", gain, w.ints(-1, c, 1, 1)))


def map_of(w: Any) -> str:
    """(N, 6, H, W): for every pixel what tells the classes apart."""
    weight, bias = pointing(w, w.values[w.x].mean((2, 3)))
    return w.add("Conv", w.x, w.constant(weight[:, :, None, None]), w.constant(bias))


def squeezed(w: Any, x: str, axis: int) -> str:
    """x without an axis of one."""
    if w.opset < 13:
        return w.add("Squeeze", x, axes=[axis])
    return w.add("Squeeze", x, w.ints(axis))


def reduced(w: Any, op: str, x: str, axis: int, keepdims: int) -> str:
    """A reduction over one axis, as its opset says it."""
    if w.opset < (13 if op == "ReduceSum" else 18):
        return w.add(op, x, axes=[axis], keepdims=keepdims)
    return w.add(op, x, w.ints(axis), keepdims=keepdims)


def embedded(w: Any, f: str) -> str:
    """(N, 16) of unit length."""
    y = w.add("MatMul", f, w.weight(w.values[f].shape[1], 16, fan=w.values[f].shape[1]))
    if w.rng.random() < 0.5:
        return w.add("LpNormalization", y, axis=1, p=2)
    length = reduced(w, "ReduceL2", y, 1, 1)
    return w.add("Div", y, w.add("Add", length, w.constant(1e-6)))


def split(w: Any, y: str) -> str:
    """(N, anchors, values, H, W) of a map."""
    _, c, high, wide = w.values[y].shape
    return w.add("Reshape", y, w.ints(-1, ANCHORS, c // ANCHORS, high, wide))


@head
def map_of_classes(w: Any) -> list[str]:
    return [map_of(w)]


@head
def sigmoids(w: Any) -> list[str]:
    return [w.add("Sigmoid", map_of(w))]


@head
def number(w: Any) -> list[str]:
    """(N,)."""
    return [squeezed(w, dense(w, features(w), 1), 1)]


@head
def embedding(w: Any) -> list[str]:
    return [embedded(w, features(w))]


@head
def every_token(w: Any) -> list[str]:
    """(N, H W, 6), each token by a dense layer."""
    c, high, wide = w.shape
    tokens = w.add("Transpose", w.add("Reshape", w.x, w.ints(0, c, high * wide)), perm=[0, 2, 1])
    weight, bias = pointing(w, w.values[w.x].mean((2, 3)))
    return [w.add("Add", w.add("MatMul", tokens, w.constant(weight.T)), w.constant(bias))]


@head
def depth(w: Any) -> list[str]:
    """(N, H, W)."""
    weight, bias = pointing(w, w.values[w.x].mean((2, 3)), 1)
    y = w.add("Conv", w.x, w.constant(weight[:, :, None, None]), w.constant(bias))
    return [squeezed(w, w.add("Softplus", y), 1)]


@head
def boxes(w: Any) -> list[str]:
    """(N, H W, 10): four numbers and six probabilities side by side."""
    c = w.shape[0]
    four = w.add("Conv", w.x, w.weight(4, c, 1, 1))
    y = w.add("Concat", four, w.add("Sigmoid", map_of(w)), axis=1)
    y = w.add("Reshape", y, w.ints(0, 10, -1))
    return [w.add("Transpose", y, perm=[0, 2, 1])]


@head
def anchors(w: Any) -> list[str]:
    """Five axes, as detectors of the YOLO family end before they are decoded."""
    y = split(w, map_of(w))
    return [y if w.rng.random() < 0.4 else w.add("Transpose", y, perm=[0, 1, 3, 4, 2])]


@head
def pyramid(w: Any) -> list[str]:
    """Two maps of different size and a row."""
    y = map_of(w)
    how = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return [y, w.add("MaxPool", y, **how), w.add("Flatten", w.add("GlobalAveragePool", y))]


@head
def with_features(w: Any) -> list[str]:
    """A row, and what it was made of."""
    return [dense(w, features(w)), w.x]


@head
def all_ranks(w: Any) -> list[str]:
    """One to five axes."""
    f, y = embedded(w, features(w)), map_of(w)
    row = reduced(w, "ReduceMean", f, 1, 0)
    return [row, f, w.add("Reshape", y, w.ints(0, 6, -1)), y, split(w, y)]
