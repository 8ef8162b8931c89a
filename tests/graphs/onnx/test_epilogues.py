"""Activations are found as what they are, however exporters spell them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.graphs.onnx.epilogues import epilogues

torch = pytest.importorskip("torch")
F = torch.nn.functional

SPELLED: dict[str, tuple[Callable, str]] = {
    "F.silu": (F.silu, "silu"),
    "x * sigmoid(x)": (lambda x: x * torch.sigmoid(x), "silu"),
    "x / (1 + exp(-x))": (lambda x: x / (1 + torch.exp(-x)), "silu"),
    "F.hardswish": (F.hardswish, "hardswish"),
    "x * relu6(x + 3) / 6": (lambda x: x * F.relu6(x + 3) / 6, "hardswish"),
    "x * hardsigmoid(x)": (lambda x: x * F.hardsigmoid(x), "hardswish"),
    "F.mish": (F.mish, "mish"),
    "x * tanh(softplus(x))": (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
    "F.gelu": (F.gelu, "gelu"),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), "gelu"),
    "by erf": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "gelu"),
    "F.relu": (F.relu, ""),
    "x * sigmoid(2 x)": (lambda x: x * torch.sigmoid(2 * x), ""),
    "x * x": (lambda x: x * x, ""),
    "x * tanh(x)": (lambda x: x * torch.tanh(x), ""),
}


class Net(torch.nn.Module):
    def __init__(self, act: Callable) -> None:
        super().__init__()
        self.a, self.b, self.act = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 1), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.act(self.a(x)))


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("name", SPELLED)
def test_an_activation_is_known_by_what_it_computes(name: str, opset: int) -> None:
    act, kind = SPELLED[name]
    held = io.BytesIO()
    torch.onnx.export(
        Net(act).eval(), (torch.zeros(1, 3, 8, 8),), held, dynamo=False, opset_version=opset
    )
    model = onnx.load_from_string(held.getvalue())
    found = epilogues(model)
    assert [e.kind for e in found] == ([kind] if kind else [])
    first, last = (n for n in model.graph.node if n.op_type == "Conv")
    for e in found:
        assert (e.input, e.output) == (first.output[0], last.input[0])


def graph(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    shape = (1, 4, 5, 5)
    made = helper.make_graph(
        list(nodes), "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "g")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.float32(1), "one")],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def test_a_gate_is_no_activation() -> None:
    """x sigmoid(g) of two tensors, as squeeze-and-excite has it."""
    sigmoid = helper.make_node("Sigmoid", ["g"], ["s"])
    assert epilogues(graph(sigmoid, helper.make_node("Mul", ["x", "s"], ["y"]))) == []


def test_what_is_read_inside_keeps_it_in_pieces() -> None:
    nodes = helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])
    assert len(epilogues(graph(*nodes))) == 1
    assert epilogues(graph(*nodes, outputs=("y", "s"))) == []
