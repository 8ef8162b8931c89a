"""LSTM, GRU and RNN over one sequence, in one direction or both: read, called in C, and in numpy.

    LSTM  c' = σ(f) c + σ(i) tanh(g),  h' = σ(o) tanh(c')
    GRU   h' = (1 − σ(z)) tanh(n) + σ(z) h
    RNN   h' = tanh(W x + R h + b)

Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); Cho et al. (EMNLP 2014), with the reset
gate before or behind the product, as `linear_before_reset` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.c.moves import View
from edgecv.backends.c.network import Step, Tensor
from edgecv.backends.c.operands import Operands
from edgecv.runtime.layers import from_scope

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATE = {"lstm": 6, "gru": 4, "rnn": 2}  # floats a unit that the kernel keeps
NEEDS = {
    "lstm": ("exp_f32", "squash", "bend", "product", "lstm"),
    "gru": ("exp_f32", "squash", "bend", "product", "gru"),
    "rnn": ("exp_f32", "bend", "product", "rnn"),
}
USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


class Recurrent(Operands):
    """LSTM, GRU, RNN of constant weights, one of a batch after another."""

    def _lstm(self, node: Any) -> None:
        kind, given = node.op_type.lower(), self._given(node)
        names = [*node.input, *[""] * 8][:8]
        steps, batch, inputs = self._shape_of(node, names[0])
        self._usual(node, given, names, steps)
        w, r, b, *starts = (self._weights(node, names[k]) for k in (1, 2, 3, 5, 6))
        assert w is not None
        assert r is not None
        ways, units = len(w), r.shape[2]
        constants = {"w": w, "r": r, **_biases(kind, b, ways, units, given)}
        for role, start in zip(("h", "c"), starts, strict=True):
            if start is not None and start.any():
                each = start.reshape(ways, batch, units)
                if (each != each[:, :1]).any():
                    raise self._refused(node, "starts otherwise in each of a batch")
                constants[role] = each[:, 0]
        x = f"{node.output[0] or node.name}/steps"
        view = self._view(node, names[0])
        self._gathered(node, self.tensors[self._floats(view.base)], view.at.transpose(1, 0, 2),
                       view.fill, x, (batch, steps, inputs))  # fmt: skip
        self.tensors[x] = replace(self.tensors[x], images=batch)
        y, state, kept = f"{x}/y", f"{x}/state", STATE[kind] * units
        self.tensors[y] = Tensor(y, (batch, 1, steps * ways * units), images=batch)
        self.tensors[state] = Tensor(state, (batch, 1, ways * kept), images=batch)
        back = {b"forward": (0,), b"reverse": (1,), b"bidirectional": (0, 1)}
        about = {"steps": steps, "inputs": inputs, "units": units,
                 "back": back[given.get("direction", b"forward")]}  # fmt: skip
        held = {k: np.asarray(v, np.float32) for k, v in constants.items()}
        layer = from_scope(node.name) or node.name
        self.steps.append(Step(kind, [x], [y, state], held, about, layer))
        every = np.arange(batch * steps * ways * units).reshape(batch, steps, ways, units)
        every = every.transpose(1, 2, 0, 3)
        last = np.arange(batch * ways * kept).reshape(batch, ways, kept).transpose(1, 0, 2)
        places = [View(y, every, 0.0), View(state, last[..., :units], 0.0),
                  View(state, last[..., units : 2 * units], 0.0)]  # fmt: skip
        for name, place in zip(node.output, places, strict=False):
            if name:
                self.views[name], self.shapes[name] = place, place.at.shape

    _gru = _rnn = _lstm

    def _weights(self, node: Any, name: str) -> np.ndarray | None:
        value = self._number(name) if name else None
        if name and value is None:
            raise self._refused(node, f"{name} is no constant")
        return value

    def _usual(self, node: Any, given: dict[str, Any], names: list[str], steps: int) -> None:
        """Refuses what the kernels do not compute."""
        acts = [a.decode() for a in given.get("activations", ())]
        usual, lengths = USUAL[node.op_type], self.values.get(names[4]) if names[4] else None
        odd = acts and acts[: len(usual)] * 2 != usual * 2
        odd = odd or (len(acts) > len(usual) and acts != usual * 2)
        cut = names[4] and (lengths is None or (lengths != steps).any())
        if given.get("layout") or given.get("input_forget") or given.get("clip"):
            raise self._refused(node, f"{node.op_type} clipped, or batch first, has no C kernel")
        if odd or cut or names[7]:
            what = "with activations of its own, peepholes or lengths"
            raise self._refused(node, f"{node.op_type} {what} has no C kernel")


def _biases(kind: str, b: np.ndarray | None, ways: int, units: int,
            given: dict[str, Any]) -> dict[str, np.ndarray]:  # fmt: skip
    """b: of both products, (ways, gates, units); n: a GRU's own where its gate scales a product."""
    gates = GATES[kind]
    both = np.zeros((ways, 2, gates, units)) if b is None else b.reshape(ways, 2, gates, units)
    if kind == "gru" and given.get("linear_before_reset"):
        whole = both.sum(1)
        whole[:, 2] = both[:, 0, 2]
        return {"b": whole, "n": both[:, 1, 2]}
    return {"b": both.sum(1)}


def calls(step: Step, ins: list[str], held: dict[str, str], outs: list[str]) -> list[str]:
    """Lines of C, one a direction."""
    a, units = step.about, step.about["units"]
    gates, ways = GATES[step.kind], len(a["back"])
    sizes = {"w": gates * units * a["inputs"], "r": gates * units * units, "b": gates * units}
    roles = {"lstm": ("w", "r", "b", "h", "c"), "gru": ("w", "r", "b", "n", "h"),
             "rnn": ("w", "r", "b", "h")}[step.kind]  # fmt: skip
    lines = []
    for k, back in enumerate(a["back"]):
        given = [f"{held[n]} + {k * sizes.get(n, units)}" if n in held else "NULL" for n in roles]
        to = [f"{outs[0]} + {k * units}", f"{outs[1]} + {k * STATE[step.kind] * units}"]
        more = [a["steps"], a["inputs"], units, ways * units, back]
        lines.append(f"    {step.kind}({', '.join([ins[0], *given, *to, *map(str, more)])});")
    return lines


def compute(step: Step, x: np.ndarray) -> list[np.ndarray]:
    """(every h, what is kept) of a step."""
    a, units = step.about, step.about["units"]
    x = x.reshape(a["steps"], a["inputs"]).astype(np.float64)
    every = np.zeros((a["steps"], len(a["back"]), units), np.float32)
    kept = np.zeros((len(a["back"]), STATE[step.kind] * units), np.float32)
    for k, back in enumerate(a["back"]):
        own = {n: v[k].astype(np.float64) for n, v in step.constants.items()}
        state = [own.get("h", np.zeros(units)), own.get("c", np.zeros(units))]
        for t in range(a["steps"])[:: -1 if back else 1]:
            state = _next(step.kind, own, x[t], state)
            every[t, k] = state[0]
        kept[k, :units] = state[0]
        if step.kind == "lstm":
            kept[k, units : 2 * units] = state[1]
    return [every, kept]


def _next(kind: str, own: dict[str, np.ndarray], x: np.ndarray,
          state: list[np.ndarray]) -> list[np.ndarray]:  # fmt: skip
    h, c = state
    gates, units = GATES[kind], len(h)
    read = (own["w"].reshape(gates * units, -1) @ x).reshape(gates, units)
    read = read + own["b"].reshape(gates, units)
    r = own["r"].reshape(gates, units, units)
    if kind == "rnn":
        return [np.tanh(read[0] + r[0] @ h), c]
    if kind == "lstm":
        i, o, f, g = read + r @ h
        c = _squash(f) * c + _squash(i) * np.tanh(g)
        return [_squash(o) * np.tanh(c), c]
    z, reset = (_squash(read[k] + r[k] @ h) for k in (0, 1))
    inner = reset * (r[2] @ h + own["n"]) if "n" in own else r[2] @ (reset * h)
    return [(1 - z) * np.tanh(read[2] + inner) + z * h, c]


def _squash(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))
