"""What the C code computes, in numpy: integers and bits exactly, floats to their last bits.

Golden vectors come from here, and every kernel is held against it. Tensors are (h, w, c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecv.backends.c import recurrent, walked
from edgecv.backends.c.network import Network, Step
from edgecv.backends.c.window import sides


def _erf(x: np.ndarray) -> np.ndarray:
    """Abramowitz and Stegun 7.1.26: 1.5e-7 at most."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    p = (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
    return np.sign(x) * (1 - p * t * np.exp(-np.square(x)))


FUNCTIONS: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "clamp_f32": lambda x, a: np.clip(x, a["low"], a["high"]),
    "sigmoid_f32": lambda x, _: 1 / (1 + np.exp(-x)),
    "tanh_f32": lambda x, _: np.tanh(x),
    "abs_f32": lambda x, _: np.abs(x),
    "neg_f32": lambda x, _: -x,
    "powers_f32": lambda x, _: np.exp(x),
    "logs_f32": lambda x, _: np.log(np.maximum(x, np.finfo(np.float32).tiny)),
    "sqrt_f32": lambda x, _: np.sqrt(np.maximum(x, 0)),
    "erf_f32": lambda x, _: _erf(x),
    "softplus_f32": lambda x, _: np.logaddexp(x, 0),
    "gelu_f32": lambda x, _: x * 0.5 * (1 + _erf(x / np.sqrt(2))),
    "gelu_tanh_f32": lambda x, _: x / (1 + np.exp(-1.59576912 * (x + 0.044715 * x**3))),
    "threshold_f32": lambda x, a: np.where(x > a["alpha"], x, 0),
    "inverse_f32": lambda x, _: 1 / x,
    "sign_f32": lambda x, _: np.sign(x),
    "floors_f32": lambda x, _: np.floor(x),
    "ceils_f32": lambda x, _: np.ceil(x),
    "rounds_f32": lambda x, _: np.rint(x),
    "softsign_f32": lambda x, _: x / (1 + np.abs(x)),
    "mish_f32": lambda x, _: x * np.tanh(np.logaddexp(x, 0)),
    "elu_f32": lambda x, a: np.where(
        x > 0, a["above"] * x, a["below"] * np.expm1(np.minimum(x, 0) * a["inside"])
    ),
    "hardswish_f32": lambda x, _: x * np.clip(x / 6 + 0.5, 0, 1),
    "hardsigmoid_f32": lambda x, a: np.clip(a["slope"] * x + a["bias"], 0, 1),
}


def run(network: Network, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor by name. inputs: float32, each laid out as its tensor. Bits are booleans
    (h, w, channels)."""
    tensors, held = network.tensors, dict[str, np.ndarray]()
    for name, values in zip(network.sources, inputs, strict=True):
        held[name] = np.asarray(values, np.float32).reshape(tensors[name].shape)
    for step in network.steps:
        given = [held[n] for n in step.inputs]
        calls = network.calls(step)
        rows = zip(*(np.split(x, calls) for x in given), strict=True)
        parts = [_outputs(network, step, list(row), calls) for row in rows]
        for name, *made in zip(step.outputs, *parts, strict=True):
            whole = np.concatenate([v.reshape(-1) for v in made])
            held[name] = whole.reshape(tensors[name].shape)
    return held


def _outputs(network: Network, step: Step, x: list[np.ndarray], calls: int) -> list[np.ndarray]:
    """What one call makes."""
    if step.kind in recurrent.NEEDS:
        return recurrent.compute(step, x[0])
    if walked.is_walked(step):
        return walked.compute(step, x, network.tensors[step.outputs[0]].values // calls)
    return _STEPS.get(step.kind, _mapped)(step, x)


def _mapped(step: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [FUNCTIONS[step.kind](x[0], step.about).astype(np.float32)]


def _patches(x: np.ndarray, a: dict[str, Any], fill: float) -> np.ndarray:
    """(out_h, out_w, taps, c) of a window, `fill` outside of the image."""
    high, wide = sides(x.shape, a)
    top, left, bottom, right = a["pads"]
    more = max(a["kernel"]) * max(a["stride"])
    whole = np.pad(x, ((top, bottom + more), (left, right + more), (0, 0)), constant_values=fill)
    taps = []
    for i in range(a["kernel"][0]):
        for j in range(a["kernel"][1]):
            y, z = i * a["dilation"][0], j * a["dilation"][1]
            down, across = a["stride"]
            rows = whole[y : y + (high - 1) * down + 1 : down]
            taps.append(rows[:, z : z + (wide - 1) * across + 1 : across])
    return np.stack(taps, 2)


def _sums(x: np.ndarray, w: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    """Σ x w: (out_h, out_w, filters). w: (filters, kh, kw, c / groups)."""
    patches, groups = _patches(x, a, 0), a["groups"]
    own, per = w.shape[3], len(w) // groups
    parts = [
        np.einsum("hwtc,ftc->hwf", patches[..., g * own : (g + 1) * own],
                  w[g * per : (g + 1) * per].reshape(per, -1, own))
        for g in range(groups)
    ]  # fmt: skip
    return np.concatenate(parts, -1)


def scaled(v: np.ndarray, m: Any, shift: Any) -> np.ndarray:
    """floor(v m / 2^shift + 1/2)"""
    return (v.astype(np.int64) * m + (np.int64(1) << (np.int64(shift) - 1))) >> np.int64(shift)


def _conv_f32(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    y = _sums(x[0].astype(np.float64), s.constants["w"].astype(np.float64), s.about)
    return [np.clip(y + s.constants["b"], s.about["low"], s.about["high"]).astype(np.float32)]


def _integer(s: Step, x: np.ndarray) -> np.ndarray:
    shifted = x.astype(np.int64) - s.about["x_zero"]
    return _sums(shifted, s.constants["w"].astype(np.int64), s.about) + s.constants["b"]


def _conv_i8(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    y = s.about["y_zero"] + scaled(_integer(s, x[0]), s.constants["m"].astype(np.int64),
                                   s.constants["shift"].astype(np.int64))  # fmt: skip
    return [np.clip(y, s.about["low"], s.about["high"]).astype(np.int8)]


def _conv_real(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [s.constants["scale"] * _integer(s, x[0]).astype(np.float32)]


def _add_f32(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [np.clip(x[0] + x[1], s.about["low"], s.about["high"]).astype(np.float32)]


def _add_i8(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    a = s.about
    first = (x[0].astype(np.int64) - a["a_zero"]) * a["a_m"]
    second = (x[1].astype(np.int64) - a["b_zero"]) * a["b_m"]
    y = a["y_zero"] + ((first + second + (1 << (a["shift"] - 1))) >> a["shift"])
    return [np.clip(y, a["low"], a["high"]).astype(np.int8)]


def _affine(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    y = x[0] * s.constants["scale"] if "scale" in s.constants else x[0]
    return [(y + s.constants["bias"] if "bias" in s.constants else y).astype(np.float32)]


def _prelu(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [np.where(x[0] > 0, x[0], s.constants["slope"] * x[0]).astype(np.float32)]


def _softmax(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    del s
    powers = np.exp(x[0] - x[0].max())
    return [(powers / powers.sum()).astype(np.float32)]


def _gather(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    at, flat = s.constants["at"], x[0].reshape(-1)
    return [np.where(at < 0, flat.dtype.type(s.about["fill"]), flat[np.maximum(at, 0)])]


def _lut(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [s.constants["table"][x[0].astype(int) + 128]]


def _counts(x: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    inside = _patches(np.ones((*x.shape[:2], 1)), a, 0).sum(2)
    return np.full_like(inside, a["kernel"][0] * a["kernel"][1]) if a["whole"] else inside


def _pool_f32(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    if s.about["largest"]:
        return [_patches(x[0], s.about, -np.inf).max(2).astype(np.float32)]
    sums = _patches(x[0].astype(np.float64), s.about, 0).sum(2)
    return [(sums / _counts(x[0], s.about)).astype(np.float32)]


def _pool_i8(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    a = s.about
    if a["largest"]:
        best = _patches(x[0].astype(np.int64), a, -(2**40)).max(2) - a["x_zero"]
        y = a["y_zero"] + scaled(best, a["m"], a["shift"])
    else:
        sums = _patches(x[0].astype(np.int64) - a["x_zero"], a, 0).sum(2)
        d = _counts(x[0], a).astype(np.int64) << a["shift"]
        y = a["y_zero"] + (2 * sums * a["m"] + d) // (2 * d)
    return [np.clip(y, -128, 127).astype(np.int8)]


def _join(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    del s
    return [np.concatenate(x, -1)]


def _rescale(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    a = s.about
    y = a["y_zero"] + scaled(x[0].astype(np.int64) - a["x_zero"], a["m"], a["shift"])
    return [np.clip(y, -128, 127).astype(np.int8)]


def _quantize(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    y = np.rint(x[0] / np.float32(s.about["scale"])) + s.about["zero"]
    return [np.clip(y, -128, 127).astype(np.int8)]


def _dequantize(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [np.float32(s.about["scale"]) * (x[0].astype(np.float32) - s.about["zero"])]


def _gate(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    del s
    return [(x[0] * x[1]).astype(np.float32)]


def _same(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    del s
    return [x[0]]


def _binarize(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    return [(x[0] >= s.constants["least"]) ^ (s.constants["flip"] == 1)]


def _conv_bits(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    c = s.constants
    own = x[0].shape[2] // s.about["groups"]
    w = np.where(_unpacked(c["w"], own), 1, -1)
    if "mask" in c:
        w = w * _unpacked(c["mask"], own)
    dots = _sums(np.where(x[0], 1, -1).astype(np.int64), w.astype(np.int64), s.about)
    if "least" in c:
        return [(dots >= c["least"]) ^ (c["flip"] == 1)]
    v = c["scale"] * dots.astype(np.float32)
    v = v + c["bias"]
    for more in x[1:]:
        v = v + more
    if "slope" in c:
        t = v - c["before"]
        v = np.where(t > 0, t, c["slope"] * t) + c["after"]
    outs = [v.astype(np.float32)]
    if "border" in c:
        outs.append((v >= c["border"]) ^ (c["flip"] == 1))
    return outs


def _unpacked(words: np.ndarray, channels: int) -> np.ndarray:
    data = np.ascontiguousarray(words.astype("<u4", copy=False)).view(np.uint8)
    return np.unpackbits(data, axis=-1, bitorder="little")[..., :channels].astype(bool)


def _spread(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    down, across = s.about["stride"]
    high, wide, channels = x[0].shape
    shape = ((high - 1) * down + 1, (wide - 1) * across + 1, channels)
    y = np.full(shape, s.about["fill"], x[0].dtype)
    y[::down, ::across] = x[0]
    return [y]


def _layernorm(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    v = x[0].astype(np.float64)
    v = v - v.mean(-1, keepdims=True)
    v = v / np.sqrt((v**2).mean(-1, keepdims=True) + s.about["epsilon"]) * s.constants["scale"]
    return [(v + s.constants["bias"] if "bias" in s.constants else v).astype(np.float32)]


def _lrn(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    a, square = s.about, np.square(x[0].astype(np.float64))
    before = (a["size"] - 1) // 2
    wide = np.pad(square, ((0, 0), (0, 0), (before, a["size"] - 1 - before)))
    sums = sum(wide[..., k : k + square.shape[2]] for k in range(a["size"]))
    return [(x[0] / (a["bias"] + a["alpha"] / a["size"] * sums) ** a["beta"]).astype(np.float32)]


def _halve(s: Step, x: list[np.ndarray]) -> list[np.ndarray]:
    high, wide, channels = x[0].shape
    whole = np.zeros((high + high % 2, wide + wide % 2, channels), np.float32)
    whole[:high, :wide] = x[0]
    count = np.zeros((*whole.shape[:2], 1), np.float32)
    count[:high, :wide] = 1
    parts = [[v[i::2, j::2] for i in (0, 1) for j in (0, 1)] for v in (whole, count)]
    sums = ((parts[0][0] + parts[0][1]) + parts[0][2]) + parts[0][3]
    return [np.tile(sums / sum(parts[1]), s.about["times"])]


_STEPS: dict[str, Callable[[Step, list[np.ndarray]], list[np.ndarray]]] = {
    "conv_f32": _conv_f32, "conv_i8": _conv_i8, "conv_real": _conv_real, "add_f32": _add_f32,
    "add_i8": _add_i8, "affine_f32": _affine, "prelu_f32": _prelu, "softmax_f32": _softmax,
    "gather_f32": _gather, "gather_i8": _gather,
    "lut_i8": _lut, "pool_f32": _pool_f32, "pool_i8": _pool_i8, "join": _join,
    "rescale_i8": _rescale, "quantize": _quantize, "dequantize": _dequantize, "gate_f32": _gate,
    "same": _same, "binarize": _binarize, "conv_bits": _conv_bits, "halve": _halve,
    "spread": _spread, "lrn_f32": _lrn, "layernorm_f32": _layernorm,
}  # fmt: skip
