"""Reconstruction brings the integer network closer to its float self, or leaves it as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgecv import cores
from edgecv.backends.onnxruntime.run import Session as OrtSession
from edgecv.backends.tflite.run import Session as LiteRtSession
from edgecv.errors import DataError
from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.target import Grid
from tests.backends.tflite_graphs import GRID, float_graph, images, net

SEEN, UNSEEN = images(96)[:80], images(96)[80:]


def turned(batch: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


def lively() -> torch.nn.Module:
    """The residual net with answers that differ from image to image."""
    module = net()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight *= 2
        module.head.weight *= 5
    return module


@pytest.fixture(scope="module")
def onnx_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return export_onnx(lively(), torch.zeros(1, 3, 24, 24), tmp_path_factory.mktemp("float"))


def sqnr_db(graph: Graph, batch: np.ndarray) -> float:
    with torch.no_grad():
        want = lively()(torch.from_numpy(turned(batch))).numpy()
    session = OrtSession({"m": graph.path.read_bytes()})
    got = np.concatenate([session.run({"input": x[None]})["logits"] for x in turned(batch)])
    return float(10 * np.log10(np.square(want).sum() / np.square(want - got).sum()))


def test_coarse_weights_come_closer_on_images_that_were_not_seen(
    onnx_graph: Graph, tmp_path: Path
) -> None:
    start = Options(rounding="nearest", weight_bits=4)
    plain = quantize_onnx(onnx_graph, turned(SEEN), Grid(), tmp_path / "a", start)
    better = replace(start, reconstruction="network")
    tuned = quantize_onnx(onnx_graph, turned(SEEN), Grid(), tmp_path / "b", better)
    facts = tuned.facts["reconstruction"]
    assert facts["after_db"] > facts["before_db"] + 0.4
    assert facts["images"] == 72
    assert sqnr_db(tuned, UNSEEN) > sqnr_db(plain, UNSEEN) + 0.2
    # The simulation's figures are the engine's own, on the images that were held back.
    assert facts["before_db"] == pytest.approx(sqnr_db(plain, SEEN[5::10]), abs=1)
    assert facts["after_db"] == pytest.approx(sqnr_db(tuned, SEEN[5::10]), abs=1)
    assert OrtSession({"m": tuned.path.read_bytes()}).executed() == {"int8": 6}


def test_tflite_the_same(tmp_path: Path) -> None:
    start = Options(rounding="nearest", weight_bits=4)
    made = {}
    for way in ("none", "network"):
        options = replace(start, reconstruction=way)
        graph = quantize_tflite(float_graph(), SEEN, GRID, "float32", tmp_path / way, options)
        session = LiteRtSession({"m": graph.path.read_bytes()})
        (entry,) = session.inputs
        got = [session.run({entry.name: x[None]})["logits"] for x in UNSEEN]
        with torch.no_grad():
            want = net()(torch.from_numpy(turned(UNSEEN))).numpy()
        made[way] = float(np.square(want - np.concatenate(got)).mean())
    facts = graph.facts["reconstruction"]
    assert facts["after_db"] > facts["before_db"] + 0.4
    assert made["network"] < made["none"]
    assert graph.facts["executed"] == {"int8": 5, "fp32": 1}


def test_the_same_bytes_on_two_cores(onnx_graph: Graph, tmp_path: Path) -> None:
    options, files = Options(reconstruction="network"), []
    for count in (1, 2):
        with cores.free(count):
            out = tmp_path / str(count)
            made = quantize_onnx(onnx_graph, turned(SEEN[:24]), Grid(), out, options)
        files.append(made.path.read_bytes())
    assert files[0] == files[1]


def test_too_few_images_are_refused(onnx_graph: Graph, tmp_path: Path) -> None:
    options = Options(reconstruction="network")
    with pytest.raises(DataError, match="12 images are too few"):
        quantize_onnx(onnx_graph, turned(SEEN[:12]), Grid(), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
