"""Activations between integers are look-ups on ONNX Runtime, one table a channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.backends import compile_module, facts, run_module  # noqa: E402
from edgecv.backends.onnxruntime.tables import looked_up  # noqa: E402
from edgecv.binary import library  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.target import load  # noqa: E402

TABLES = facts("onnxruntime").tables
SIZE = 24
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU, "hardswish": nn.Hardswish, "mish": nn.Mish, "gelu": nn.GELU,
}  # fmt: skip


class Net(nn.Module):
    """Two layers with activations, one of them depthwise, and a head. wide: one channel holds what
    SiLU never needs: far below 0."""

    def __init__(self, act: nn.Module, wide: bool = False, channels: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, channels, 3, padding=1)
        self.b = nn.Conv2d(channels, channels, 3, groups=channels)
        self.c, self.act = nn.Conv2d(channels, 4, 1), act
        if wide:
            self.a.bias.data[1] -= 300

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.act(self.b(self.act(self.a(x)))))


def images(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def made(module: nn.Module, room: Path, tables: tuple[str, ...] = TABLES) -> tuple[Graph, Graph]:
    """The float graph and the quantized one."""
    graph = export_onnx(module.eval(), torch.zeros(1, 3, SIZE, SIZE), room / "float")
    return graph, quantize_onnx(graph, images(), load("cpu").grid, room / "q", tables=tables)


def answers(content: bytes, x: np.ndarray, optimised: bool = False) -> np.ndarray:
    """By an ONNX Runtime that has no operator of edgecv."""
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in x])


def compiled(graph: Graph, room: Path) -> bytes:
    compile_module("onnxruntime").compile(graph, load("cpu"), room)
    return (room / "model.onnx").read_bytes()


def played(content: bytes, x: np.ndarray) -> np.ndarray:
    session = run_module("onnxruntime").Session({"model.onnx": content})
    name, out = session.inputs[0].name, session.outputs[0].name
    return np.concatenate([session.run({name: row[None]})[out] for row in x])


def db(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).mean() / np.square(wanted - got).mean()))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_layer_is_in_integers_and_every_activation_a_table(kind: str, tmp_path: Path) -> None:
    graph, quantized = made(Net(ACTIVATIONS[kind]()), tmp_path)
    content = compiled(quantized, tmp_path / "c")
    model = onnx.load_model_from_string(content)
    assert sum(n.op_type == "Lookup" for n in model.graph.node) == 2
    session = run_module("onnxruntime").Session({"model.onnx": content})
    assert session.executed() == {"int8": 3}
    assert not [row.op for row in session.profile({session.inputs[0].name: images(1)}, 2).layers
                if "Sigmoid" in row.op or "Gelu" in row.op]  # fmt: skip
    x = images(24)[16:]
    simulated = answers(quantized.path.read_bytes(), x)
    assert db(simulated, played(content, x)) > 35
    assert db(answers(graph.path.read_bytes(), x), simulated) > 25


def test_channels_have_grids_of_their_own_and_flat_ends_none(tmp_path: Path) -> None:
    graph, apart = made(Net(nn.SiLU(), wide=True), tmp_path / "a")
    _, pieces = made(Net(nn.SiLU(), wide=True), tmp_path / "b", tables=())
    x = images(24)[16:]
    wanted = answers(graph.path.read_bytes(), x)
    ours, theirs = (answers(q.path.read_bytes(), x) for q in (apart, pieces))
    assert db(wanted, ours) > db(wanted, theirs) + 6
    model = onnx.load(str(apart.path))
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    packs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    wide = [n for n in packs if held[n.input[1]].size == 16]
    assert len(wide) == 2
    for node in wide:
        scale, zero = held[node.input[1]], held[node.input[2]]
        assert (-scale * zero >= -8 - scale).all()


@pytest.mark.skipif(not library.told().here, reason="the kernels are not built")
@pytest.mark.parametrize("channels", [16, 21])
def test_any_onnx_runtime_computes_the_same(channels: int, tmp_path: Path) -> None:
    """The file says what its operator means: the kernels only make it fast."""
    _, quantized = made(Net(nn.SiLU(), wide=True, channels=channels), tmp_path)
    content = compiled(quantized, tmp_path / "c")
    x = images(4)
    assert np.array_equal(played(content, x), answers(content, x, optimised=True))


@pytest.mark.parametrize("count", [1, 5])
def test_a_look_up_says_what_its_kernel_does(count: int, tmp_path: Path) -> None:
    _, quantized = made(Net(nn.SiLU()), tmp_path)
    model = onnx.load_model_from_string(compiled(quantized, tmp_path / "c"))
    rng = np.random.default_rng(0)
    tables = rng.integers(0, 256, (count, 256), np.uint8)
    x = rng.integers(0, 256, (1, 3, 4, 5), np.uint8)
    node = next(n for n in model.graph.node if n.op_type == "Lookup")
    node.input[:], node.output[:] = ["x", "tables"], ["y"]
    infos = [onnx.helper.make_tensor_value_info(n, 2, x.shape) for n in "xy"]
    graph = onnx.helper.make_graph([node], "one", infos[:1], infos[1:])
    graph.initializer.append(onnx.numpy_helper.from_array(tables, "tables"))
    model.graph.CopyFrom(graph)
    content = model.SerializeToString()
    wanted = tables[np.arange(5) % count, x]
    assert np.array_equal(answers(content, x), wanted)
    assert np.array_equal(answers(content, x, optimised=True), wanted)
    assert np.array_equal(played(content, x), wanted)


def test_without_kernels_it_runs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, quantized = made(Net(nn.SiLU()), tmp_path)
    content = compiled(quantized, tmp_path / "c")
    with_kernels = played(content, images(2))
    monkeypatch.setenv(library.NAMED, str(tmp_path / "none.so"))
    library.library.cache_clear()
    try:
        assert np.array_equal(played(content, images(2)), with_kernels)
        assert "looked up slowly" in caplog.text
        out = compile_module("onnxruntime").compile(quantized, load("cpu"), tmp_path / "d")
        assert any("look-ups" in note for note in out.notes)
        assert (tmp_path / "d" / "model.onnx").read_bytes() == content
    finally:
        library.library.cache_clear()


def test_what_has_no_such_activation_keeps_its_bytes(tmp_path: Path) -> None:
    _, apart = made(Net(nn.ReLU()), tmp_path / "a")
    _, before = made(Net(nn.ReLU()), tmp_path / "b", tables=())
    content = apart.path.read_bytes()
    assert content == before.path.read_bytes() == compiled(apart, tmp_path / "c")


def test_a_layer_kept_float_keeps_its_activation_float(tmp_path: Path) -> None:
    graph, _ = made(Net(nn.SiLU()), tmp_path)
    from edgecv.methods.quantize.options import Options

    first = onnx.load(str(graph.path)).graph.node[0].name
    kept = quantize_onnx(
        graph, images(), load("cpu").grid, tmp_path / "k", Options(keep_float=(first,)),
        tables=TABLES,
    )  # fmt: skip
    model = onnx.load(str(kept.path))
    assert looked_up(model) == 1
    session = run_module("onnxruntime").Session({"m": compiled(kept, tmp_path / "c")})
    assert session.executed() == {"int8": 2, "fp32": 1}


def test_layers_are_compared_with_the_float_ones(tmp_path: Path) -> None:
    """`parity` and `why` see a convolution with its activation, in real numbers."""
    from edgecv.diagnosis.parity.matching import match
    from edgecv.diagnosis.parity.onnx_network import OnnxNetwork

    graph, quantized = made(Net(nn.SiLU(), wide=True), tmp_path)
    content, x = compiled(quantized, tmp_path / "c"), images(1)
    floats = OnnxNetwork(graph.path.read_bytes(), "float")
    for other in (
        OnnxNetwork(quantized.path.read_bytes(), "simulated"),
        OnnxNetwork(content, "compiled"),
        OnnxNetwork(content, "compiled", optimised=True),
    ):
        pairs, how = match(floats, other)
        assert how == "name"
        assert sum(p.b.kind == "conv" for p in pairs) == 3
        wanted = floats.values(x, [p.a.tensor for p in pairs])
        for pair in pairs:
            got = other.values(x, [pair.b.tensor])[pair.b.tensor]
            assert db(*pair.values(wanted[pair.a.tensor], got)) > 30, pair.b.name
