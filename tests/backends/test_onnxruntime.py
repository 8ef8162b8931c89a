"""The ONNX Runtime session tells the truth about what it computes and in which precision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edgecv.backends.onnxruntime.compile import compile
from edgecv.backends.onnxruntime.profile import KERNELS
from edgecv.backends.onnxruntime.run import Session, probe
from edgecv.errors import EngineError, MissingExtraError, UnsupportedError
from edgecv.graph import Graph
from edgecv.graphs.onnx import wire
from edgecv.runtime.spec import Profile
from edgecv.target import Grid, Target
from tests.backends import onnx_graphs as graphs
from tests.calls import calls

TARGET = Target(name="t", backend="onnxruntime", graph="onnx")


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return graphs.float_graph(tmp_path_factory.mktemp("fp32"))


def session(graph: Graph, threads: int = 1) -> Session:
    return Session({"model.onnx": graph.path.read_bytes()}, threads)


def test_probe_names_the_installed_version() -> None:
    import onnxruntime

    assert probe().version == onnxruntime.__version__


def test_numbers_that_can_be_checked_on_paper(tmp_path: Path) -> None:
    outputs = session(graphs.by_hand(tmp_path)).run({"input": graphs.BY_HAND_INPUT})
    np.testing.assert_allclose(outputs["logits"], graphs.BY_HAND_LOGITS, atol=1e-6)


def test_a_float_graph_runs_in_float(fp32: Graph) -> None:
    assert session(fp32).executed() == {"fp32": graphs.LAYERS}


def test_an_int8_graph_runs_in_int8(fp32: Graph, tmp_path: Path) -> None:
    assert session(graphs.int8_graph(fp32, tmp_path)).executed() == {"int8": graphs.LAYERS}


def test_signed_activations_do_not_fuse_and_that_is_seen(fp32: Graph, tmp_path: Path) -> None:
    ran = session(graphs.int8_graph(fp32, tmp_path, Grid(activations="int8"))).executed()
    assert sum(ran.values()) == graphs.LAYERS
    assert ran.get("fp32", 0) > 0, "s8 fuses now: the grid of the x86 profiles may change"


def test_tensors_are_described(fp32: Graph) -> None:
    run = session(fp32)
    assert run.inputs == fp32.inputs
    assert run.outputs == fp32.outputs
    assert (run.inputs[0].name, run.inputs[0].layout, run.inputs[0].dtype) == (
        "input",
        "NCHW",
        "float32",
    )


def test_threads_change_nothing_but_time(fp32: Graph) -> None:
    feeds = {"input": graphs.images(1)}
    one, two = session(fp32).run(feeds), session(fp32, threads=2).run(feeds)
    np.testing.assert_allclose(one["logits"], two["logits"], atol=1e-5)


def test_results_are_fresh_arrays(fp32: Graph) -> None:
    run = session(fp32)
    first = run.run({"input": graphs.images(1, seed=1)})["logits"]
    kept = first.copy()
    run.run({"input": graphs.images(1, seed=2)})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"wrong": graphs.images(1)},
        {"input": graphs.images(2)},
        {"input": graphs.images(1).astype(np.float64)},
    ],
    ids=["nothing", "name", "shape", "dtype"],
)
def test_wrong_feeds_are_refused_in_one_line(fp32: Graph, feeds: dict[str, np.ndarray]) -> None:
    with pytest.raises(EngineError) as caught:
        session(fp32).run(feeds)
    assert "\n" not in str(caught.value)


def test_damaged_bytes_are_refused(fp32: Graph) -> None:
    with pytest.raises(EngineError):
        Session({"model.onnx": fp32.path.read_bytes()[:500]})


def test_a_closed_session_refuses(fp32: Graph) -> None:
    run = session(fp32)
    run.close()
    with pytest.raises(EngineError, match="closed"):
        run.run({"input": graphs.images(1)})


def test_executed_leaves_no_files(
    fp32: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session(fp32).executed()
    assert list(tmp_path.iterdir()) == []


def test_a_call_does_little_over_the_bare_engine(fp32: Graph) -> None:
    run, feeds = session(fp32), {"input": graphs.images(1)}
    bare = run._session
    run.run(feeds)
    assert calls(lambda: run.run(feeds)) - calls(lambda: bare.run(["logits"], feeds)) < 8


def test_compile_delivers_the_graph(fp32: Graph, tmp_path: Path) -> None:
    made = compile(fp32, TARGET, tmp_path)
    assert made.files == ("model.onnx",)
    assert (tmp_path / "model.onnx").read_bytes() == fp32.path.read_bytes()
    assert made.inputs == fp32.inputs
    assert set(made.versions) == {"onnxruntime"}


def test_compile_refuses_another_format(fp32: Graph, tmp_path: Path) -> None:
    tflite = Graph(fp32.path, "tflite", "fp32", fp32.inputs, fp32.outputs)
    with pytest.raises(UnsupportedError):
        compile(tflite, TARGET, tmp_path)


def test_the_device_side_imports_without_torch() -> None:
    graphs.imports_without_torch("onnxruntime")


def computed(profile: Profile) -> dict[str, str]:
    """Layer of the model -> precision, of the kernels that multiply."""
    return {layer.layer: layer.precision for layer in profile.layers if layer.op in KERNELS}


def test_a_profile_names_the_models_layers(fp32: Graph, tmp_path: Path) -> None:
    feeds = {"input": graphs.images(1)}
    profile = session(fp32).profile(feeds, runs=5)
    assert computed(profile) == dict.fromkeys(("stem.0", "a", "b", "head"), "fp32")
    assert profile.reason == ""
    profile = session(graphs.int8_graph(fp32, tmp_path)).profile(feeds, runs=5)
    assert computed(profile) == dict.fromkeys(("stem.0", "a", "b", "head"), "int8")
    ops = [layer.op for layer in profile.layers]
    assert ops[0] == "QuantizeLinear", "in the order in which they run"
    assert ops[-1] == "QGemm", "which writes real numbers"
    assert {layer.precision for layer in profile.layers if layer.op.endswith("eLinear")} == {""}
    assert all(layer.time_ms is not None and layer.time_ms > 0 for layer in profile.layers)


def test_a_layer_that_was_left_in_float_is_seen(fp32: Graph, tmp_path: Path) -> None:
    mixed = graphs.mixed_graph(fp32, tmp_path, "/stem/stem.0/Conv")
    profile = Session({"m": mixed.read_bytes()}).profile({"input": graphs.images(1)}, runs=3)
    assert computed(profile) == {"stem.0": "fp32", "a": "int8", "b": "int8", "head": "int8"}


def test_what_ran_is_told_and_not_what_was_asked_for(fp32: Graph, tmp_path: Path) -> None:
    """ONNX Runtime quantizes float weights itself where what goes in and comes out is quantized."""
    mixed = graphs.mixed_graph(fp32, tmp_path, "/a/Conv")
    assert "a.weight" in {t.name for t in onnx.load(str(mixed)).graph.initializer}
    profile = Session({"m": mixed.read_bytes()}).profile({"input": graphs.images(1)}, runs=3)
    assert computed(profile)["a"] == "int8", "excluding one layer has an effect now: say so in docs"


def test_a_kernels_bytes_by_hand(fp32: Graph, tmp_path: Path) -> None:
    """A 3x3 convolution, 16 channels of 16x16 in and out, which no layout pads."""
    feeds = {"input": graphs.images(1)}
    (conv,) = (x for x in session(fp32).profile(feeds, runs=3).layers if x.layer == "a")
    values, weights = 2 * 16 * 16 * 16, 16 * 16 * 3 * 3
    assert conv.bytes == 4 * (values + weights + 16)
    run = session(graphs.int8_graph(fp32, tmp_path))
    (conv,) = (x for x in run.profile(feeds, runs=3).layers if x.layer == "a")
    # int32 bias; a float scale and a 1-byte zero point of input, output and each weight channel
    assert conv.bytes == values + weights + 4 * 16 + (4 + 1) * (1 + 1 + 16)


def test_a_profile_refuses_wrong_feeds_and_leaves_no_files(
    fp32: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EngineError):
        session(fp32).profile({"input": graphs.images(2)})
    session(fp32).profile({"input": graphs.images(1)}, runs=1)
    assert list(tmp_path.iterdir()) == []


def test_names_that_an_exporter_made_up_are_unknown() -> None:
    """As torch.export names things: a parameter's name is in the file, the scope is not."""
    weight = np.ones((8, 3, 3, 3), np.float32)
    weights = {"block.0.conv.weight": weight, "val_12": np.ones((8, 8, 3, 3), np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "block.0.conv.weight"], ["c"], "node_Conv_7"),
        helper.make_node("Relu", ["c"], ["relu"], "node_relu"),
        helper.make_node("Conv", ["relu", "val_12"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, 9, 9]), ("y", [1, 8, 5, 5]))
    ]
    constants = [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    run = Session({"m": model.SerializeToString()})
    profile = run.profile({"image": np.zeros((1, 3, 9, 9), np.float32)}, runs=2)
    assert [layer.layer for layer in profile.layers if layer.op in KERNELS] == ["block.0.conv", ""]


def test_the_reader_finds_what_onnx_finds(fp32: Graph, tmp_path: Path) -> None:
    for path in (fp32.path, graphs.int8_graph(fp32, tmp_path).path):
        model = onnx.load(str(path))
        found = wire.read(path.read_bytes())
        assert [(n.name, n.op, n.inputs, n.outputs) for n in found.nodes] == [
            (n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node
        ]
        assert {name: n.outputs[0] for name, n in found.makers.items()} == {
            name: n.output[0] for n in model.graph.node for name in n.output
        }
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        assert found.weights == {name: array.nbytes for name, array in arrays.items()}


def test_the_reader_refuses_what_is_no_message(fp32: Graph) -> None:
    content = fp32.path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"\xff" * 40, b"\x07"):
        with pytest.raises(ValueError):
            wire.read(damaged)


def one_bit_graph(folder: Path) -> Graph:
    """A float layer, two of one bit that pack through, and a float one."""
    torch = pytest.importorskip("torch")
    from torch import nn

    from edgecv.methods.binary.constants_for_export import frozen, one_bit
    from edgecv.methods.binary.modules import OneBit
    from edgecv.methods.export.onnx import export_onnx

    torch.manual_seed(0)
    layers = [OneBit(nn.Conv2d(16, 16, 3, padding=1), shortcut=False) for _ in range(2)]
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    module = frozen(net.eval())
    graph = export_onnx(module, torch.zeros(1, 3, 12, 12), folder)
    graph.facts["one_bit"] = one_bit(module)
    return graph


@pytest.mark.usefixtures("kernels")
def test_one_bit_layers_are_counted_and_that_is_told(tmp_path: Path) -> None:
    graph = one_bit_graph(tmp_path / "graph")
    made = compile(graph, TARGET, tmp_path / "out")
    assert made.counted == 2
    assert not made.notes
    lowered = (tmp_path / "out" / "model.onnx").read_bytes()
    net = Session({"model.onnx": lowered})
    assert net.executed() == {"binary": 2, "fp32": 2}
    x = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)
    layers = net.profile({"input": x}, runs=2).layers
    assert [layer.precision for layer in layers if layer.op.startswith("Binary")] == ["binary"] * 2
    (wanted,) = session(graph).run({"input": x}).values()
    (got,) = net.run({"input": x}).values()
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.usefixtures("kernels")
def test_without_kernels_the_same_answers_come_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    graph = one_bit_graph(tmp_path / "graph")
    compile(graph, TARGET, tmp_path / "out")
    lowered = (tmp_path / "out" / "model.onnx").read_bytes()
    x = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)
    (wanted,) = Session({"model.onnx": lowered}).run({"input": x}).values()
    from edgecv.binary import library

    library.library.cache_clear()
    monkeypatch.setenv("EDGECV_KERNELS", str(tmp_path / "none.so"))
    try:
        net = Session({"model.onnx": lowered})
        made = compile(graph, TARGET, tmp_path / "again")
    finally:
        library.library.cache_clear()
    assert "one-bit layers run in floats, slowly" in caplog.text
    assert net.executed() == {"fp32": 4}
    (got,) = net.run({"input": x}).values()
    np.testing.assert_array_equal(got, wanted)
    assert made.counted == 0
    assert "2 one-bit layers ran in floats here" in made.notes[0]
    assert (tmp_path / "again" / "model.onnx").read_bytes() == lowered


@pytest.mark.usefixtures("kernels")
def test_kernels_of_another_system_are_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile(one_bit_graph(tmp_path / "graph"), TARGET, tmp_path / "out")
    lowered = (tmp_path / "out" / "model.onnx").read_bytes()
    (tmp_path / "odd.so").write_bytes(b"not a library")
    monkeypatch.setenv("EDGECV_KERNELS", str(tmp_path / "odd.so"))
    with pytest.raises(MissingExtraError, match="binary kernels") as caught:
        Session({"model.onnx": lowered})
    assert "\n" not in str(caught.value)
    assert f"EDGECV_KERNELS names {tmp_path / 'odd.so'}: unset it" in str(caught.value)
