"""The ONNX Runtime session tells the truth about what it computes and in which precision."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx_graphs as graphs
import pytest

from edgecv.backends.onnxruntime.compile import compile
from edgecv.backends.onnxruntime.run import Session, probe
from edgecv.errors import EngineError, UnsupportedError
from edgecv.graph import Graph
from edgecv.target import Grid, Target

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


def test_a_call_costs_microseconds_over_the_bare_engine(fp32: Graph) -> None:
    run, feeds = session(fp32), {"input": graphs.images(1)}
    bare = run._session

    def best(call: object) -> float:
        times = []
        for _ in range(300):
            start = time.perf_counter()
            call()  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    best(lambda: run.run(feeds))
    assert best(lambda: run.run(feeds)) - best(lambda: bare.run(["logits"], feeds)) < 20e-6


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
