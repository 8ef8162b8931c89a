"""An engine's own kernels beside the same integers node by node: told, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import edgecv.bundling.parity as bundle_parity_module
from edgecv import fidelity, target
from edgecv.backends import compile_module, run_module
from edgecv.bundling.parity import _as_near, bundle_parity, lost
from edgecv.errors import ParityError
from edgecv.methods.export.onnx import export_onnx, load_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.runtime.fidelity import compare
from edgecv.runtime.preprocess import Preprocess
from edgecv.target import Grid
from tests import networks as nets


def at(sqnr_db: float) -> object:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(16, 5))
    noise = rng.normal(size=(16, 5))
    for _ in range(50):  # scaled until the measure says what is wanted
        found = compare(signal, signal + noise)
        noise *= 10 ** ((found.sqnr_db - sqnr_db) / 20)
    assert found.sqnr_db == pytest.approx(sqnr_db, abs=0.1)
    return found


@pytest.mark.parametrize(("graph", "bundle"), [(24, 23), (41, 36), (60, 40), (30, 24.5)])
def test_other_rounding_is_not_told(graph: float, bundle: float) -> None:
    assert list(lost("net", at(graph), at(bundle))) == []


@pytest.mark.parametrize(("graph", "bundle"), [(23.9, 17.5), (30, 21)])
def test_more_noise_is_told_with_both_figures(graph: float, bundle: float) -> None:
    (said,) = lost("net", at(graph), at(bundle))
    assert f"{bundle:.1f} dB from float" in said
    assert f"node by node {graph:.1f} dB" in said


@pytest.mark.parametrize(("graph", "bundle"), [(41, 17), (22, 14), (34, 20)])
def test_kernels_that_are_wrong_are_refused(graph: float, bundle: float) -> None:
    with pytest.raises(ParityError, match="the engine's kernels answer"):
        list(lost("net", at(graph), at(bundle)))


@pytest.mark.parametrize(("graph", "bundle", "near"), [(12, 11.5, True), (13.5, 12, False)])
def test_two_ways_of_rounding_are_both_judged_by_float(
    graph: float, bundle: float, near: bool
) -> None:
    assert _as_near(at(graph), at(bundle)) is near


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_layer_is_named_at_which_the_engine_leaves_the_graph(
    engine: str, tmp_path: Path
) -> None:
    """The bundle's file is another than the graph's in one layer, as a wrong kernel would be."""
    pytest.importorskip(engine)
    context = nets.context(tmp_path)
    module = nets.seeded(nets.PRUNABLE["residual"]).eval()
    shape = (1, 3, nets.SIZE, nets.SIZE)
    source = export_onnx(module, torch.zeros(shape), tmp_path / "fp32")
    pixels = nets.images().pixels
    samples = context.preprocess.normalise(pixels)
    graph = quantize_onnx(source, samples, Grid(reduce_range=True), tmp_path / "int8")
    (tmp_path / "other").mkdir()
    other = replace(graph, path=tmp_path / "other" / graph.path.name)
    model = onnx.load(str(graph.path))
    node = next(n for n in model.graph.node if n.name == "/stage2/stage2.0/conv2/Conv")
    scale = next(n for n in model.graph.node if n.output[0] == node.input[1]).input[1]
    (held,) = [t for t in model.graph.initializer if t.name == scale]
    wrong = numpy_helper.to_array(held) * np.float32(3)
    held.CopyFrom(numpy_helper.from_array(wrong, held.name))
    onnx.save(model, str(other.path))
    profile = target.load("openvino" if engine == "openvino" else "cpu")
    compiled = compile_module(engine).compile(other, profile, tmp_path / engine)
    files = {f: (tmp_path / engine / f).read_bytes() for f in compiled.files}
    session = run_module(engine).Session(files)
    with pytest.raises(ParityError, match=r"layer 'stage2\.0\.conv2'") as refused:
        bundle_parity("net", graph, source, profile, session, pixels, context.preprocess,
                      files=files)  # fmt: skip
    assert refused.value.hint.startswith("keep it in float: --keep-float stage2.0.conv2")


@pytest.mark.parametrize("well", [True, False])
def test_what_its_task_judged_is_judged_by_the_task_once_more(
    well: bool, monkeypatch, tmp_path: Path
) -> None:
    """Far from its graph by SQNR, as two ways of rounding may be."""
    context = nets.context(tmp_path)
    module = nets.seeded(nets.PRUNABLE["residual"]).eval()
    source = export_onnx(module, torch.zeros(1, 3, nets.SIZE, nets.SIZE), tmp_path / "fp32")
    pixels = nets.images().pixels
    samples = context.preprocess.normalise(pixels)
    graph = quantize_onnx(source, samples, Grid(reduce_range=True), tmp_path / "int8")
    session = run_module("onnxruntime").Session({"m.onnx": graph.path.read_bytes()})
    strict = fidelity.Tolerance(1000.0, 0.0)
    monkeypatch.setitem(fidelity.COMPILE, "int8", strict)
    monkeypatch.setattr(bundle_parity_module, "_as_near", lambda *_: False)
    asked = []

    def served(reference, own) -> bool:
        asked.append([a.shape for a in (*reference, *own)])
        return well

    def judge():
        return bundle_parity(
            "net", graph, source, target.load("cpu"), session, pixels, context.preprocess,
            served=served,
        )  # fmt: skip

    if well:
        assert judge()[0]["float"]["sqnr_db"] > 15
    else:
        with pytest.raises(ParityError, match="against at least 1000 dB"):
            judge()
    assert len(asked) == 1
    assert asked[0][0] == asked[0][1]


def test_a_float_layer_that_the_engine_computes_otherwise_is_named(tmp_path: Path) -> None:
    """OpenVINO's linear resize knows no antialiasing."""
    pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    held = {
        "w": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "scales": np.array([1, 1, 0.5, 0.5], np.float32),
        "head": rng.normal(0, 0.1, (4 * 8 * 8, 5)).astype(np.float32),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["image", "w"], ["a"], pads=[1] * 4, name="first"),
        onnx.helper.make_node(
            "Resize", ["a", "", "scales"], ["b"], mode="linear", antialias=1, name="smaller"
        ),
        onnx.helper.make_node("Flatten", ["b"], ["c"]),
        onnx.helper.make_node("MatMul", ["c", "head"], ["logits"], name="last"),
    ]
    kinds = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "net",
        [onnx.helper.make_tensor_value_info("image", kinds, [1, 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("logits", kinds, [1, 5])],
        [numpy_helper.from_array(v, k) for k, v in held.items()],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "n.onnx")
    source = load_onnx(tmp_path / "n.onnx", tmp_path / "graph")
    intel = target.load("openvino")
    compiled = compile_module("openvino").compile(source, intel, tmp_path / "engine")
    files = {name: (tmp_path / "engine" / name).read_bytes() for name in compiled.files}
    pixels = rng.integers(0, 256, (40, 16, 16, 3), np.uint8)
    takes = Preprocess((16, 16), 3, (127.0,), (64.0,), 1.0)
    session = run_module("openvino").Session(files, threads=1)
    with pytest.raises(ParityError, match=r"first at layer '[^']*smaller'") as said:
        bundle_parity("net", source, None, intel, session, pixels, takes, files=files)
    assert "say it with other operators" in said.value.hint
