"""Minus infinity in masks and pads: gone from the file, the same answers by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.graphs.onnx.canonical import canonical
from edgecv.methods.export.onnx import export_onnx, load_onnx
from edgecv.models.model import check_finite

LOW = float("-inf")
X = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)


def answer(made, x=X):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    text = made if isinstance(made, bytes) else made.SerializeToString()
    session = ort.InferenceSession(text, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def graph(nodes, **held):
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_pad_of_minus_infinity_goes_into_the_max_pool():
    pads = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
    before = graph(
        [helper.make_node("Pad", ["x", "pads", "low"], ["p"]),
         helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2])],
        pads=pads, low=np.float32(LOW),
    )  # fmt: skip
    after = canonical(before, "net.onnx")
    assert [n.op_type for n in after.graph.node] == ["MaxPool"]
    assert np.array_equal(answer(before, X - 9), answer(after, X - 9))


def test_a_mask_is_finite_and_masks_the_same():
    mask = np.triu(np.full((8, 8), LOW, np.float32), 1)
    before = graph(
        [helper.make_node("Add", ["x", "mask"], ["a"]), helper.make_node("Softmax", ["a"], ["s"]),
         helper.make_node("IsNaN", ["s"], ["n"]),
         helper.make_node("Where", ["n", "zero", "s"], ["w"]),
         helper.make_node("Relu", ["w"], ["y"])],
        mask=mask, zero=np.float32(0),
    )  # fmt: skip
    after = canonical(before, "net.onnx")
    assert [n.op_type for n in after.graph.node] == ["Add", "Softmax", "Relu"]
    assert all(np.isfinite(numpy_helper.to_array(t)).all() for t in after.graph.initializer)
    assert np.array_equal(answer(before), answer(after))


class Attends(nn.Module):
    """Causal attention over 16 tokens, its mask a buffer or made in forward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.qkv, self.fc = how, nn.Linear(12, 36), nn.Linear(12, 5)
        self.register_buffer("mask", torch.full((16, 16), LOW).triu(1))

    def forward(self, x):
        x = x.reshape(len(x), 12, 16).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.how == "causal":
            x = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.how == "buffer":
            x = ((q @ k.transpose(1, 2)) * 0.3 + self.mask).softmax(-1) @ v
        else:
            scores = (q @ k.transpose(1, 2)).masked_fill(torch.ones(16, 16).triu(1) > 0, LOW)
            x = scores.softmax(-1) @ v
        return self.fc(x.mean(1))


@pytest.mark.parametrize("how", ["causal", "buffer", "fill"])
def test_attention_that_masks_by_minus_infinity(tmp_path, how):
    net = Attends(how).eval()
    export_onnx(net, torch.zeros(1, 3, 8, 8), tmp_path)
    file = Graph.load(tmp_path).path.read_bytes()
    with torch.no_grad():
        wanted = net(torch.from_numpy(X)).numpy()
    assert np.abs(answer(file) - wanted).max() < 1e-5


def test_a_weight_of_minus_infinity_is_damage(tmp_path):
    layer = np.zeros((2, 3, 1, 1), np.float32)
    layer[1, 2] = LOW
    (tmp_path / "net.onnx").write_bytes(
        graph([helper.make_node("Conv", ["x", "w"], ["y"])], w=layer).SerializeToString()
    )
    with pytest.raises(ModelError, match=r"net\.onnx: w: holds NaN or infinite values"):
        load_onnx(tmp_path / "net.onnx", tmp_path / "out")
    net = Attends("buffer")
    check_finite(net, "net:make")
    net.fc.weight.data[0, 0] = LOW
    with pytest.raises(ModelError, match=r"weight 'fc\.weight' holds NaN or Inf"):
        check_finite(net, "net:make")
