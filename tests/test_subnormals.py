"""Subnormal numbers: found by their bits, set to zero, nothing else touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

from edgecv.graphs.onnx.subnormals import flush_onnx
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.subnormals import flush_tflite
from edgecv.measuring.flushing import flushing, possible
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.export.tflite import export_tflite
from edgecv.models.model import Model
from edgecv.subnormals import SMALLEST, count, flush, scan

FLOATS = st.floats(width=32, allow_subnormal=True)


def test_by_hand() -> None:
    values = np.array([0.0, -0.0, 1e-40, -1e-44, SMALLEST, -SMALLEST, 1.0, np.inf, np.nan], "f")
    assert count(values) == 2
    flushed = flush(values)
    assert count(flushed) == 0
    assert flushed[2] == flushed[3] == 0
    assert np.array_equal(np.delete(flushed, [2, 3]), np.delete(values, [2, 3]), equal_nan=True)


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=FLOATS))
def test_flush_keeps_every_other_bit(values: np.ndarray) -> None:
    flushed = flush(values)
    small = np.nonzero((np.abs(values) > 0) & (np.abs(values) < SMALLEST))[0]
    assert count(values) == len(small)
    kept = np.delete(np.arange(len(values)), small)
    assert np.array_equal(flushed[kept].view(np.uint32), values[kept].view(np.uint32))
    assert not flushed[small].any()
    assert flush(flushed) is flushed


@pytest.mark.parametrize(("dtype", "small"), [("float16", 1e-7), ("float64", 1e-310)])
def test_every_float_type_has_its_own_smallest(dtype: str, small: float) -> None:
    values = np.array([small, 1.0], dtype)
    assert count(values) == 1
    assert flush(values).tolist() == [0.0, 1.0]


def test_other_types_have_none() -> None:
    assert count(np.array([1, 2], np.int8)) == 0


def test_scan_adds_up_what_has_one_name() -> None:
    small = np.full(3, 1e-40, np.float32)
    assert scan({"a": small, "b": np.ones(2, np.float32)}) == {"a": 3}
    assert scan([("a", small), ("a", small[:1])]) == {"a": 4}


@pytest.mark.skipif(not possible(), reason="this processor's subnormals cannot be switched off")
def test_a_thread_that_flushes_still_finds_them() -> None:
    values = np.array([1e-40, 1.0], np.float32)
    with flushing():
        assert (values[:1] * np.float32(1.0))[0] == 0.0, "the processor takes it as zero"
        assert count(values) == 1
    assert (values[:1] * np.float32(1.0))[0] != 0.0, "and as what it is afterwards"


def test_flush_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.array([[1e-40, 2.0]], np.float32), "w")
    constant = numpy_helper.from_array(np.array([1e-41], np.float32), "c")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    kind = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, [1, d]) for n, d in (("x", 1), ("y", 2))]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]))
    assert flush_onnx(model) == 2
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[0.0, 2.0]]
    assert flush_onnx(model) == 0


def test_flush_tflite() -> None:
    pytest.importorskip("ai_edge_litert")
    from edgecv.backends.tflite.single_layer import twin
    from edgecv.graphs.tflite import flatbuffer
    from edgecv.measuring.product import Product

    (content,) = twin(Product("a", "dense", (4, 2)), integer=False)[0].values()
    model = flatbuffer.parse(content, "twin")
    weight = flatbuffer.graph_of(model).tensors[1]
    values = flatbuffer.constant(model, weight)
    assert values is not None
    values[0, 0] = 1e-40
    flatbuffer.set_constant(model, weight, values)
    again = flatbuffer.parse(flatbuffer.written(model), "twin")
    assert flush_tflite(again) == 1
    assert flush_tflite(again) == 0
    found = flatbuffer.constant(again, flatbuffer.graph_of(again).tensors[1])
    assert found is not None
    assert np.array_equal(found, np.where(values == values[0, 0], 0, values))


class Dying(torch.nn.Module):
    """A layer of which training left a kernel at 1e-40, and a batch norm that leaves more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8)
        with torch.no_grad():
            self.conv.weight[0] = 1e-40
            self.conv.weight[1] = 1e-30
            self.bn.running_var[1] = 1e18

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x)).mean((2, 3))


def test_a_saved_model_has_none_and_says_so(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")
    model = Model("tests.test_subnormals:Dying", input={})
    model.save(tmp_path, Dying())
    back, module = Model.load(tmp_path)
    assert back.facts["subnormal_weights"] == {"conv.weight": 27}
    assert "27 subnormal weights set to zero" in caplog.text
    assert not module.conv.weight[0].any()
    torch.testing.assert_close(module.conv.weight[1:], Dying().conv.weight[1:], rtol=0, atol=0)
    again = tmp_path / "again"
    Model("tests.test_subnormals:Dying", input={}).save(again, module)
    assert "subnormal_weights" not in Model.read(again).facts


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_exported_graph_has_none_although_folding_makes_some(kind: str, tmp_path: Path) -> None:
    module, example = Dying().eval(), torch.zeros(1, 3, 8, 8)
    if kind == "onnx":
        graph = export_onnx(module, example, tmp_path)
        held = [numpy_helper.to_array(t) for t in onnx.load(str(graph.path)).graph.initializer]
    else:
        graph = export_tflite(module, example, tmp_path)
        model = flatbuffer.read(graph.path)
        tensors = flatbuffer.graph_of(model).tensors
        held = [flatbuffer.constant(model, t) for t in tensors]
    held = [a for a in held if a is not None and a.dtype == np.float32]
    assert any(a.size == 8 * 27 for a in held)
    assert not any(count(a) for a in held)
