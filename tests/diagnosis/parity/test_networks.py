"""Healthy bundles agree; broken exports are named: the step, the layer, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import broken_exports as broken
from edgecv.errors import DataError, ModelError
from edgecv.runtime.archive import read_bundle
from tests.diagnosis.parity.conftest import MEAN, STD, Made, wrong

ALL = ["fp32.cpu", "fp32.openvino", "fp32.tflite", "int8.cpu", "int8.tflite"]


def graph(made: Made, name: str) -> bytes:
    return next(iter(read_bundle(made[name]).files.values()))


@pytest.mark.parametrize("name", ALL)
def test_a_healthy_bundle_agrees(name: str, made: Made, climb: Callable) -> None:
    data = climb(made[name], made.model, 32)
    assert data["agrees"], [r["finding"] for r in data["rungs"]]
    steps = [r["step"] for r in data["rungs"]]
    made_by = "quantize" if name.startswith("int8") else "export"
    middle = [] if "openvino" in name else [made_by]
    assert steps == ["preprocessing", *middle, "compile", "runtime"]
    roles = {a["role"]: a["top1"] for a in data["accuracy"]}
    assert roles["float"] == 1.0  # the labels are what the float network says
    assert roles["measured"] > 0.8
    assert ("simulated" in roles) == name.startswith("int8")


@pytest.mark.parametrize("name", ["fp32.cpu", "int8.cpu", "fp32.openvino"])
def test_a_wrong_layout(name: str, made: Made, climb: Callable, tmp_path: Path) -> None:
    out = tmp_path / "layout.edgecv"
    if "openvino" in name:
        files = broken.openvino_files(broken.onnx_layout(graph(made, "fp32.cpu")))
        bundle = broken.rewritten(made[name], out, files)
    else:
        bundle = broken.edited(made[name], out, broken.onnx_layout)
    data = climb(bundle, made.model)
    rung = wrong(data)
    assert rung["step"] == {"fp32.cpu": "export", "int8.cpu": "quantize"}.get(name, "compile")
    assert (rung["finding"]["kind"], rung["finding"]["layer"]) == ("layout", "input")
    assert "once the image is transposed NCHW→NHWC" in rung["finding"]["cause"]
    assert data["rungs"][0]["agrees"]


@pytest.mark.parametrize("name", ["fp32.tflite", "int8.tflite"])
def test_height_and_width_exchanged(name: str, made: Made, climb: Callable, tmp_path: Path) -> None:
    bundle = broken.edited(made[name], tmp_path / "turned.edgecv", broken.tflite_turned)
    finding = wrong(climb(bundle, made.model))["finding"]
    assert finding["kind"] == "orientation"
    assert "height and width are exchanged" in finding["cause"]


@pytest.mark.parametrize("name", ALL)
def test_a_wrong_mean_and_std(name: str, made: Made, climb: Callable, tmp_path: Path) -> None:
    bundle = broken.wrong_normalisation(made[name], tmp_path / "norm.edgecv")
    data = climb(bundle, made.model)
    rung = wrong(data)
    assert rung["step"] == "preprocessing"
    assert rung["finding"]["fields"] == {"mean": [broken.MEAN, MEAN], "std": [broken.STD, STD]}
    assert "once normalised with the reference's mean 110, 120, 130" in rung["finding"]["cause"]
    assert all(r["agrees"] for r in data["rungs"][1:])  # the graphs are innocent


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("crop_pct", 0.8, "crop_pct 0.8 where the reference has 1"),
        ("interpolation", "nearest", "interpolation nearest where the reference has bicubic"),
    ],
)
def test_another_crop_or_resampling(
    field: str, value: object, words: str, made: Made, climb: Callable, tmp_path: Path
) -> None:
    bundle = broken.rewritten(
        made["fp32.cpu"], tmp_path / "geometry.edgecv", preprocess={field: value}
    )
    rung = wrong(climb(bundle, made.model))
    assert rung["step"] == "preprocessing"
    assert words in rung["finding"]["cause"]


def test_a_graph_that_normalises_once_more(made: Made, climb: Callable, tmp_path: Path) -> None:
    bundle = broken.edited(
        made["fp32.cpu"], tmp_path / "twice.edgecv",
        lambda content: broken.onnx_normalising(content, MEAN, STD),
    )  # fmt: skip
    finding = wrong(climb(bundle, made.model))["finding"]
    assert (finding["kind"], finding["layer"]) == ("scale", "input")
    assert "once the image is left as 0..255 pixels, not normalised" in finding["cause"]


def test_weights_are_compared_behind_a_fused_activation(
    made: Made, climb: Callable, tmp_path: Path
) -> None:
    """int8 ONNX has its ReLU in the convolution, the float file one of its own."""
    content, layer = broken.onnx_corrupted(graph(made, "int8.cpu"), 0)
    bundle = broken.edited(made["int8.cpu"], tmp_path / "stem.edgecv", lambda _: content)
    finding = wrong(climb(bundle, made["fp32.cpu"]))["finding"]
    assert (finding["layer"], finding["kind"]) == (layer, "weights")


EACH = [(name, i) for name in ("fp32.cpu", "int8.cpu", "fp32.tflite") for i in range(5)]


@pytest.mark.parametrize(("name", "index"), [*EACH, ("fp32.openvino", 2), ("int8.tflite", 1)])
def test_one_corrupted_layer(
    name: str, index: int, made: Made, climb: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "corrupted.edgecv"
    if "tflite" in name:
        content, layer = broken.tflite_corrupted(graph(made, name), index)
        bundle = broken.edited(made[name], out, lambda _: content)
    else:
        source = "fp32.cpu" if "openvino" in name else name
        content, layer = broken.onnx_corrupted(graph(made, source), index)
        files = broken.openvino_files(content) if "openvino" in name else {"model.onnx": content}
        bundle = broken.rewritten(made[name], out, files)
    data = climb(bundle, made.model)
    if data["agrees"]:  # a layer that matters little: int8 passes, and its weakest layer is noted
        assert name.startswith("int8")
        assert any(layer in note and "weights differ" in note for note in data["notes"])
        return
    finding = wrong(data)["finding"]
    assert (finding["layer"], finding["kind"]) == (layer, "weights")
    assert "of 16 output channels" in finding["cause"] or "of 32 output" in finding["cause"]


def test_numbers_that_are_not_finite_are_a_difference(
    made: Made, climb: Callable, tmp_path: Path
) -> None:
    import onnx

    def poison(content: bytes) -> bytes:
        model = onnx.load_model_from_string(content)
        weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0, 0, 0, 0] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return bytes(model.SerializeToString())

    bundle = broken.edited(made["fp32.cpu"], tmp_path / "nan.edgecv", poison)
    data = climb(bundle, made.model)
    assert not data["agrees"]
    assert wrong(data)["finding"]["kind"] == "weights"


@pytest.mark.parametrize("name", ["fp32.cpu", "int8.cpu"])
def test_an_attribute_that_differs(name: str, made: Made, climb: Callable, tmp_path: Path) -> None:
    import onnx

    def shifted(content: bytes) -> bytes:
        model = onnx.load_model_from_string(content)
        conv = [n for n in model.graph.node if n.op_type == "Conv"][1]
        next(a for a in conv.attribute if a.name == "pads").ints[:] = [2, 2, 0, 0]
        return bytes(model.SerializeToString())

    bundle = broken.edited(made[name], tmp_path / "pads.edgecv", shifted)
    data = climb(bundle, made["fp32.cpu"])
    said = data["notes"][-1] if data["agrees"] else wrong(data)["finding"]["cause"]
    assert "pads [2, 2, 0, 0] where the reference has [1, 1, 1, 1]" in said
    if name == "fp32.cpu":
        assert wrong(data)["finding"]["kind"] == "attributes"
        assert wrong(data)["finding"]["inputs_db"] > 80


def test_another_bundle_or_file_is_a_reference_too(
    made: Made, climb: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(graph(made, "fp32.cpu"))
    assert climb(made["int8.cpu"], path)["agrees"]
    assert climb(made["int8.tflite"], path)["agrees"]  # layers matched across formats
    assert climb(made["fp32.openvino"], made["fp32.tflite"])["agrees"]
    notes = climb(made["int8.cpu"], path)["notes"]
    assert any("does not say how it normalises" in n for n in notes)


def test_nothing_to_compare_with_is_bad_input(made: Made) -> None:
    from edgecv.diagnosis.parity import compare as climbing

    job = {"bundle": str(made["int8.cpu"]), "against": None, "images": None, "samples": None}
    with pytest.raises(DataError, match=r"what it was made from is not here.*--against"):
        climbing.work(job)


def test_another_network_is_bad_input(made: Made, climb: Callable, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgecv.methods.export.onnx import export_onnx
    from tests import networks as nets

    other = nets.seeded(nets.PRUNABLE["residual"]).eval()
    export_onnx(other, torch.zeros(1, 3, 24, 24), tmp_path)
    with pytest.raises(ModelError, match="these are different networks"):
        climb(made["fp32.cpu"], tmp_path / "model.onnx")
    export_onnx(other, torch.zeros(1, 3, 16, 16), tmp_path / "small")
    with pytest.raises(DataError, match=r"takes \(1, 3, 16, 16\)"):
        climb(made["fp32.cpu"], tmp_path / "small" / "model.onnx")
