"""Scores that are nearly nothing: what a sigmoid's kernel rounds is no fault of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv import fidelity, target
from edgecv.backends import compile_module, run_module
from edgecv.bundling.parity import bundle_parity, lost
from edgecv.errors import ParityError
from edgecv.graphs.onnx.bounded import bounded
from edgecv.methods.export._proof import NEAR, _far
from edgecv.methods.export.onnx import load_onnx
from edgecv.runtime.fidelity import compare
from edgecv.runtime.preprocess import Preprocess

RNG = np.random.default_rng(0)
TINY = RNG.uniform(0, 1e-6, (8, 1, 6, 6))  # a detector's map on images of nothing
BOUNDS = {"map": 1.0}


def net(last: str, shift: float, path: Path) -> Path:
    """A convolution far below zero, then `last`, then a Reshape."""
    weight = numpy_helper.from_array(RNG.normal(0, 0.1, (2, 3, 3, 3)).astype("f4"), "w")
    bias = numpy_helper.from_array(np.full(2, shift, "f4"), "b")
    shape = numpy_helper.from_array(np.array([1, 2, 36], np.int64), "shape")
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"]),
        helper.make_node(last, ["y"], ["z"]),
        helper.make_node("Reshape", ["z", "shape"], ["map"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 2, 36])],
        [weight, bias, shape],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("last", "found"), [("Sigmoid", BOUNDS), ("Tanh", BOUNDS), ("Relu", {})])
def test_the_operator_says_how_large_an_output_can_be(
    last: str, found: dict[str, float], tmp_path: Path
) -> None:
    path = net(last, -1.0, tmp_path / "net.onnx")
    assert bounded(onnx.load(path).graph) == found
    assert load_onnx(path, tmp_path / "graph").bounds == found


def test_a_rewrite_is_not_blamed_for_it() -> None:
    """Two ways to say a sigmoid's argument, apart by one rounding: 3e-5 of a score of 0.002."""
    score = np.full((1, 8), 0.002)
    assert _far(score, score + 6e-8) > NEAR
    assert _far(score, score + 6e-8, 1.0) == 0.0
    assert _far(score, score + 6e-6, 1.0) > NEAR


def test_rounding_of_a_known_range_is_no_fault() -> None:
    rounded = TINY + RNG.uniform(-5e-7, 5e-7, TINY.shape)
    with pytest.raises(ParityError, match="broke the network"):
        fidelity.check("step", TINY, rounded, fidelity.EXPORT, {"map": "values"})
    found = fidelity.check("step", TINY, rounded, fidelity.EXPORT, {"map": "values"}, bounds=BOUNDS)
    assert found.sqnr_db < 10  # what is told stays what it is
    with pytest.raises(ParityError, match="broke the network"):
        fidelity.check("step", TINY, TINY + 1e-5, fidelity.EXPORT, {"map": "values"}, bounds=BOUNDS)


def test_of_several_outputs_each_has_its_own_range() -> None:
    rounded = TINY + RNG.uniform(-5e-7, 5e-7, TINY.shape)
    both = {"map": "values", "boxes": "values"}
    fidelity.check("step", [TINY, TINY], [rounded, TINY], fidelity.EXPORT, both, bounds=BOUNDS)
    with pytest.raises(ParityError, match="output 'boxes'"):
        fidelity.check(
            "step", [TINY, TINY], [rounded, rounded], fidelity.EXPORT, both, bounds=BOUNDS
        )


def test_integers_may_lose_scores_of_less_than_half_a_step() -> None:
    graph, bundle = compare(TINY, TINY), compare(TINY, TINY * 0)
    assert list(lost("net", graph, bundle, BOUNDS)) == []
    with pytest.raises(ParityError):
        list(lost("net", graph, bundle))
    with pytest.raises(ParityError):
        list(lost("net", graph, compare(TINY, TINY + 0.01), BOUNDS))


def test_a_detector_that_finds_nothing_is_compiled(tmp_path: Path) -> None:
    """Two engines' sigmoids of -14 are 20 dB apart, and both right to a rounding of 1."""
    graph = load_onnx(net("Sigmoid", -14.0, tmp_path / "net.onnx"), tmp_path / "graph")
    profile = target.load("openvino")
    pytest.importorskip("openvino")
    compiled = compile_module("openvino").compile(graph, profile, tmp_path / "engine")
    files = {n: (tmp_path / "engine" / n).read_bytes() for n in compiled.files}
    session = run_module("openvino").Session(files, threads=1)
    pixels = RNG.integers(0, 256, (8, 8, 8, 3), np.uint8)
    preprocess = Preprocess((8, 8), 3, (0.0,), (255.0,))
    found, _, _ = bundle_parity("net", graph, None, profile, session, pixels, preprocess)
    del graph.facts["bounds"]
    with pytest.raises(ParityError):
        bundle_parity("net", graph, None, profile, session, pixels, preprocess)
    session.close()
    assert found["compiled"]["max_abs_error"] <= fidelity.KERNEL_ROUNDING
