"""LSTM and GRU as torch's own, gates reordered (onnx/docs/Operators.md)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.models.importing.reader import Node

# ONNX's order of gates -> torch's: (i, o, f, c) -> (i, f, c, o); (z, r, h) -> (r, z, h)
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def recurrent(node: Node) -> list[fx.Node]:
    """Y (T, D, N, H) and the last states Y_h, Y_c (D, N, H) of x (T, N, I)."""
    hidden, directions = (
        _checked(node),
        2 if node.attr("direction", "forward") == "bidirectional" else 1,
    )
    weight, again, bias = node.weight(1), node.weight(2), node.weight(3)
    assert weight is not None
    assert again is not None
    kind: Any = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}[node.op]
    if node.op == "GRU" and not node.attr("linear_before_reset", 0):
        kind = _ResetBefore
    layer = kind(weight.shape[2], hidden, bias=bias is not None, bidirectional=directions == 2)
    with torch.no_grad():
        for d in range(directions):
            end = "_reverse" if d else ""
            getattr(layer, f"weight_ih_l0{end}").copy_(_gates(node, weight[d]))
            getattr(layer, f"weight_hh_l0{end}").copy_(_gates(node, again[d]))
            if bias is not None:
                for name, half in zip(("ih", "hh"), bias[d].chunk(2), strict=True):
                    getattr(layer, f"bias_{name}_l0{end}").copy_(_gates(node, half))
    back = node.attr("direction", "forward") == "reverse"
    x = node.call(torch.flip, node.x(), (0,)) if back else node.x()
    every = node.module(_Whole(layer), x)
    if back:
        every = node.call(torch.flip, every, (0,))
    length, batch = node.shape()[0], node.shape()[1]
    parted = node.call(torch.reshape, every, (length, batch, directions, hidden))
    made = [node.call(torch.permute, parted, (0, 2, 1, 3))]
    if len(node.proto.output) > 1 and node.proto.output[1]:
        ends = [node.call(torch.select, made[0], 0, 0 if back else -1)]
        if directions == 2:  # the backward pass ends at the first step
            first = node.call(torch.select, made[0], 0, 0)
            parts = [node.call(torch.narrow, f, 0, d, 1) for d, f in ((0, ends[0]), (1, first))]
            ends = [node.call(torch.cat, parts, dim=0)]
        made += ends
    return made


def _gates(node: Node, rows: torch.Tensor) -> torch.Tensor:
    parts = rows.chunk(len(_ORDER[node.op]))
    return torch.cat([parts[i] for i in _ORDER[node.op]])


def _checked(node: Node) -> int:
    """Its hidden size, having refused what torch's layers do not do."""
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[
        node.op
    ]
    given = [a.decode() if isinstance(a, bytes) else a for a in node.attr("activations", usual)]
    if given not in (usual, usual * 2):
        node.refuse(f"activations {given}")
    if node.attr("clip", 0) or node.attr("layout", 0) or node.attr("input_forget", 0):
        node.refuse("clip, layout and input_forget are not read")
    if node.has(4) or node.has(7):
        node.refuse("sequence lengths and peepholes are not read")
    for index in (5, 6):
        state = node.constant(index)
        if node.has(index) and (state is None or state.any()):
            node.refuse("its first state is not zero")
    if node.op == "LSTM" and len(node.proto.output) > 2 and node.reader.uses[node.proto.output[2]]:
        node.refuse("its last cell state is used")
    return int(node.attr("hidden_size", 0))


class _ResetBefore(nn.GRU):
    """A GRU that resets the state before its product, as Keras has it and torch has not.

    n = tanh(W_n x + b_n + R_n (r h) + c_n),  h' = (1 - z) n + z h
    """

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """(T, N, I) -> (T, N, D H), written out step by step."""
        ways = [self._pass(x, "", False)]
        if self.bidirectional:
            ways.append(self._pass(x, "_reverse", True))
        return torch.cat(ways, -1), None

    def _pass(self, x: torch.Tensor, end: str, back: bool) -> torch.Tensor:
        w, again = getattr(self, f"weight_ih_l0{end}"), getattr(self, f"weight_hh_l0{end}")
        b, c = getattr(self, f"bias_ih_l0{end}", None), getattr(self, f"bias_hh_l0{end}", None)
        r, z, n = F.linear(x, w, b).chunk(3, -1)
        gates, last = again[: 2 * self.hidden_size], again[2 * self.hidden_size :]
        c = again.new_zeros(len(again)) if c is None else c
        h, made = torch.zeros_like(r[0]), []
        for t in range(len(x))[::-1] if back else range(len(x)):
            u, v = F.linear(h, gates, c[: len(gates)]).chunk(2, -1)
            keep = torch.sigmoid(z[t] + v)
            reset = torch.sigmoid(r[t] + u) * h
            new = torch.tanh(n[t] + F.linear(reset, last, c[len(gates) :]))
            h = (1 - keep) * new + keep * h
            made.append(h)
        return torch.stack(made[::-1] if back else made)


class _Whole(nn.Module):
    """A recurrent layer that answers with its outputs alone."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, N, I) -> (T, N, D H)."""
        return self.layer(x)[0]
