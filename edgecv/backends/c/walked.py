"""Steps that walk their operands (`nest.py`): their calls in C, and what they compute, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgecv.backends.c.nest import LOOPS, OPERANDS, Nest
from edgecv.backends.c.network import Step

F = np.float32
ROWS = 1 << 20  # products that are held at once
EACH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "each_add": np.add, "each_sub": np.subtract, "each_mul": np.multiply, "each_div": np.divide,
    "each_max": np.maximum, "each_min": np.minimum, "each_pow": np.power,
    "each_greater": np.greater, "each_less": np.less, "each_at_least": np.greater_equal,
    "each_at_most": np.less_equal, "each_equal": np.equal,
    "each_prelu": lambda u, v: np.where(u > 0, u, u * v),
}  # fmt: skip
REDUCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reduce_mean": lambda v: v.mean(1), "reduce_sum": lambda v: v.sum(1),
    "reduce_max": lambda v: v.max(1), "reduce_min": lambda v: v.min(1),
    "reduce_prod": lambda v: v.prod(1), "reduce_l1": lambda v: np.abs(v).sum(1),
    "reduce_square": lambda v: (v * v).sum(1), "reduce_l2": lambda v: np.sqrt((v * v).sum(1)),
}  # fmt: skip
NEEDS = {  # kind -> blocks of kernels.c and strided.c
    **{k: ("nest", "each", k) for k in EACH}, **{k: ("nest", "reduce", k) for k in REDUCE},
    "copy": ("nest",), "stack": ("nest",), "each_where": ("nest", "each_where"),
    "each_pow": ("exp_f32", "log_f32", "pow_f32", "nest", "each", "each_pow"),
    "reduce_l2": ("root", "nest", "reduce", "reduce_l2"), "norm": ("root", "nest", "norm"),
    "softmax": ("exp_f32", "nest", "soft", "softmax"), "dot": ("nest", "dot"),
    "log_softmax": ("exp_f32", "log_f32", "nest", "soft", "log_softmax"), "taps": ("nest", "taps"),
}  # fmt: skip


def needs(step: Step, dtype: str) -> tuple[str, ...]:
    """The blocks of one step; dtype: of what it makes."""
    copies = step.kind in ("copy", "stack")
    kind = ("copy_i8" if dtype == "int8" else "copy_f32",) if copies else ()
    return (*NEEDS[step.kind], *kind)


def calls(step: Step, ins: list[str], held: dict[str, str], out: str, dtype: str) -> list[str]:
    """Lines of C. ins, out: pointers; held: names of constants by role; dtype: of what it makes"""
    a = step.about
    if step.kind in ("copy", "stack"):
        walks: list[Nest] = a["walks"] if step.kind == "stack" else [a["walk"]]
        name = "copy_i8" if dtype == "int8" else "copy_f32"
        lines = []
        for operand, walk in zip(a["operands"], walks, strict=True):
            source = held[operand] if isinstance(operand, str) else ins[operand]
            places = (_at(source, walk.starts[0]), _at(out, walk.starts[1]))
            lines.append(f"    {{ static const nest_t s = {_nest(walk)};")
            lines.append(f"    {name}({', '.join(places)}, &s); }}")
        return lines
    walk = a["walk"]
    operands = [held[o] if isinstance(o, str) else ins[o] for o in a["operands"]]
    operands = [_at(p, start) for p, start in zip([*operands, out], walk.starts, strict=True)]
    more = ["&s"]
    lines = [f"    {{ static const nest_t s = {_nest(walk)};"]
    if "inner" in a:
        lines[0] = lines[0][:-1] + f", t = {_nest(a['inner'])};"
        more.append("&t")
    if step.kind == "norm":
        more.append(f"{F(a['epsilon']):.9g}f")
    if step.kind == "taps":
        more += [str(a[k]) for k in ("n", "count", "x_step", "y_step")]
        more += [held["at"], held["w"]]
    return [*lines, f"    {step.kind}({', '.join([*operands, *more])}); }}"]


def _at(pointer: str, start: int) -> str:
    return f"{pointer} + {start}" if start else pointer


def _nest(walk: Nest) -> str:
    lead = (1,) * (LOOPS - len(walk.lengths))
    rows = [(0,) * len(lead) + steps for steps in walk.steps]
    rows += [(0,) * LOOPS] * (OPERANDS - len(rows))
    table = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in rows)
    return "{{" + ", ".join(map(str, (*lead, *walk.lengths))) + "}, {" + table + "}}"


def compute(step: Step, x: list[np.ndarray], size: int) -> list[np.ndarray]:
    """What a walked step makes of its inputs; size: values that it makes."""
    a = step.about
    flat = [v.reshape(-1) for v in x]
    if step.kind in ("copy", "stack"):
        y = np.zeros(size, x[0].dtype)
        for operand, walk in zip(a["operands"], a.get("walks") or [a["walk"]], strict=True):
            source = step.constants[operand] if isinstance(operand, str) else flat[operand]
            y[walk.places(1)] = source[walk.places(0)]
        return [y]
    walk, y = a["walk"], np.zeros(size, F)
    operands = [
        (step.constants[o] if isinstance(o, str) else flat[o]).astype(np.float64)
        for o in a["operands"]
    ]
    places = [walk.places(k) for k in range(len(walk.steps))]
    with np.errstate(all="ignore"):
        if "inner" in a:
            within = [a["inner"].places(k) for k in range(len(a["inner"].steps))]
            rows = max(1, ROWS // len(within[0]))
            for begin in range(0, len(places[0]), rows):
                part = [p[begin : begin + rows] for p in places]
                tables = [p[:, None] + q for p, q in zip(part, within, strict=False)]
                _along(step, operands, tables, part[-1], y)
        elif step.kind == "taps":
            _taps(step, operands[0], places, y)
        else:
            read = [o[p] for o, p in zip(operands, places, strict=False)]
            y[places[-1]] = (
                np.where(read[0] != 0, read[1], read[2]) if step.kind == "each_where"
                else EACH[step.kind](*read)
            )  # fmt: skip
    return [y]


def _along(step: Step, operands: list[np.ndarray], tables: list[np.ndarray], to: np.ndarray,
           y: np.ndarray) -> None:  # fmt: skip
    """What inner loops make, into y. tables: the operands' places (outer, inner); to: y's, of those
    that make one value an outer place."""
    v = operands[0][tables[0]]
    if step.kind in REDUCE:
        y[to] = REDUCE[step.kind](v)
    elif step.kind == "dot":
        y[to] = (v * operands[1][tables[1]]).sum(1)
    elif step.kind == "norm":
        v = v - v.mean(1, keepdims=True)
        v = v / np.sqrt((v * v).mean(1, keepdims=True) + step.about["epsilon"])
        y[tables[3]] = v * operands[1][tables[1]] + operands[2][tables[2]]
    else:
        v = v - v.max(1, keepdims=True)
        total = np.exp(v).sum(1, keepdims=True)
        y[tables[1]] = v - np.log(total) if step.kind == "log_softmax" else np.exp(v) / total


def _taps(step: Step, x: np.ndarray, places: list[np.ndarray], y: np.ndarray) -> None:
    a = step.about
    at = step.constants["at"].reshape(a["n"], a["count"]).astype(np.int64)
    w = step.constants["w"].reshape(a["n"], a["count"]).astype(np.float64)
    read = places[0][:, None, None] + at * a["x_step"]
    y[places[1][:, None] + np.arange(a["n"]) * a["y_step"]] = (x[read] * w).sum(-1)


def is_walked(step: Step) -> bool:
    """Whether a step is of this file's kinds."""
    return step.kind in NEEDS
