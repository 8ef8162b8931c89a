"""Blocks and heads of `onnx_nets`, in the spellings that files of opsets 7 to 22 have.

A block reads w.x and leaves its answer there. share: how often it is chosen, of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ACTIVATIONS = ["Relu", "Relu", "Relu6", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid",
               "HardSigmoid", "Softplus", "Tanh", "swish", "hswish", "mish", "gelu", "Max",
               "ThresholdedRelu", "Celu", "HardSwish", "Mish", "Softsign"]  # fmt: skip
BLOCKS: dict[str, Callable[[Any], None]] = {}
HEADS: dict[str, Callable[[Any], list[str]]] = {}


def block(share: float) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    def keep(made: Callable[[Any], None]) -> Callable[[Any], None]:
        made.share = share  # type: ignore[attr-defined]
        BLOCKS[made.__name__] = made
        return made

    return keep


def head(made: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
    HEADS[made.__name__] = made
    return made


def settle(w: Any) -> None:
    """A batch norm that knows what arrives, an activation behind it."""
    x = w.values[w.x]
    c, rng = x.shape[1], w.rng
    given = (rng.uniform(0.6, 1.4, c), rng.uniform(-0.3, 0.3, c), x.mean((0, 2, 3)),
             x.var((0, 2, 3)) + 1e-3)  # fmt: skip
    pick = rng.random()
    if pick < 0.6:
        how = {"epsilon": 1e-3} if rng.random() < 0.5 else {}
        if w.opset < 9 and rng.random() < 0.5:
            how["spatial"] = 1
        w.x = w.add("BatchNormalization", w.x, *map(w.constant, given),
                    **(how if w.opset < 9 or "spatial" not in how else {}))  # fmt: skip
    elif pick < 0.7:
        w.x = w.add("InstanceNormalization", w.x, w.constant(given[0]), w.constant(given[1]))
    elif pick < 0.8:
        scale = (given[0] / given[3] ** 0.5)[:, None, None]
        w.x = w.add("Mul", w.x, w.constant(scale))
        w.x = w.add("Sub", w.x, w.constant(given[2][:, None, None] * scale))
    activate(w)


def activate(w: Any) -> None:
    """An activation, spelled as its opset allows."""
    rng, x = w.rng, w.x
    c = w.shape[0]
    pick = str(rng.choice(ACTIVATIONS))
    since = {"Celu": 12, "HardSwish": 14, "Mish": 18}
    if w.opset < since.get(pick, 0):
        pick = "Relu"
    if pick == "Relu6":
        if w.opset < 11:
            w.x = w.add("Clip", x, min=0.0, max=6.0)
        else:
            w.x = w.add("Clip", x, w.constant(0.0), w.constant(6.0))
    elif pick == "PRelu":
        slope = rng.uniform(0.05, 0.4, (c, 1, 1) if rng.random() < 0.7 else (1,))
        w.x = w.add("PRelu", x, w.constant(slope))
    elif pick == "HardSigmoid":
        w.x = w.add("Mul", x, w.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    elif pick == "swish":
        w.x = w.add("Mul", x, w.add("Sigmoid", x))
    elif pick == "hswish":
        more = w.add("Add", x, w.constant(3.0))
        six = (
            w.add("Clip", more, min=0.0, max=6.0)
            if w.opset < 11
            else w.add("Clip", more, w.constant(0.0), w.constant(6.0))
        )
        w.x = w.add("Div", w.add("Mul", x, six), w.constant(6.0))
    elif pick == "mish":
        w.x = w.add("Mul", x, w.add("Tanh", w.add("Softplus", x)))
    elif pick == "gelu" and w.opset >= 9:
        erf = w.add("Erf", w.add("Div", x, w.constant(2**0.5)))
        half = w.add("Mul", x, w.add("Add", erf, w.constant(1.0)))
        w.x = w.add("Mul", half, w.constant(0.5))
    elif pick == "Max" and w.opset >= 8:
        w.x = w.add("Max", x, w.constant(np.zeros((1,))))
    elif pick == "ThresholdedRelu" and w.opset >= 10:
        w.x = w.add("ThresholdedRelu", x, alpha=0.1)
    elif pick == "LeakyRelu":
        w.x = w.add("LeakyRelu", x, **({"alpha": 0.2} if rng.random() < 0.7 else {}))
    else:
        w.x = w.add(pick if pick not in ("gelu", "Max", "ThresholdedRelu") else "Relu", x)


@block(4)
def conv(w: Any) -> None:
    rng = w.rng
    c, side, _ = w.shape
    k = min(int(rng.choice([1, 2, 3, 3, 3, 4, 5, 7])), side)
    stride = 1 if side < 8 else int(rng.choice([1, 1, 2]))
    groups = int(rng.choice([g for g in (1, 1, 1, 2, 4, c) if c % g == 0]))
    out = groups * max(1, int(rng.integers(8, 24)) // groups)
    how: dict[str, Any] = {}
    if rng.random() < 0.7:
        how["kernel_shape"] = [k, k]
    if stride > 1 or rng.random() < 0.5:
        how["strides"] = [stride, stride]
    pick = rng.random()
    if pick < 0.3:
        how["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        if side < 6 and how["auto_pad"] == "VALID":
            how["auto_pad"] = "SAME_UPPER"
    elif pick < 0.9:
        a, b = (k - 1) // 2, k // 2
        how["pads"] = [a, b, b, a] if rng.random() < 0.5 else [b, b, a, a]
    if k == 3 and side > 8 and "auto_pad" not in how and rng.random() < 0.2:
        how["dilations"], how["pads"] = [2, 2], [2, 2, 2, 2]
    if groups > 1:
        how["group"] = groups
    given = [w.x, w.weight(out, c // groups, k, k)]
    if rng.random() < 0.6:
        given.append(w.constant(rng.normal(0, 0.1, out)))
    w.x = w.add("Conv", *given, **how)
    settle(w)


@block(1)
def deconv(w: Any) -> None:
    rng = w.rng
    c, side, _ = w.shape
    if side > 16:
        conv(w)
        return
    groups = int(rng.choice([g for g in (1, 1, 2) if c % g == 0]))
    k, out = int(rng.choice([2, 3, 4])), groups * int(rng.integers(4, 9))
    how: dict[str, Any] = {"strides": [2, 2], "group": groups}
    if rng.random() < 0.2:
        how["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER"]))
    else:
        how["pads"] = [k // 3] * 4
        how["output_padding"] = [int(rng.integers(0, 2))] * 2
    weight = w.weight(c, out // groups, k, k, fan=c * k * k // groups // 2 or 1)
    w.x = w.add("ConvTranspose", w.x, weight, **how)
    settle(w)


@block(2)
def pool(w: Any) -> None:
    rng = w.rng
    side = w.shape[-1]
    if side < 6:
        return
    k, op = int(rng.choice([2, 3])), str(rng.choice(["MaxPool", "AveragePool"]))
    how: dict[str, Any] = {"kernel_shape": [k, k], "strides": [int(rng.choice([1, 2]))] * 2}
    if rng.random() < 0.3:
        how["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    elif rng.random() < 0.6:
        how["pads"] = [int(v) for v in rng.integers(0, k, 4)]
    if w.opset >= 10 and rng.random() < 0.4 and "auto_pad" not in how:
        how["ceil_mode"] = 1
    if op == "AveragePool" and rng.random() < 0.5:
        how["count_include_pad"] = 1
    w.x = w.add(op, w.x, **how)


@block(1.5)
def residual(w: Any) -> None:
    before, c = w.x, w.shape[0]
    w.x = w.add("Conv", w.x, w.weight(c, c, 3, 3), auto_pad="SAME_UPPER")
    settle(w)
    w.x = w.add(*(("Add", before, w.x) if w.rng.random() < 0.5 else ("Sum", w.x, before)))
    if w.rng.random() < 0.5:
        activate(w)


@block(1)
def concat(w: Any) -> None:
    before, c = w.x, w.shape[0]
    if c > 32:
        conv(w)
        return
    w.x = w.add("Conv", w.x, w.weight(8, c, 3, 3), w.constant(np.zeros(8)), pads=[1, 1, 1, 1])
    activate(w)
    w.x = w.add("Concat", before, w.x, axis=1 if w.rng.random() < 0.7 or w.opset < 11 else -3)


@block(1)
def squeeze_excite(w: Any) -> None:
    x, c = w.x, w.shape[0]
    less = max(2, c // 4)
    mean = w.add("GlobalAveragePool", x)
    if w.rng.random() < 0.5:
        low = w.add("Relu", w.add("Conv", mean, w.weight(less, c, 1, 1)))
        high = w.add("Conv", low, w.weight(c, less, 1, 1), w.constant(np.zeros(c)))
    else:
        flat = w.add("Reshape", mean, w.ints(-1, c))
        low = w.add("Relu", w.add("MatMul", flat, w.weight(c, less, fan=c)))
        high = w.add("Gemm", low, w.weight(less, c, fan=less), w.constant(np.zeros(c)))
        high = w.add("Reshape", high, w.ints(0, c, 1, 1))
    w.x = w.add("Mul", x, w.add("Sigmoid", high))


@block(1.5)
def moved(w: Any) -> None:
    """Shuffles, slices, paddings, resizes."""
    rng, x = w.rng, w.x
    c, side, _ = w.shape
    pick = str(rng.choice(["shuffle", "slice", "pad", "up", "split", "s2d", "d2s"]))
    if pick == "shuffle" and c % 2 == 0:
        y = w.add("Reshape", x, w.ints(-1, 2, c // 2, side, w.shape[2]))
        y = w.add("Transpose", y, perm=[0, 2, 1, 3, 4])
        w.x = w.add("Reshape", y, w.ints(0, c, side, w.shape[2]))
    elif pick == "slice" and side > 5:
        if w.opset < 10:
            w.x = w.add("Slice", x, axes=[2, 3], starts=[1, 0], ends=[side, -1])
        else:
            w.x = w.add("Slice", x, w.ints(1, 0), w.ints(2**31 - 1, -1), w.ints(2, 3))
    elif pick == "pad":
        mode = str(rng.choice(["constant", "reflect", "edge"]))
        pads = [0, 0, 1, 0, 0, 0, 1, 2]
        w.x = (
            w.add("Pad", x, mode=mode, pads=pads)
            if w.opset < 11
            else w.add("Pad", x, w.ints(*pads), mode=mode)
        )
    elif pick == "up" and side <= 12:
        mode, scales = str(rng.choice(["nearest", "linear"])), np.array([1, 1, 2, 2], np.float32)
        if w.opset < 9:
            w.x = w.add("Upsample", x, mode=mode, scales=scales.tolist())
        elif w.opset < 11:
            op = "Upsample" if w.opset == 9 else "Resize"
            w.x = w.add(op, x, w.constant(scales), mode=mode)
        else:
            how = {"coordinate_transformation_mode": str(rng.choice(
                ["asymmetric", "half_pixel", "align_corners"] if mode == "linear"
                else ["asymmetric"]))}  # fmt: skip
            if mode == "nearest":
                how["nearest_mode"] = "floor"
            none = w.constant(np.zeros(0)) if w.opset < 13 else ""  # a must until then
            w.x = w.add("Resize", x, none, w.constant(scales), mode=mode, **how)
    elif pick == "split" and c % 2 == 0:
        how = {"num_outputs": 2} if w.opset >= 18 else {}
        first = w.add("Split", x, outputs=2, axis=1, **how)
        w.x = w.add("Mul", first, w.add("Sigmoid", f"{first}_1"))
    elif pick == "s2d" and c <= 8 and side % 2 == 0:
        w.x = w.add("SpaceToDepth", x, blocksize=2)
    elif pick == "d2s" and c % 4 == 0 and side <= 16:
        how = {"mode": "CRD"} if w.opset >= 11 and rng.random() < 0.5 else {}
        w.x = w.add("DepthToSpace", x, blocksize=2, **how)


@block(0.7)
def reduced(w: Any) -> None:
    """A gate by place, from the mean and the largest of the channels."""
    x = w.x
    how = {"axes": [1], "keepdims": 1}
    if w.opset < 18:
        parts = [w.add("ReduceMean", x, **how), w.add("ReduceMax", x, **how)]
    else:
        parts = [w.add(op, x, w.ints(1), keepdims=1) for op in ("ReduceMean", "ReduceMax")]
    gate = w.add("Conv", w.add("Concat", *parts, axis=1), w.weight(1, 2, 3, 3), pads=[1, 1, 1, 1])
    w.x = w.add("Mul", x, w.add("Sigmoid", gate))


@block(0.7)
def attention(w: Any) -> None:
    c, h, wide = w.shape
    if h > 12:
        pool(w)
        return
    t = w.add("Transpose", w.add("Reshape", w.x, w.ints(0, c, h * wide)), perm=[0, 2, 1])
    q, k, v = (
        w.add("Add", w.add("MatMul", t, w.weight(c, c, fan=2 * c)), w.constant(np.zeros(c)))
        for _ in range(3)
    )
    seen = w.add("MatMul", q, w.add("Transpose", k, perm=[0, 2, 1]))
    if w.opset < 13:  # Softmax of old opsets flattens: the axis is the last all the same
        weights = w.add("Softmax", w.add("Mul", seen, w.constant(c**-0.5)), axis=2)
    else:
        weights = w.add("Softmax", w.add("Mul", seen, w.constant(c**-0.5)))
    t = w.add("Add", t, w.add("MatMul", weights, v))
    w.x = w.add("Reshape", w.add("Transpose", t, perm=[0, 2, 1]), w.ints(0, c, h, wide))
