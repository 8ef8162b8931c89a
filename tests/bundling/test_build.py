"""A bundle says what ran: precision read back, parity with the graph, accuracy, golden outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from edgecv import target  # noqa: E402
from edgecv.backends import Compiled  # noqa: E402
from edgecv.bundling import build  # noqa: E402
from edgecv.bundling.goldens import COUNTS, LEAST, SHARE  # noqa: E402
from edgecv.bundling.inference import graph_outputs  # noqa: E402
from edgecv.context import Context  # noqa: E402
from edgecv.errors import BundleError, ParityError  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.runtime.archive import read_bundle  # noqa: E402
from edgecv.runtime.verify import verify  # noqa: E402
from edgecv.target import Grid  # noqa: E402
from tests import networks as nets  # noqa: E402


@dataclass(frozen=True)
class Made:
    """Graphs of one network, and the images they were made with."""

    root: Path
    context: Context
    fp32: Graph

    def int8(self, name: str, grid: Grid) -> Graph:
        pixels = self.context.images("train").pixels
        calibration = self.context.preprocess.normalise(pixels)
        graph = quantize_onnx(self.fp32, calibration, grid, self.root / name)
        graph.save_facts()
        return graph

    def job(self, graph: Graph, out: Path, **changes) -> dict:
        return {
            "graph": str(graph.path.parent),
            "floats": None if graph.precision == "fp32" else str(self.fp32.path.parent),
            "target": target.load("cpu").model_dump(mode="json"),
            "preprocess": self.context.preprocess.to_json(),
            "labels": list("abcd"),
            "images": str(self.root / "train"),
            "judged": str(self.root / "test"),
            "test": str(self.root / "test"),
            "test_digest": "images-1",
            "name": "small.cpu",
            "made_from": "0" * 32,
            "out": str(out),
            **changes,
        }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("packing")
    context = nets.context(root)
    for split in ("train", "test"):
        context.images(split).save(root / split)
    module = nets.seeded(nets.PRUNABLE["residual"]).eval()
    graph = export_onnx(module, torch.zeros(1, 3, nets.SIZE, nets.SIZE), root / "fp32")
    graph.save_facts()
    return Made(root, context, graph)


@pytest.fixture(scope="module")
def int8(made: Made) -> Graph:
    return made.int8("int8", target.load("cpu").grid)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_tells_what_was_measured(
    precision: str, made: Made, int8: Graph, tmp_path: Path
) -> None:
    graph = int8 if precision == "int8" else made.fp32
    facts = build.work(made.job(graph, tmp_path))
    path = tmp_path / facts["bundle"]
    manifest = read_bundle(path).manifest
    assert facts["bundle"] == "small.cpu.edgecv"
    assert facts["size_bytes"] == path.stat().st_size
    assert set(facts["executed"]) == {precision}
    assert manifest["precision"] == precision
    assert manifest["labels"] == list("abcd")
    assert manifest["recipe_digest"] == "0" * 32
    assert manifest["executed"] == facts["executed"]
    assert facts["parity"]["compiled"]["sqnr_db"] > (50 if precision == "fp32" else 15)
    assert verify(path).ok
    assert 1 <= len(read_bundle(path).golden_inputs[manifest["input"]["name"]]) <= max(COUNTS)
    beside = facts["size_bytes"] - facts["engine_bytes"]
    assert beside <= max(SHARE * facts["engine_bytes"], LEAST)


def test_accuracy_is_over_the_whole_test_set_by_the_bundle_itself(
    made: Made, tmp_path: Path
) -> None:
    metric = build.work(made.job(made.fp32, tmp_path))["metric"]
    test = made.context.images("test")
    best = graph_outputs(made.fp32, test.pixels, made.context.preprocess).argmax(1)
    value = float((best == test.labels).mean())
    assert metric == {"name": "top1", "value": value, "samples": 20, "images": "images-1"}
    bundle = read_bundle(next(tmp_path.glob("**/*.edgecv")))
    assert np.array_equal(bundle.correct, best == test.labels)
    assert np.array_equal(np.load(tmp_path / "predictions.npy"), best)


def test_integers_that_came_so_are_not_called_float(
    made: Made, int8: Graph, tmp_path: Path
) -> None:
    """A file with Q/DQ nodes is its own source: what it costs against float nobody knows."""
    quantized = build.work(made.job(int8, tmp_path / "a", floats=int8.path.parent))
    assert quantized["parity"]["float"] is None
    assert quantized["parity"]["compiled"]["sqnr_db"] > 15
    ours = build.work(made.job(int8, tmp_path / "b", floats=made.fp32.path.parent))
    assert 10 < ours["parity"]["float"]["sqnr_db"] < 80


def test_the_same_job_gives_the_same_bytes(made: Made, int8: Graph, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build.work(made.job(int8, tmp_path / name))
    a, b = (tmp_path / name / "small.cpu.edgecv" for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


def test_images_without_labels_tell_nothing_of_accuracy(made: Made, tmp_path: Path) -> None:
    facts = build.work(made.job(made.fp32, tmp_path, test=None, labels=None))
    assert facts["metric"] is None
    assert read_bundle(tmp_path / facts["bundle"]).manifest["labels"] is None


def test_int8_that_ran_in_float_is_refused(made: Made, tmp_path: Path) -> None:
    graph = made.int8("s8s8", Grid(activations="int8", symmetric=True))
    with pytest.raises(
        ParityError, match=r"asked for int8, but of \d+ compute layers .* in fp32"
    ) as refused:
        build.work(made.job(graph, tmp_path))
    assert "(Conv)" in refused.value.what  # which of them
    assert "--keep-float" in refused.value.hint
    assert not list(tmp_path.glob("*.edgecv"))


def test_a_float_graph_that_is_called_int8_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    path = tmp_path / "graph" / made.fp32.path.name
    path.write_bytes(made.fp32.path.read_bytes())
    liar = replace(made.fp32, path=path, precision="int8")
    liar.save_facts()
    with pytest.raises(ParityError, match="asked for int8"):
        build.work(made.job(liar, tmp_path / "out"))


def test_another_count_of_labels_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="3 labels for 4 classes"):
        build.work(made.job(made.fp32, tmp_path, labels=["a", "b", "c"]))
    assert not list(tmp_path.glob("*.edgecv"))


@pytest.mark.parametrize(
    ("outputs", "scores"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], "probabilities"),
        ([[0.2, 0.9], [1.0, 0.0]], "logits"),
        ([[-0.5, 1.5], [1.0, 0.0]], "logits"),
    ],
)
def test_probabilities_are_told_from_logits(outputs: list, scores: str) -> None:
    assert build.scores_of(np.array(outputs)) == scores


def test_a_claim_of_counting_that_the_engine_did_not_do_is_an_error() -> None:
    made = Compiled(("model.onnx",), (), (), counted=6)
    build._assert_counted("here", made, {"binary": 6, "fp32": 4})
    with pytest.raises(ParityError, match="of 6 one-bit layers the engine ran 5"):
        build._assert_counted("here", made, {"binary": 5, "fp32": 5})
