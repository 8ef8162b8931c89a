"""What the user pins of an open graph: shapes, batch, size, layout, outputs, where it ends."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from edgecv.errors import ModelError, RecipeError
from edgecv.graphs.onnx import pins
from edgecv.graphs.onnx.pins import Pins, pin

FLOAT = TensorProto.FLOAT


def graph(
    shape: Any = ("N", 3, "H", "W"), other: Any = ("N", 7), outputs: tuple[str, ...] = ("a", "b")
) -> Any:
    """image → stem → (head → a); tokens → embed → (both with the stem → b)."""
    nodes = [
        helper.make_node("Relu", ["image"], ["stem"], "first"),
        helper.make_node("Sigmoid", ["stem"], ["a"], "head"),
        helper.make_node("Flatten", ["stem"], ["flat"], "flatten"),
        helper.make_node("Cast", ["tokens"], ["embed"], "embedding", to=FLOAT),
        helper.make_node("Concat", ["flat", "embed"], ["b"], "join", axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("image", FLOAT, shape),
        helper.make_tensor_value_info("tokens", TensorProto.INT64, other),
    ]
    ends = [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs]
    made = helper.make_graph(nodes, "g", inputs, ends)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {
        i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim)
        for i in model.graph.input
    }  # fmt: skip


def outputs(model: Any) -> list[str]:
    return [o.name for o in model.graph.output]


# --- dimensions


def test_a_free_batch_is_one_and_a_symbol_is_one_number_everywhere() -> None:
    model = graph(("N", 3, "H", "W"), ("N", "W"))
    assert pin(model, Pins(size=(8, 6)), "net.onnx") == "NCHW"
    assert shapes(model) == {"image": (1, 3, 8, 6), "tokens": (1, 6)}


def test_a_batch_that_is_asked_for_is_that_of_every_input() -> None:
    for symbol in ("N", "batch_size", "unk__7", None):
        model = graph((symbol, 3, 8, 8), (symbol, 7))
        pin(model, Pins(batch=2), "net.onnx")
        assert shapes(model) == {"image": (2, 3, 8, 8), "tokens": (2, 7)}


def test_a_shape_that_is_given_settles_its_symbols() -> None:
    model = graph(("N", 3, "S", "S"), ("L", "S"))
    pin(model, Pins({"tokens": (5, 9)}), "net.onnx")
    assert shapes(model) == {"image": (1, 3, 9, 9), "tokens": (5, 9)}


@pytest.mark.parametrize("word", ["?", "None", "-1", "unknown"])
def test_a_word_that_every_open_dimension_has_is_no_symbol(word: str) -> None:
    model = graph((word, 3, word, word), (word, 7))
    pin(model, Pins({"image": (1, 3, 48, 192)}), "net.onnx")
    assert shapes(model) == {"image": (1, 3, 48, 192), "tokens": (1, 7)}
    model = graph((word, 3, word, word))
    pin(model, Pins(size=(48, 192)), "net.onnx")
    assert shapes(model)["image"] == (1, 3, 48, 192)


def test_the_layout_is_the_users_word_then_what_the_shape_tells() -> None:
    for shape, said, layout, made in (
        (("N", "H", "W", 3), None, "NHWC", (1, 3, 4, 3)),
        (("N", 3, "H", "W"), None, "NCHW", (1, 3, 3, 4)),
        ((1, 4, 4, 4), None, "NCHW", (1, 4, 4, 4)),
        ((1, 4, 4, 4), "NHWC", "NHWC", (1, 4, 4, 4)),
        (("N", "H", "W", 16), "NHWC", "NHWC", (1, 3, 4, 16)),
    ):
        model = graph(shape)
        assert pin(model, Pins(size=(3, 4), layout=said), "net.onnx") == layout
        assert shapes(model)["image"] == made


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        (graph(), Pins(), r"input 'image': dimension H is dynamic \('H'\) \(give --input-size"),
        (graph(("N", "C", 8, 8)), Pins(),
         r"dimension C is dynamic \('C'\) \(give --input image:1xCx8x8 \(model.input"),
        (graph((1, 3, 8, 8), (1, "words")), Pins(),
         r"input 'tokens': dimension 1 is dynamic \('words'\) \(give --input tokens:1x\?"),
        (graph((1, 3, 8, 8), ("T", 7)), Pins(), r"'tokens': dimension 0 is dynamic \('T'\)"),
        (graph((1, 3, 8, 8), None), Pins(), "input 'tokens': says nothing of its shape"),
        (graph((4, 3, 8, 8)), Pins(batch=2), "its batch is fixed to 4, not 2"),
        (graph((1, 3, 8, 8)), Pins({"image": (1, 3, 9, 8)}), "2 is fixed to 8, not 9"),
        (graph((1, 3, "S", "S")), Pins({"image": (1, 3, 9, 8)}),
         r"dimension 3 \('S'\) is 8, and 9 in 'image'"),
        (graph((1, 3, "H", "W")), Pins(size=(1 << 14, 1 << 14)), "has 805,306,368 values, more"),
        (graph((1, 3, 8, 8)), Pins(layout="NHWC"), "'image': is NCHW by its shape, not NHWC"),
        (graph((1, 8, 8, 3)), Pins(layout="NCHW"), "'image': is NHWC by its shape, not NCHW"),
        (graph(), Pins({"image": (3, 8, 8)}), "has 4 dimensions, 3x8x8 3"),
        (graph(), Pins({"imag": (1, 3, 8, 8)}), "has no input 'imag' .*'image'"),
        (graph(), Pins({"tokens": (1, 7)}, until=("stem",)), "'tokens' is read by nothing that"),
        (graph((1, 3)), Pins(layout="NHWC", outputs=("a",)), "no input of four dimensions"),
    ],
)  # fmt: skip
def test_what_stays_open_or_does_not_fit_is_refused_by_name(
    model: Any, given: Pins, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as e:
        pin(model, given, "net.onnx")
    assert "\n" not in str(e.value)


# --- outputs


def test_a_graph_ends_where_it_is_cut_and_what_only_the_rest_read_is_gone() -> None:
    for name in ("stem", "first"):  # the tensor, the node
        model = graph()
        pin(model, Pins(size=(8, 8), until=(name,)), "net.onnx")
        assert outputs(model) == ["stem"]
        assert [n.name for n in model.graph.node] == ["first"]
        assert [*shapes(model)] == ["image"]
        assert model.graph.output[0].type.tensor_type.elem_type == FLOAT


def test_outputs_that_stay_and_cuts_go_together() -> None:
    model = graph()
    pin(model, Pins(size=(8, 8), outputs=("a",), until=("embedding", "flat")), "net.onnx")
    assert outputs(model) == ["a", "embed", "flat"]
    model = graph()
    pin(model, Pins(size=(8, 8), outputs=("b", "a")), "net.onnx")
    assert outputs(model) == ["b", "a"]


def test_a_cut_knows_the_type_of_what_it_cuts() -> None:
    model = graph()
    model.graph.node.insert(0, helper.make_node("Shape", ["tokens"], ["size"], "asks"))
    pin(model, Pins(size=(8, 8), until=("asks", "a")), "net.onnx")
    kinds = [o.type.tensor_type.elem_type for o in model.graph.output]
    assert kinds == [TensorProto.INT64, FLOAT]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Pins(outputs=("c",)), r"has no output 'c' \(known: a, b"),
        (Pins(outputs=("stem",)), r"has no output 'stem' \(--until stem cuts the graph there"),
        (Pins(until=("stems",)), r"no tensor or node named 'stems' \(did you mean 'stem'"),
        (Pins(until=("image",)), "'image' goes in"),
    ],
)
def test_a_name_that_nothing_has_is_answered_with_the_nearest(given: Pins, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        pin(graph(), given, "net.onnx")


def test_two_nodes_of_one_name_are_no_place_to_cut_at() -> None:
    model = graph()
    model.graph.node[1].name = "first"
    with pytest.raises(ModelError, match=r"has 2 nodes named 'first' .*'stem', 'a'"):
        pin(model, Pins(until=("first",)), "net.onnx")


# --- words


def test_words_of_a_recipe_and_of_a_command_are_read_alike() -> None:
    said = {"input": {"x": "1x3x8x8", "n": 4, "t": [1, 7]}, "until": "a", "output": ["b"],
            "batch": 2, "layout": "NHWC"}  # fmt: skip
    shapes = {"x": (1, 3, 8, 8), "n": (4,), "t": (1, 7)}
    read = pins.read(said, lambda *_: "")
    assert read == Pins(shapes, ("b",), ("a",), 2, None, "NHWC")
    assert pins.read({}, lambda *_: "").to_json() == {}
    assert read.to_json()["input"] == {"x": [1, 3, 8, 8], "n": [4], "t": [1, 7]}


@pytest.mark.parametrize(
    "said",
    [
        {"input": "1x3x8x8"}, {"input": {"x": "1x3xHxW"}}, {"input": {"x": "1x0x8x8"}},
        {"input": {"x": [1, True]}}, {"input": {"x": []}}, {"input": {"x": 1.5}},
        {"input": {"x": "1x3x99999x99999"}}, {"batch": 0}, {"batch": True}, {"batch": "2"},
        {"layout": "NWHC"}, {"until": 3}, {"output": [""]},
    ],
)  # fmt: skip
def test_what_is_no_pin_is_refused_at_its_place(said: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as e:
        pins.read(said, lambda *keys: ".".join(("model", *keys)))
    assert e.value.where.startswith(f"model.{next(iter(said))}")
