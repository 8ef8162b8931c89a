"""What an engine computes as one has one scale, at its end; depthwise layers read even channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.backends import compile_module, facts, run_module  # noqa: E402
from edgecv.backends.onnxruntime.tensors import with_shapes  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.graphs.onnx.epilogues import epilogues  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.quantize.onnx_even import evened  # noqa: E402
from edgecv.methods.quantize.onnx_fused import joins, tail, unbounded  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.target import load  # noqa: E402

FUSED = facts("openvino").fused
SIZE = 24
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU, "hardswish": nn.Hardswish, "mish": nn.Mish, "gelu": nn.GELU,
}  # fmt: skip


class Net(nn.Module):
    """A layer, an activation, a depthwise layer, and a head. uneven: the first layer's channels
    are up to 1,000 times larger than others."""

    def __init__(self, act: nn.Module, uneven: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16)
        self.c, self.act = nn.Conv2d(16, 4, 1), act
        if uneven:
            large = torch.logspace(-2, 1, 16)
            self.a.weight.data *= large.reshape(-1, 1, 1, 1)
            self.a.bias.data *= large
            self.b.weight.data /= large.reshape(-1, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.act(self.b(self.act(self.a(x)))))


def exported(module: nn.Module, room: Path) -> Graph:
    return export_onnx(module.eval(), torch.zeros(1, 3, SIZE, SIZE), room / "float")


def images(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString() if hasattr(model, "graph") else model.path.read_bytes()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in x])


def db(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).mean() / np.square(wanted - got).mean()))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_no_scale_lies_inside(kind: str, tmp_path: Path) -> None:
    graph, x = exported(Net(ACTIVATIONS[kind]()), tmp_path), images()
    grid = load("openvino").grid
    pieces = quantize_onnx(graph, x, grid, tmp_path / "pieces")
    whole = quantize_onnx(graph, x, grid, tmp_path / "whole", fused=FUSED)
    model = onnx.load(str(whole.path))
    inner = {e.input for e in epilogues(model)}
    packed = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert len(inner) == 2
    assert not packed & inner
    assert len(packed) == 3  # the image, and what each activation gives
    assert not [told for told in whole.facts["warnings"] if "no int8 kernel" in told]
    wanted = answers(graph, x)
    assert db(wanted, answers(whole, x)) > db(wanted, answers(pieces, x)) - 0.5


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_computes_them_with_the_layer_in_front(
    kind: str, precision: str, tmp_path: Path
) -> None:
    """What `Facts.fused` says is what the engine does: no layer of its own is left of them."""
    pytest.importorskip("openvino")
    graph, target = exported(Net(ACTIVATIONS[kind]()), tmp_path), load("openvino")
    if precision == "int8":
        graph = quantize_onnx(graph, images(), target.grid, tmp_path / "q", fused=FUSED)
    made = compile_module("openvino").compile(graph, target, tmp_path / "ir")
    files = {name: (tmp_path / "ir" / name).read_bytes() for name in made.files}
    session = run_module("openvino").Session(files)
    ran = session.profile({session.inputs[0].name: images(1)}, 3).layers
    work = [row.name for row in ran if "Conv" not in row.name and (row.time_ms or 0) > 0]
    assert not [name for name in work if "act" in name or "Swish" in name], work
    assert session.executed() == {precision: 3}
    session.close()


@pytest.mark.parametrize("act", [nn.SiLU(), nn.ReLU(), nn.Identity()], ids=["silu", "relu", "none"])
def test_uneven_channels_of_a_depthwise_layer_are_evened(act: nn.Module, tmp_path: Path) -> None:
    graph, x = exported(Net(act, uneven=True), tmp_path), images()
    before = with_shapes(onnx.load(str(graph.path)))
    after = evened(before, x, FUSED)
    wanted = answers(graph, x)
    assert db(wanted, answers(after, x)) > 100  # exactly what it was, in float
    assert after.SerializeToString() != before.SerializeToString()
    products = [n.name for n in after.graph.node if n.name.endswith("/even")]
    assert len(products) == isinstance(act, nn.SiLU)
    grid = load("openvino").grid
    whole = quantize_onnx(graph, x, grid, tmp_path / "whole", fused=FUSED)
    assert db(wanted, answers(whole, x)) > 25


def test_even_channels_stay_as_they_are(tmp_path: Path) -> None:
    before = with_shapes(onnx.load(str(exported(Net(nn.SiLU()), tmp_path).path)))
    assert evened(before, images(), FUSED) is before


def test_a_product_is_put_only_where_the_engine_computes_it_with_the_layer(tmp_path: Path) -> None:
    before = with_shapes(onnx.load(str(exported(Net(nn.SiLU(), uneven=True), tmp_path).path)))
    assert evened(before, images(), ()) is before


class Joined(nn.Module):
    """Boxes of any size beside scores of 0..1, of two levels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.down = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 64, 3, 2)
        self.boxes = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in (16, 64))
        self.scores = nn.ModuleList(nn.Conv2d(c, 6, 1) for c in (16, 64))
        for box in self.boxes:
            box.weight.data *= 50

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.body(x).relu()
        levels = [first, self.down(first).relu()]
        heads = zip(levels, self.boxes, self.scores, strict=True)
        said = [torch.cat([box(y), score(y).sigmoid()], 1).flatten(2) for y, box, score in heads]
        return torch.cat(said, 2)


def test_what_is_joined_has_no_common_scale(tmp_path: Path) -> None:
    graph, x = exported(Joined(), tmp_path), images()
    made = quantize_onnx(graph, x, load("cpu").grid, tmp_path / "int8")
    nodes = onnx.load(str(made.path)).graph.node
    packed = {n.input[0] for n in nodes if n.op_type == "QuantizeLinear"}
    joined = {name for n in nodes if n.op_type == "Concat" for name in (*n.input, *n.output)}
    assert joined
    assert not packed & joined
    wanted, got = answers(graph, x), answers(made, x)
    assert np.abs(wanted[:, 1:] - got[:, 1:]).max() < 0.05  # 1/255 of the boxes' range is 0.4


def test_boxes_are_written_in_float_where_that_is_little_work(tmp_path: Path) -> None:
    graph = exported(Joined(), tmp_path)
    model = with_shapes(onnx.load(str(graph.path)))
    made = {n.output[0] for n in unbounded(model, tail(model))}
    assert len(made) == 2
    assert all("boxes" in name for name in made)
    for box in (wide := Joined()).boxes:
        box.weight.data = box.weight.data.repeat(64, 1, 1, 1)
        box.bias.data = box.bias.data.repeat(64)
    model = with_shapes(onnx.load(str(exported(wide, tmp_path / "wide").path)))
    assert unbounded(model, tail(model)) == []


def test_one_answer_stays_as_it_was(tmp_path: Path) -> None:
    model = with_shapes(onnx.load(str(exported(Net(nn.ReLU()), tmp_path).path)))
    assert tail(model) == []
    assert not joins(tail(model))
