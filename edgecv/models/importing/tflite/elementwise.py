"""What is computed number by number, and along the last axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecv.models.importing.tflite.reader import FIRST, Reader, Translate


def unary(*ops: str, **given: Any) -> Translate:
    """Nodes one behind the other, in whatever layout it comes."""

    def translate(r: Reader, _: Any) -> None:
        each(r, lambda x: _chain(r, x, ops, given))

    return translate


def _chain(r: Reader, x: str, ops: tuple[str, ...], given: dict[str, Any]) -> str:
    for op in ops:
        x = r.add(op, [x], **(given if op == ops[-1] else {}))
    return x


def each(r: Reader, made: Callable[[str], str]) -> None:
    """One tensor in, one of the same shape out."""
    first = r.is_first(r.inputs[0])
    x = r.first(r.inputs[0]) if first else r.plain(r.inputs[0])
    r.give(made(x), first)


def clip(low: float, high: float) -> Translate:
    def translate(r: Reader, _: Any) -> None:
        bounds = [r.hold(np.float32(low)), r.hold(np.float32(high))]
        each(r, lambda x: r.add("Clip", [x, *bounds]))

    return translate


def leaky(r: Reader, o: Any) -> None:
    """LEAKY_RELU."""
    each(r, lambda x: r.add("LeakyRelu", [x], alpha=float(o.alpha)))


def gelu(r: Reader, o: Any) -> None:
    """GELU: x / 2 (1 + erf(x / sqrt 2)), or with a tanh."""
    half, one = (np.float32(v) for v in (0.5, 1.0))

    def made(x: str) -> str:
        if o is not None and o.approximate:
            cube = r.add("Mul", [r.add("Mul", [x, x]), x])
            inner = r.add("Add", [x, r.add("Mul", [cube, r.hold(np.float32(0.044715))])])
            scaled = r.add("Mul", [inner, r.hold(np.float32(np.sqrt(2 / np.pi)))])
            bent = r.add("Tanh", [scaled])
        else:
            bent = r.add("Erf", [r.add("Mul", [x, r.hold(np.float32(np.sqrt(0.5)))])])
        gate = r.add("Add", [bent, r.hold(one)])
        return r.add("Mul", [r.add("Mul", [x, r.hold(half)]), gate])

    each(r, made)


def prelu(r: Reader, _: Any) -> None:
    """PRELU: a slope for each channel, or each number."""
    slope = r.known(r.inputs[1], "slope")
    if r.rank(r.inputs[0]) != 4:
        r.give(r.add("PRelu", [r.plain(r.inputs[0]), r.hold(slope)]), first=False)
        return
    full = slope.reshape((1,) * (4 - slope.ndim) + slope.shape).transpose(FIRST)
    r.give(r.add("PRelu", [r.first(r.inputs[0]), r.hold(full[0])]), first=True)


def softmax(r: Reader, o: Any) -> None:
    """SOFTMAX over the last axis: exp(beta x) / sum."""
    x = r.plain(r.inputs[0])
    beta = 1.0 if o is None else float(o.beta)
    if beta != 1.0:
        x = r.add("Mul", [x, r.hold(np.float32(beta))])
    r.give(r.add("Softmax", [x], axis=-1), first=False)


def log_softmax(r: Reader, _: Any) -> None:
    """LOG_SOFTMAX over the last axis."""
    r.give(r.add("LogSoftmax", [r.plain(r.inputs[0])], axis=-1), first=False)


def l2(r: Reader, o: Any) -> None:
    """L2_NORMALIZATION over the last axis."""
    made = r.add("LpNormalization", [r.plain(r.inputs[0])], axis=-1, p=2)
    r.give(r.fused(made, o), first=False)


def binary(op: str, after: str | None = None) -> Translate:
    """Two tensors that broadcast; `after` squares what they give."""

    def translate(r: Reader, o: Any) -> None:
        first = _any_first(r)
        made = r.add(op, [_operand(r, i, first) for i in r.inputs[:2]])
        if after == "square":
            made = r.add("Mul", [made, made])
        r.give(r.fused(made, o), first)

    return translate


def summed(r: Reader, _: Any) -> None:
    """ADD_N."""
    first = _any_first(r)
    r.give(r.add("Sum", [_operand(r, i, first) for i in r.inputs]), first)


def _any_first(r: Reader) -> bool:
    """Whether to compute channels first: an operand is, and none is computed with fewer axes."""
    computed = [i for i in r.inputs if r.value(i) is None]
    return any(r.is_first(i) for i in computed) and all(r.rank(i) in (0, 4) for i in computed)


def _operand(r: Reader, i: int, first: bool) -> str:
    values = r.value(i)
    if not first or (values is None and r.rank(i) == 0):
        return r.plain(i)
    if values is None:
        return r.first(i)
    if values.ndim == 0:
        return r.hold(values)
    return r.hold(values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(FIRST))


def squared(r: Reader, _: Any) -> None:
    """SQUARE."""
    each(r, lambda x: r.add("Mul", [x, x]))


def inverse_root(r: Reader, _: Any) -> None:
    """RSQRT."""
    each(r, lambda x: r.add("Reciprocal", [r.add("Sqrt", [x])]))


def unpacked(r: Reader, _: Any) -> None:
    """DEQUANTIZE: fp16 weights as float32."""
    r.fold(r.known(r.inputs[0], "number").astype(np.float32))


def dense(r: Reader, _: Any) -> None:
    """DENSIFY: sparse weights with their zeros."""
    r.fold(r.known(r.inputs[0], "weight"))
