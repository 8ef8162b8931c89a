"""What `export` calls its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgecv.errors import RecipeError, TargetError, UnsupportedError
from edgecv.quick_export import Request, file_name
from edgecv.quick_export.recipe import cleaned, recipe_of
from edgecv.quick_export.task import check_task, task_for
from edgecv.stages.export import Export
from tests.runtime.conftest import make_bundle

__all__ = ["make_bundle"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("plain-file_1.0", "plain-file_1.0"),
        ("my model (1)", "my-model-1"),
        ("été", "ete"),
        ("ＮＥＴ", "NET"),
        ("..hidden", "hidden"),
        ("-rf *", "rf"),
        ("a\nb", "a-b"),
        ("x" * 300, "x" * 100),
    ],
)
def test_a_derived_name_is_cleaned(name: str, told: str) -> None:
    assert cleaned(name) == told
    assert Export(name=told).name == told


def test_of_two_names_without_a_letter_none_is_lost() -> None:
    first, second = cleaned("模型"), cleaned("网络")
    assert first != second
    for name in (first, second, cleaned(""), cleaned("\udcff")):
        assert Export(name=name).name.startswith("model-")


def named(path: Path, target: str, name: str | None = "net") -> str:
    recipe = SimpleNamespace(name="net-fp32", targets=[SimpleNamespace(name=target)])
    return file_name(Request("net.onnx", (target,), name=name), recipe, target, path.parent)


def test_a_second_target_does_not_overwrite_the_first(make_bundle: Callable[..., Path]) -> None:
    path = make_bundle(file="net", target="cpu")
    assert named(path, "cpu") == "net"
    assert named(path, "openvino") == "net.openvino"
    assert named(path, "openvino", None) == "net-fp32.openvino"
    path.write_bytes(b"something else of the user's")
    assert named(path, "cpu") == "net.cpu"
    path.unlink()
    assert named(path, "openvino") == "net"


def test_layers_stay_float_by_name_where_int8_is_asked_for(tmp_path: Path) -> None:
    kept = Request("resnet8", ("cpu",), "int8", calibration=tmp_path, keep_float=("stem", "head"))
    (step,) = recipe_of(kept).steps
    assert step.stage.keep_float == ("stem", "head")
    with pytest.raises(RecipeError, match="float") as refused:
        recipe_of(Request("resnet8", ("cpu",), "fp32", keep_float=("stem",)))
    assert refused.value.where == "--keep-float"


def test_the_quantizer_is_chosen_by_name_where_the_target_has_it(tmp_path: Path) -> None:
    asked = Request("resnet8", ("openvino",), calibration=tmp_path, quantizer="nncf")
    (step,) = recipe_of(asked).steps
    assert step.stage.engine == "nncf"
    (step,) = recipe_of(replace(asked, quantizer=None)).steps
    assert "engine" not in step.stage.model_fields_set
    for wrong, kind, what in (
        (replace(asked, targets=("openvino", "cpu")), TargetError, "for OpenVINO targets alone"),
        (replace(asked, calibration=None, precision="fp32"), RecipeError, "all of fp32 is float"),
    ):
        with pytest.raises(kind, match=what) as refused:
            recipe_of(wrong)
        assert refused.value.where == "--quantizer"


@pytest.mark.parametrize(
    ("asked", "task"),
    [
        ({}, None),
        ({"task": "none", "decode": {}}, "none"),
        ({"evaluate": "coco:val.json"}, "detection"),
        ({"evaluate": "table:val.csv"}, "regression"),
        ({"evaluate": "imagefolder:val"}, None),
        ({"decode": {"decoder": "yolox"}}, "detection"),
        ({"decode": {"confidence": 0.4}}, "detection"),
        ({"decode": {"holds": "logit"}}, "segmentation"),
        ({"decode": {"threshold": 0.4}}, None),  # binary's or multilabel's
        ({"decode": {"threshold": 0.4}, "task": "binary"}, "binary"),
        ({"model": "zoo:unet"}, "segmentation"),
        ({"model": "resnet8"}, "classification"),
        ({"model": "resnet8", "evaluate": "table:val.csv"}, "regression"),
        ({"model": "resnet8", "decode": {"offset": 1}}, "regression"),
    ],
)
def test_what_a_network_is_for(asked: dict, task: str | None) -> None:
    assert task_for(Request(**{"model": "net.onnx", "targets": ("cpu",), **asked})) == task


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"decode": {"threshold": 0.4}}, "no task is given .say --task binary or --task multil"),
        ({"decode": {"sharp": 1}}, "--decode sharp: no task is given .docs/detection.md"),
        ({"decode": {"decoder": "x"}, "evaluate": "imagefolder:v"}, "detection is judged by boxes"),
        ({"decode": {"iou": 0.5}, "evaluate": "masks:v"}, "--iou: task segmentation has none"),
        ({"task": "binary", "evaluate": "coco:v.json"}, "binary is judged by classes"),
        ({"task": "multilabel", "evaluate": "masks:v"}, "judged by boxes or numbers"),
    ],
)
def test_what_is_said_of_reading_is_of_the_task(asked: dict, line: str) -> None:
    request = Request(**{"model": "net.onnx", "targets": ("cpu",), **asked})
    with pytest.raises(RecipeError, match=line):
        check_task(request, task_for(request))


def _headed(path: Path, outputs: int, pool: int) -> str:
    """A file of one 1x1 convolution over means of pool x pixels of 32x32: (1, outputs, 32/pool, .);
    a row of `outputs` where that is one place."""
    onnx = pytest.importorskip("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.zeros((outputs, 3, 1, 1), np.float32)
    side = 32 // pool
    shape = [1, outputs, side, side] if side > 1 else [1, outputs]
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[pool] * 2, strides=[pool] * 2),
        helper.make_node("Conv", ["p", "w"], ["c" if side == 1 else "y"], kernel_shape=[1, 1]),
        *([helper.make_node("Flatten", ["c"], ["y"])] if side == 1 else []),
    ]
    ends = [
        helper.make_tensor_value_info(n, real, s) for n, s in (("x", [1, 3, 32, 32]), ("y", shape))
    ]
    held = [onnx.numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "headed", ends[:1], ends[1:], held)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return str(path)


@pytest.mark.parametrize(
    ("outputs", "pool", "more"),
    [
        (5, 32, {}),
        (5, 32, {"task": "classification"}),
        (10, 16, {"task": "detection", "decode": {"decoder": "fastestdet"}}),
        (10, 16, {"task": "detection"}),
    ],
)
def test_labels_of_another_count_are_refused_before_anything_is_made(
    tmp_path: Path, outputs: int, pool: int, more: dict
) -> None:
    model = _headed(tmp_path / "net.onnx", outputs, pool)
    recipe_of(Request(model, ("cpu",), labels=tuple("abcde"), **more))
    with pytest.raises(RecipeError, match=r"3 names are given, and net.onnx has 5 classes") as e:
        recipe_of(Request(model, ("cpu",), labels=tuple("abc"), **more))
    assert e.value.where == "--labels"


def test_outputs_that_the_decoder_cannot_have_are_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    model = _headed(tmp_path / "net.onnx", 10, 16)
    said = {"task": "detection", "decode": {"decoder": "centernet"}}
    with pytest.raises(UnsupportedError, match=r"centernet reads .*fastestdet.* would fit"):
        recipe_of(Request(model, ("cpu",), **said))
