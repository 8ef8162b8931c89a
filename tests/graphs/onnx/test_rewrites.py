"""Einsum as a product, scattered values as rows, means as pools: beside ONNX Runtime as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.graphs.onnx.test_canonical import model, normal, ops, rewritten

SHAPE = (2, 3, 4, 5)
PRODUCTS = {  # equation: the other factor's shape, None where it is computed
    "bchw,bchv->bcwv": None,
    "bhid,bhjd->bhij": None,
    "bcij,bdij->bcd": None,
    "bchw,bchw->bhw": None,
    "bchw,kch->bkw": (6, 3, 4),
    "bchw,c->bhw": (3,),
    "bchw,hv->bvcw": (4, 2),
    "bchw,cd->bdhw": (3, 6),
    "bchw, hw -> bc": (4, 5),
}


@pytest.mark.parametrize("equation", PRODUCTS)
def test_an_einsum_of_two_is_a_product(equation: str) -> None:
    shape = PRODUCTS[equation]
    held = {"k": normal(*shape)} if shape else {}
    other = "k" if shape else "x"
    square = (2, 3, 4, 4) if shape is None else SHAPE
    after = rewritten(
        model([helper.make_node("Einsum", ["x", other], ["y"], equation=equation)], square, **held),
        square,
    )
    assert "Einsum" not in ops(after)
    assert ops(after).count("MatMul") == 1


def test_a_constant_first_factor_is_the_weight() -> None:
    node = helper.make_node("Einsum", ["k", "x"], ["y"], "y", equation="ck,bchw->bhwk")
    after = rewritten(model([node], SHAPE, k=normal(3, 6)), SHAPE)
    assert ops(after) == ["Transpose", "MatMul"]
    assert len({n.name for n in after.graph.node}) == 2


@pytest.mark.parametrize("equation", ["bchw->bhwc", "bchh->bc", "b...w,kw->b...k", "bchw,kw->bck"])
def test_other_sums_are_left(equation: str) -> None:
    many, shape = "," in equation, (2, 3, 5, 5)
    node = helper.make_node("Einsum", ["x", "k"] if many else ["x"], ["y"], equation=equation)
    held = {"k": normal(6, 5)} if many else {}
    assert "Einsum" in ops(rewritten(model([node], shape, **held), shape))


@pytest.mark.parametrize("indices", [[[0, 1], [1, 2]], [[[1, -1, 3]], [[0, 0, 0]]], [[1]]])
def test_constant_indices_take_rows(indices: list[list[int]]) -> None:
    node = helper.make_node("GatherND", ["x", "i"], ["y"], "y")
    after = rewritten(model([node], SHAPE, i=np.array(indices)), SHAPE)
    assert "GatherND" not in ops(after)


@pytest.mark.parametrize("indices", [[[0, 1], [1, 2]], [[0, 1], [0, 1]], [[1, -1]]])
def test_constant_indices_put_rows(indices: list[list[int]]) -> None:
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], "y")
    held = {"i": np.array(indices), "u": normal(len(indices), 4, 5)}
    after = rewritten(model([node], SHAPE, **held), SHAPE)
    assert "ScatterND" not in ops(after)


@pytest.mark.parametrize("k", [-1, 0, 2])
@pytest.mark.parametrize("upper", [0, 1])
def test_a_triangle_is_a_mask(k: int, upper: int) -> None:
    node = helper.make_node("Trilu", ["x", "k"], ["y"], upper=upper)
    assert ops(rewritten(model([node], SHAPE, k=np.int64(k)), SHAPE)) == ["Mul"]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax"])
def test_height_and_width_are_pooled(op: str, keepdims: int) -> None:
    node = helper.make_node(op, ["x", "axes"], ["y"], "y", keepdims=keepdims)
    after = rewritten(model([node], SHAPE, axes=np.array([-1, 2])), SHAPE)
    pool = "GlobalAveragePool" if op == "ReduceMean" else "GlobalMaxPool"
    assert ops(after) == [pool] + ["Flatten"] * (1 - keepdims)


@pytest.mark.parametrize("axes", [[1], [3], [1, 2, 3]])
def test_other_means_are_left(axes: list[int]) -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    assert ops(rewritten(model([node], SHAPE, axes=np.array(axes)), SHAPE)) == ["ReduceMean"]


def shuffled(shape: tuple[int, ...], parts: int, part: int) -> tuple[list[Any], dict[str, Any]]:
    """The part of a channel shuffle that ShuffleNetV2 hands on, as its exporters write it."""
    _, channels, high, wide = shape
    apart = np.array([channels // parts, parts, high * wide])
    back = np.array([parts, -1, channels // parts, high, wide])
    return [
        helper.make_node("Reshape", ["x", "apart"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["b", "back"], ["c"]),
        helper.make_node("Gather", ["c", "part"], ["y"], axis=0),
    ], {"apart": apart, "back": back, "part": np.int64(part)}  # fmt: skip


@pytest.mark.parametrize(("parts", "part"), [(2, 0), (2, 1), (3, 2)])
def test_a_part_of_a_channel_shuffle_is_a_slice(parts: int, part: int) -> None:
    shape = (1, 6, 4, 5)
    nodes, held = shuffled(shape, parts, part)
    assert ops(rewritten(model(nodes, shape, **held), shape)) == ["Slice"]


def test_what_moves_pixels_too_is_left() -> None:
    shape = (1, 6, 4, 5)
    nodes, held = shuffled(shape, 2, 1)
    held["back"] = np.array([2, -1, 3, 5, 4])
    assert "Gather" in ops(rewritten(model(nodes, shape, **held), shape))
    nodes[1].attribute[0].ints[:] = [2, 0, 1]
    held["back"] = np.array([2, -1, 3, 4, 5])
    assert "Gather" in ops(rewritten(model(nodes, shape, **held), shape))
