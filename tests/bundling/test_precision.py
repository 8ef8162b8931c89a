"""Layers that ran in float though int8 was asked for: named, told, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.backends import facts
from edgecv.bundling.precision import check_precision
from edgecv.errors import ParityError
from edgecv.graph import OWN_INTEGERS, Graph
from edgecv.runtime.spec import Layer

INT8 = Graph(Path("net.onnx"), "onnx", "int8", (), ())


@pytest.mark.parametrize(
    ("executed", "good"),
    [
        ({"int8": 9, "fp32": 1}, True),
        ({"int8": 7, "fp32": 3}, False),
        ({"fp32": 10}, False),
        ({}, True),
    ],
)
def test_the_share_that_must_run_as_asked(executed: dict, good: bool) -> None:
    graph = Graph(Path("net.onnx"), "onnx", "int8", (), ())
    if good:
        check_precision("here", graph, executed)
    else:
        with pytest.raises(ParityError):
            check_precision("here", graph, executed)


def test_layers_that_are_to_stay_float_are_not_counted() -> None:
    kept = {"options": {"keep_float": ["a", "b", "c"]}}
    graph = Graph(Path("net.onnx"), "onnx", "int8", (), (), kept)
    check_precision("here", graph, {"int8": 7, "fp32": 3})
    with pytest.raises(ParityError):
        check_precision("here", graph, {"int8": 4, "fp32": 6})


def test_one_bit_layers_are_no_float_layers_of_an_int8_network() -> None:
    graph = Graph(Path("net.onnx"), "onnx", "int8", (), (), {"one_bit": 6})
    check_precision("here", graph, {"binary": 6, "int8": 4})
    check_precision("elsewhere", graph, {"fp32": 6, "int8": 4})
    with pytest.raises(ParityError):
        check_precision("here", graph, {"binary": 6, "int8": 2, "fp32": 2})


def floats(*ops: str) -> list[Layer]:
    return [Layer(f"node{i}", f"body.{i}", op, "fp32") for i, op in enumerate(ops)]


@pytest.mark.parametrize(
    ("engine", "op"),
    [
        ("onnxruntime", "ConvTranspose"),
        ("openvino", "Deconvolution jit_avx2_f32"),
        ("openvino", "MatMul brgemm_avx512_f32"),
    ],
)
def test_what_an_engine_has_not_in_int8_is_told_by_name(engine: str, op: str) -> None:
    without = facts(engine).floating
    (said,) = check_precision("net", INT8, {"int8": 4, "fp32": 2}, lambda: floats(op, op), without)
    assert f"body.0 ({op.split()[0]}), body.1" in said
    with pytest.raises(ParityError, match=r"body\.0") as refused:
        check_precision("net", INT8, {"fp32": 2}, lambda: floats(op, op), without)
    assert "fp32" in refused.value.hint


def test_what_another_engine_has_not_is_no_excuse() -> None:
    def ran() -> list[Layer]:
        return floats("MatMul", "MatMul")

    with pytest.raises(ParityError, match="4 in int8"):
        check_precision("net", INT8, {"int8": 4, "fp32": 2}, ran, facts("onnxruntime").floating)


def test_what_does_not_fuse_is_refused_by_name() -> None:
    ran = floats("ConvTranspose", "Conv", "Conv", "Conv", "Gemm")
    with pytest.raises(ParityError, match="4 in int8") as refused:
        check_precision("net", INT8, {"int8": 4, "fp32": 5}, lambda: ran, ("ConvTranspose",))
    assert "body.1 (Conv), body.2 (Conv), body.3 (Conv) and 1 more" in refused.value.what


def test_layers_are_looked_for_only_where_some_ran_in_float() -> None:
    def none() -> list[Layer]:
        raise AssertionError

    assert check_precision("net", INT8, {"int8": 4}, none) == []


def test_the_way_out_of_a_file_that_came_quantized_is_its_float_file() -> None:
    """What it leaves in float itself is meant so; the quantizer's options change nothing of it."""
    facts = {"quantizer": OWN_INTEGERS, "float_ends": ["head"]}
    graph = Graph(Path("net.onnx"), "onnx", "int8", (), (), facts)
    check_precision("here", graph, {"int8": 3, "fp32": 1})
    with pytest.raises(ParityError) as refused:
        check_precision("here", graph, {"fp32": 4})
    assert "float file" in refused.value.hint
    assert "keep-float" not in refused.value.hint
