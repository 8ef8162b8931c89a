"""C: random chains of operators on shapes full of ones, in float and between Q/DQ pairs: the steps
read as ONNX Runtime does with its optimisations off, or are refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from edgecv.backends.c import header, reference
from edgecv.backends.c.read import read
from edgecv.errors import UnsupportedError
from tests.backends.test_c_operators import Written, answers

Shape = tuple[int, ...]
Made = tuple[str, Shape] | None
MOST = 3000  # values


class Chain(Written):
    """A graph that grows by random operators on what it has.

    several: it takes a batch of one to three images, and in half the cases a second input of any
    rank
    """

    def __init__(self, seed: int, several: bool = False) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.shape: Shape = (1, *(int(v) for v in self.rng.choice([1, 1, 2, 3, 4, 6], 3)))
        self.others: dict[str, Shape] = {}
        if several:
            self.shape = (int(self.rng.integers(1, 4)), *self.shape[1:])
            if self.rng.random() < 0.5:
                self.others["second"] = self.ones(self.shape) or self.shape
        self.have: list[tuple[str, Shape]] = [("x", self.shape), *self.others.items()]
        for _ in range(int(self.rng.integers(2, 7))):
            at = int(self.rng.integers(len(self.have))) if self.rng.random() < 0.4 else -1
            value = OPERATORS[int(self.rng.integers(len(OPERATORS)))](self, *self.have[at])
            if value is not None and value[1] and np.prod(value[1]) <= MOST:
                self.have.append((value[0], tuple(int(n) for n in value[1])))
        made = [name for name, _ in self.have if name not in ("x", *self.others)]
        self.ends(*dict.fromkeys(made[-2:]))

    def values(self, shape: Shape) -> np.ndarray:
        return np.asarray(self.rng.normal(size=shape), np.float32)

    def ones(self, shape: Shape) -> Shape:
        """A shape that broadcasts to another."""
        last = int(self.rng.integers(0, len(shape) + 1))
        return tuple(n if self.rng.random() < 0.5 else 1 for n in shape[len(shape) - last :])


def two(c: Chain, x: str, shape: Shape) -> Made:
    other, own = c.have[int(c.rng.integers(len(c.have)))]
    try:
        whole = np.broadcast_shapes(shape, own)
    except ValueError:
        return None
    a, b = (x, other) if c.rng.random() < 0.5 else (other, x)
    return c(str(c.rng.choice(["Add", "Mul", "Sub", "Max"])), a, b), whole


def constant(c: Chain, x: str, shape: Shape) -> Made:
    given = c.values(c.ones(shape)) + 3
    a, b = (x, given) if c.rng.random() < 0.7 else (given, x)
    return c(str(c.rng.choice(["Add", "Mul", "Sub"])), a, b), shape


def bent(c: Chain, x: str, shape: Shape) -> Made:
    return c("PRelu", x, c.values(c.ones(shape))), shape


def one(c: Chain, x: str, shape: Shape) -> Made:
    return c(str(c.rng.choice(["Relu", "Sigmoid", "LeakyRelu"])), x), shape


def reduced(c: Chain, x: str, shape: Shape) -> Made:
    axes = [d for d in range(len(shape)) if c.rng.random() < 0.5] or [len(shape) - 1]
    keep = int(c.rng.integers(2))
    op = str(c.rng.choice(["ReduceMean", "ReduceMax", "ReduceSum"]))
    left = tuple(1 if d in axes else n for d, n in enumerate(shape) if keep or d not in axes)
    return c(op, x, c.ints(*axes), keepdims=keep), left


def softmax(c: Chain, x: str, shape: Shape) -> Made:
    return c("Softmax", x, axis=int(c.rng.integers(-len(shape), len(shape)))), shape


def normalised(c: Chain, x: str, shape: Shape) -> Made:
    axis = int(c.rng.integers(len(shape)))
    scale, bias = c.values(shape[axis:]), c.values(shape[axis:])
    return c("LayerNormalization", x, scale, bias, axis=axis), shape


def reshaped(c: Chain, x: str, shape: Shape) -> Made:
    left, made = int(np.prod(shape)), []
    for _ in range(int(c.rng.integers(0, 4))):
        made.append(int(c.rng.choice([k for k in range(1, left + 1) if left % k == 0])))
        left //= made[-1]
    whole = ((1,) if c.rng.random() < 0.5 else ()) + (*made, left)
    return c("Reshape", x, c.ints(*whole)), whole


def turned(c: Chain, x: str, shape: Shape) -> Made:
    perm = [int(v) for v in c.rng.permutation(len(shape))]
    return c("Transpose", x, perm=perm), tuple(shape[d] for d in perm)


def joined(c: Chain, x: str, shape: Shape) -> Made:
    axis = int(c.rng.integers(len(shape)))
    other = x if c.rng.random() < 0.7 else c.values(shape)
    return c("Concat", other, x, axis=axis), (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


def cut(c: Chain, x: str, shape: Shape) -> Made:
    axis = int(c.rng.integers(len(shape)))
    if shape[axis] < 2:
        return None
    part = c("Slice", x, c.ints(1), c.ints(shape[axis]), c.ints(axis))
    return part, (*shape[:axis], shape[axis] - 1, *shape[axis + 1 :])


def padded(c: Chain, x: str, shape: Shape) -> Made:
    pads = [int(v) for v in c.rng.integers(0, 2, 2 * len(shape))]
    grown = tuple(n + pads[d] + pads[d + len(shape)] for d, n in enumerate(shape))
    return c("Pad", x, c.ints(*pads)), grown


def flat(c: Chain, x: str, shape: Shape) -> Made:
    axis = int(c.rng.integers(len(shape) + 1))
    return c("Flatten", x, axis=axis), (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))


def squeezed(c: Chain, x: str, shape: Shape) -> Made:
    axes = [d for d, n in enumerate(shape) if n == 1 and c.rng.random() < 0.6]
    if not axes:
        return None
    return c("Squeeze", x, c.ints(*axes)), tuple(n for d, n in enumerate(shape) if d not in axes)


def grown(c: Chain, x: str, shape: Shape) -> Made:
    axis = int(c.rng.integers(len(shape) + 1))
    made = (*shape[:axis], 1, *shape[axis:])
    return (c("Unsqueeze", x, c.ints(axis)), made) if len(shape) < 5 else None


def product(c: Chain, x: str, shape: Shape) -> Made:
    if len(shape) < 2:
        return None
    return c("MatMul", x, c.values((shape[-1], 3))), (*shape[:-1], 3)


def squared(c: Chain, x: str, shape: Shape) -> Made:
    rank = len(shape)
    if rank < 2:
        return None
    other = c("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])
    return c("MatMul", x, other), (*shape[:-1], shape[-2])


def dense(c: Chain, x: str, shape: Shape) -> Made:
    if len(shape) != 2:
        return None
    return c("Gemm", x, c.values((5, shape[1])), c.values((5,)), transB=1), (shape[0], 5)


def image(c: Chain, x: str, shape: Shape) -> Made:
    if len(shape) != 4:
        return None
    pick = int(c.rng.integers(3))
    if pick == 0:
        conv = c("Conv", x, c.values((3, shape[1], 1, 1)), c.values((3,)))
        return conv, (shape[0], 3, *shape[2:])
    if pick == 1:
        return c("MaxPool", x, kernel_shape=[1, 1]), shape
    return c("GlobalAveragePool", x), (*shape[:2], 1, 1)


def window(c: Chain, x: str, shape: Shape) -> Made:
    """What looks beyond a pixel, and not into the next image."""
    if len(shape) != 4:
        return None
    batch, channels, high, wide = shape
    across = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pick = int(c.rng.integers(5))
    if pick == 0:
        return c("Conv", x, c.values((2, channels, 3, 3)), **across), (batch, 2, high, wide)
    if pick == 1:
        op = str(c.rng.choice(["MaxPool", "AveragePool"]))
        return c(op, x, **across, strides=[2, 1]), (batch, channels, -(-high // 2), wide)
    if pick == 2:
        made = c("ConvTranspose", x, c.values((channels, 2, 2, 2)), strides=[2, 2])
        return made, (batch, 2, 2 * high, 2 * wide)
    if pick == 3:
        sizes = c.ints(batch, channels, 2 * high, wide)
        mode = str(c.rng.choice(["nearest", "linear"]))
        return c("Resize", x, "", "", sizes, mode=mode), (batch, channels, 2 * high, wide)
    gate = c("Sigmoid", c("GlobalAveragePool", x))
    return c("Mul", x, gate), shape


def line(c: Chain, x: str, shape: Shape) -> Made:
    """Of three axes: a convolution along the last, or an LSTM along the first."""
    if len(shape) != 3:
        return None
    if c.rng.random() < 0.5:
        made = c("Conv", x, c.values((2, shape[1], 3)), kernel_shape=[3], pads=[1, 1])
        return made, (shape[0], 2, shape[2])
    w, r = c.values((2, 12, shape[2])), c.values((2, 12, 3))
    made = c("LSTM", x, w, r, hidden_size=3, direction="bidirectional")
    return made, (shape[0], 2, shape[1], 3)


OPERATORS: list[Callable[[Chain, str, Shape], Made]] = [
    two, constant, bent, one, reduced, softmax, normalised, reshaped, turned, joined, cut, padded,
    flat, squeezed, grown, product, squared, dense, image, image,
    window, window, line,
]  # fmt: skip


def on_grids(c: Chain, feed: dict[str, np.ndarray], signed: bool) -> Written:
    """The same graph with a Q/DQ pair behind every value, and weights of 8 bits."""
    every = [o for n in c.nodes for o in n.output]
    values = answers(ending(c, every).model(c.shape, **c.others), **feed)
    seen = dict(zip(every, values, strict=True)) | feed
    made, renamed = ending(c, c.outputs), {}
    nodes, made.nodes = made.nodes, []
    held = {t.name: numpy_helper.to_array(t) for t in c.held}

    def pair(name: str) -> None:
        low, high = min(0.0, float(seen[name].min())), max(0.0, float(seen[name].max()))
        scale = max((high - low) / 255, 1e-6)
        count = int(np.clip(round(-low / scale), 0, 255))
        zero = np.int8(count - 128) if signed else np.uint8(count)
        grid, packed = [made.constant(np.float32(scale)), made.constant(zero)], f"{name}/q"
        renamed[name] = f"{name}/d"
        made.nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [packed]))
        made.nodes.append(helper.make_node("DequantizeLinear", [packed, *grid], [renamed[name]]))

    def weight(name: str) -> str:
        scale = np.float32(np.abs(held[name]).max() / 127 + 1e-9)
        ints = np.clip(np.rint(held[name] / scale), -127, 127).astype(np.int8)
        given = [made.constant(v) for v in (ints, scale, np.int8(0))]
        made.nodes.append(helper.make_node("DequantizeLinear", given, [f"{given[0]}/d"]))
        return f"{given[0]}/d"

    for name in feed:
        pair(name)
    for node in nodes:
        given = [renamed.get(n, n) for n in node.input]
        if node.op_type in ("Conv", "MatMul", "Gemm") and given[1] in held:
            given[1] = weight(given[1])
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(given)
        made.nodes.append(copy)
        pair(node.output[0])
    return made


def ending(c: Chain, outputs: list[str]) -> Written:
    """A copy of a chain with other outputs."""
    made = Written()
    made.nodes, made.held, made.outputs = list(c.nodes), list(c.held), list(outputs)
    return made


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("kind", ["float", "int8", "uint8"])
def test_chains_of_operators_are_read_as_in_onnx_runtime(kind: str, several: bool) -> None:
    ort.set_default_logger_severity(4)
    right, refused = 0, []
    for seed in range({"float": 220, "int8": 120, "uint8": 40}[kind]):
        c = Chain(seed, several)
        if not c.outputs:
            continue
        feed = {n: c.values(s) for n, s in {"x": c.shape, **c.others}.items()}
        made = c if kind == "float" else on_grids(c, feed, kind == "int8")
        model = made.model(c.shape, **c.others)
        try:
            steps = read(model, "c")
        except UnsupportedError as e:
            refused.append(str(e))
            continue
        held = reference.run(steps, *(laid(v, "NHWC") for v in feed.values()))
        ends = header.tables(steps, tuple(c.outputs)).get("model_shapes", ["NHWC "])
        for name, line, wanted in zip(steps.results, ends, answers(model, **feed), strict=True):
            off = np.linalg.norm(held[name].reshape(-1) - laid(wanted, line.split()[0]).reshape(-1))
            most = 1e-4 if kind == "float" else 0.12
            ops = [n.op_type for n in c.nodes]
            assert off <= most * (np.linalg.norm(wanted) + 1e-3), (seed, c.shape, c.others, ops)
        right += 1
    assert right > 10 * len(refused)
    assert all("no C kernel reads" in r or "no image" in r for r in refused), refused


def laid(values: np.ndarray, layout: str) -> np.ndarray:
    """What is channels first as C has it."""
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 and layout == "NHWC" else values
