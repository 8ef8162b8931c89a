"""What an optimised file holds, unfolded to standard operators.

    FusedConv            f(Conv(x, w, b) [+ z])            FusedGemm    f(α A' B' + β C)
    FusedMatMul          α A' B'                           BiasGelu     Gelu(x + b)
    Gelu                 x (1 + erf(x / √2)) / 2           QuickGelu    x σ(α x)
    FastGelu             x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, x with its bias
    SkipLayerNormalization   LayerNormalization(x + skip [+ bias])

Source: onnxruntime/docs/ContribOperators.md. Blocked layouts (domain com.microsoft.nchwc) belong to
the processor that wrote them and are refused; other operators of ONNX Runtime stay, for the engines
that know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, Formula, attributes, write_attributes

DOMAIN = "com.microsoft"
TIED = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
# the parameters of a fused activation, in the order of activation_params
PARAMETERS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"), "Clip": ("min", "max"),
}  # fmt: skip


def contrib(draft: Draft) -> None:
    for node in list(draft.graph.node):
        if node.domain in TIED:
            hint = "save it with ORT_ENABLE_BASIC, or bring the file it was made from"
            draft.refuse(node, "its layout belongs to the processor that optimised the file", hint)
        unfold = UNFOLD.get(node.op_type) if node.domain == DOMAIN else None
        if unfold is not None:
            unfold(draft, node, attributes(node))


def _fused_conv(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    out, extra = node.output[0], node.input[3] if len(node.input) > 3 else ""
    del node.input[3:]
    node.op_type, node.domain = "Conv", ""
    write_attributes(node, {"activation": None, "activation_params": None})
    values = list(given.get("activation_params") or [])
    x = out
    if given.get("activation"):
        x = _activated(draft, node, given["activation"], values, out)
    if extra:
        node.output[0] = draft.unique(f"{out}/product")
        draft.behind(node, draft.make("Add", [node.output[0], extra], x))
    else:
        node.output[0] = x


def _activated(draft: Draft, node: Any, name: str, values: list[float], out: str) -> str:
    """Put activation `name` behind the node, making `out`; the tensor that it reads."""
    if name not in PARAMETERS:
        draft.refuse(node, f"its activation {name!r} is not known")
    x, given = draft.unique(f"{out}/before"), dict(zip(PARAMETERS[name], values, strict=False))
    if name == "Clip":
        ends = [draft.hold(f"{out}/{k}", np.float32(given[k])) if k in given else ""
                for k in ("min", "max")]  # fmt: skip
        draft.behind(node, draft.make("Clip", [x, *ends], out))
    else:
        draft.behind(node, draft.make(name, [x], out, **given))
    return x


def _fused_gemm(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    node.op_type, node.domain = "Gemm", ""
    own = {k: v for k, v in given.items() if k.startswith("activation")}
    write_attributes(node, dict.fromkeys(own))
    if own.get("activation"):
        short = {"alpha": "activation_alpha", "beta": "activation_beta",
                 "min": "activation_min", "max": "activation_max"}  # fmt: skip
        names = PARAMETERS.get(own["activation"], ())
        values = [own[short[n]] for n in names if short[n] in own]
        node.output[0] = _activated(draft, node, own["activation"], values, node.output[0])


def _fused_matmul(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    if given.get("transBatchA", 0) or given.get("transBatchB", 0):
        draft.refuse(node, "transposed batches are not read")
    for index, name in ((0, "transA"), (1, "transB")):
        rank = len(draft.shape(node, node.input[index])) if given.get(name, 0) else 0
        if rank > 1:
            turned = draft.unique(f"{node.input[index]}/turned")
            perm = [*range(rank - 2), rank - 1, rank - 2]
            draft.before(node, draft.make("Transpose", [node.input[index]], turned, perm=perm))
            node.input[index] = turned
    alpha, out = float(given.get("alpha", 1.0)), node.output[0]
    node.op_type, node.domain = "MatMul", ""
    del node.attribute[:]
    if alpha != 1.0:
        node.output[0] = draft.unique(f"{out}/unscaled")
        factor = draft.hold(f"{out}/alpha", np.float32(alpha))
        draft.behind(node, draft.make("Mul", [node.output[0], factor], out))


def _with_bias(f: Formula) -> str:
    node = f.node
    return f("Add", *node.input[:2]) if len(node.input) > 1 and node.input[1] else node.input[0]


def _gelu(draft: Draft, node: Any, _: dict[str, Any]) -> None:
    f = Formula(draft, node)
    x = _with_bias(f)
    more = f("Add", f("Erf", f("Div", x, math.sqrt(2))), 1.0)
    f("Mul", f("Mul", x, more), 0.5, out=f.out)
    f.end()


def _fast_gelu(draft: Draft, node: Any, _: dict[str, Any]) -> None:
    f = Formula(draft, node)
    x = _with_bias(f)
    cube = f("Mul", f("Mul", f("Mul", x, x), x), 0.044715)
    more = f("Add", f("Tanh", f("Mul", f("Add", x, cube), math.sqrt(2 / math.pi))), 1.0)
    f("Mul", f("Mul", x, more), 0.5, out=f.out)
    f.end()


def _quick_gelu(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    f = Formula(draft, node)
    x = node.input[0]
    f("Mul", x, f("Sigmoid", f("Mul", x, float(given.get("alpha", 1.702)))), out=f.out)
    f.end()


def _skip_norm(draft: Draft, node: Any, given: dict[str, Any]) -> None:
    outputs, names = list(node.output), list(node.input) + [""] * 5
    if any(draft.uses(n) for n in outputs[1:3] if n):
        draft.refuse(node, "its mean or deviation is used")
    f = Formula(draft, node)
    total = f("Add", names[0], names[1])
    if names[4]:
        total = f("Add", total, names[4])
    if len(outputs) > 3 and outputs[3]:
        f("Identity", total, out=outputs[3])
    weights = [n for n in names[2:4] if n]
    f("LayerNormalization", total, *weights, out=f.out, axis=-1,
      epsilon=float(given.get("epsilon", 1e-12)))  # fmt: skip
    f.end()


UNFOLD: dict[str, Callable[[Draft, Any, dict[str, Any]], None]] = {
    "FusedConv": _fused_conv, "FusedGemm": _fused_gemm, "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul, "Gelu": _gelu, "BiasGelu": _gelu, "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu, "SkipLayerNormalization": _skip_norm,
}  # fmt: skip
