"""What `export` calls its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgecv.errors import RecipeError, TargetError
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
