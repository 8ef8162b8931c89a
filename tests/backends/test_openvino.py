"""OpenVINO computes what ONNX Runtime computes, from files that are the same every time."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgecv.backends.onnxruntime.run import Session as Reference
from edgecv.backends.openvino import LAYERS
from edgecv.backends.openvino.compile import compile
from edgecv.backends.openvino.profile import _measured
from edgecv.backends.openvino.run import Session, probe
from edgecv.errors import EngineError, UnsupportedError
from edgecv.graph import Graph
from edgecv.graphs.openvino.files import FILES
from edgecv.runtime.spec import Profile
from edgecv.target import Target
from tests.backends import onnx_graphs as graphs

TARGET = Target(name="t", backend="openvino", graph="onnx")


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return graphs.float_graph(tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8(fp32: Graph, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return graphs.int8_graph(fp32, tmp_path_factory.mktemp("int8"))


def files(graph: Graph, out: Path) -> dict[str, bytes]:
    compile(graph, TARGET, out)
    return {name: (out / name).read_bytes() for name in FILES}


def test_probe_names_the_installed_version() -> None:
    found = probe()
    assert found.available
    assert found.version is not None
    assert found.version.split(".")[0].isdigit()


def test_numbers_that_can_be_checked_on_paper(tmp_path: Path) -> None:
    run = Session(files(graphs.by_hand(tmp_path / "graph"), tmp_path))
    outputs = run.run({"input": graphs.BY_HAND_INPUT})
    np.testing.assert_allclose(outputs["logits"], graphs.BY_HAND_LOGITS, atol=1e-6)


def test_float_means_float32_and_not_bf16(fp32: Graph, tmp_path: Path) -> None:
    run, feeds = Session(files(fp32, tmp_path)), {"input": graphs.images(1)}
    assert run.executed() == {"fp32": graphs.LAYERS}
    expected = Reference({"m": fp32.path.read_bytes()}).run(feeds)["logits"]
    np.testing.assert_allclose(run.run(feeds)["logits"], expected, atol=1e-5)


def test_an_int8_graph_runs_in_int8(int8: Graph, tmp_path: Path) -> None:
    run, feeds = Session(files(int8, tmp_path)), {"input": graphs.images(1)}
    assert run.executed() == {"int8": graphs.LAYERS}
    expected = Reference({"m": int8.path.read_bytes()}).run(feeds)["logits"]
    assert np.abs(run.run(feeds)["logits"] - expected).max() < 0.05 * np.ptp(expected)


def test_names_and_shapes_are_the_graphs(int8: Graph, tmp_path: Path) -> None:
    made = compile(int8, TARGET, tmp_path)
    assert made.files == FILES
    assert made.inputs == int8.inputs
    assert made.outputs == int8.outputs


def test_results_are_fresh_arrays(fp32: Graph, tmp_path: Path) -> None:
    run = Session(files(fp32, tmp_path))
    first = run.run({"input": graphs.images(1, seed=1)})["logits"]
    kept = first.copy()
    again = run.run({"input": graphs.images(1, seed=2)})["logits"]
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, again)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"wrong": graphs.images(1)},
        {"input": graphs.images(1)[:, :1]},
        {"input": graphs.images(1).astype(np.float64)},
        {"input": graphs.images(1), "more": graphs.images(1)},
    ],
    ids=["nothing", "name", "shape that broadcasts", "dtype", "too many"],
)
def test_wrong_feeds_are_refused(fp32: Graph, tmp_path: Path, feeds: dict[str, np.ndarray]) -> None:
    with pytest.raises(EngineError, match="it takes input float32"):
        Session(files(fp32, tmp_path)).run(feeds)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused(fp32: Graph, tmp_path: Path, name: str) -> None:
    whole = files(fp32, tmp_path)
    with pytest.raises(EngineError) as caught:
        Session({**whole, name: whole[name][:100]})
    assert "\n" not in str(caught.value)


def test_two_processes_write_the_same_bytes(int8: Graph, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from edgecv.graph import Graph\n"
        "from edgecv.target import Target\n"
        "from edgecv.backends.openvino.compile import compile\n"
        f"graph = Graph.load(Path({str(int8.path.parent)!r}))\n"
        "target = Target(name='t', backend='openvino', graph='onnx')\n"
        f"compile(graph, target, Path({str(tmp_path / 'other')!r}))"
    )
    graphs.python(code, PYTHONHASHSEED="7")
    mine = files(int8, tmp_path / "mine")
    assert mine == {name: (tmp_path / "other" / name).read_bytes() for name in FILES}
    assert str(tmp_path).encode() not in mine["model.xml"]
    assert b"conversion_parameters" not in mine["model.xml"]


def test_the_converter_reports_to_nobody(
    fp32: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It forks a process for that and waits for it, and that one may hang."""
    from openvino.tools.ovc import convert_impl, telemetry_utils, utils

    asked: list[object] = []
    for module in (convert_impl, telemetry_utils, utils):
        monkeypatch.setattr(module, "tm", SimpleNamespace(Telemetry=asked.append))
    files(fp32, tmp_path)
    assert not asked


def test_compile_refuses_another_format(fp32: Graph, tmp_path: Path) -> None:
    tflite = Graph(fp32.path, "tflite", "fp32", fp32.inputs, fp32.outputs)
    with pytest.raises(UnsupportedError):
        compile(tflite, TARGET, tmp_path)


def test_a_node_that_openvino_cannot_read_is_named(fp32: Graph, tmp_path: Path) -> None:
    model = onnx.load(str(fp32.path))
    first = model.graph.node[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1] * 2), "pads"))
    rolled = helper.make_node(
        "Pad", [model.graph.input[0].name, "pads"], ["r"], "roll", mode="wrap"
    )
    first.input[0] = "r"
    model.graph.node.insert(0, rolled)
    onnx.save(model, str(tmp_path / "model.onnx"))
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    with pytest.raises(UnsupportedError, match=r"cannot read node 'roll' \(Pad\)") as refused:
        compile(replace(fp32, path=tmp_path / "model.onnx"), TARGET, tmp_path / "out")
    assert ".cpp" not in str(refused.value)
    assert (root.level, root.filters, root.handlers) == before  # the converter changes them


def test_the_device_side_imports_without_torch() -> None:
    graphs.imports_without_torch("openvino")


def computed(profile: Profile) -> dict[str, str]:
    """Layer of the model -> precision, of the steps that multiply."""
    return {x.layer: x.precision for x in profile.layers if x.op.split()[0] in LAYERS}


def profiled(graph: Graph, out: Path) -> Profile:
    return Session(files(graph, out)).profile({"input": graphs.images(1)}, runs=5)


def test_a_profile_names_the_models_layers(fp32: Graph, int8: Graph, tmp_path: Path) -> None:
    names = ("stem.0", "a", "b", "head")
    for graph in (fp32, int8):
        profile = profiled(graph, tmp_path / graph.precision)
        assert computed(profile) == dict.fromkeys(names, graph.precision)
        assert profile.reason == ""
        places = [x.layer for x in profile.layers if x.layer in names]
        assert places == list(names), "in the order in which they run"
        assert sum(x.time_ms or 0 for x in profile.layers) > 0


def test_a_layer_that_was_left_in_float_is_seen(fp32: Graph, tmp_path: Path) -> None:
    path = graphs.mixed_graph(fp32, tmp_path / "graph", "/stem/stem.0/Conv")
    mixed = Graph(path, "onnx", "int8", fp32.inputs, fp32.outputs)
    found = computed(profiled(mixed, tmp_path))
    assert found == {"stem.0": "fp32", "a": "int8", "b": "int8", "head": "int8"}


def test_a_steps_bytes_by_hand(fp32: Graph, int8: Graph, tmp_path: Path) -> None:
    """A 3x3 convolution, 16 channels of 16x16 in and out, float bias."""
    values, weights = 2 * 16 * 16 * 16, 16 * 16 * 3 * 3
    (conv,) = (x for x in profiled(fp32, tmp_path / "f").layers if x.layer == "a")
    assert conv.bytes == 4 * (values + weights + 16)
    (conv,) = (x for x in profiled(int8, tmp_path / "q").layers if x.layer == "a")
    assert conv.bytes == values + weights + 4 * 16


def test_a_profile_refuses_wrong_feeds(fp32: Graph, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="it takes input float32"):
        Session(files(fp32, tmp_path)).profile({"input": graphs.images(2)})


class Counter:
    """An infer request as its counter shows it: the mean of all calls, cut to microseconds."""

    def __init__(self, calls_us: list[int]) -> None:
        self._calls, self._done = calls_us, 0

    def infer(self, _: object) -> None:
        self._done += 1

    @property
    def profiling_info(self) -> list[SimpleNamespace]:
        mean = sum(self._calls[: self._done]) // self._done
        return [SimpleNamespace(node_name="conv", real_time=timedelta(microseconds=mean))]


@pytest.mark.parametrize("steady", [0, 3, 47, 2000])
def test_slow_first_calls_are_not_in_the_time(steady: int) -> None:
    """The mean over all 25 calls would be 23 microseconds more."""
    calls = [500, 40, 20, 10, 5, *[steady] * 20]
    assert _measured(Counter(calls), {}, runs=20)["conv"] == pytest.approx(steady, abs=0.8)
