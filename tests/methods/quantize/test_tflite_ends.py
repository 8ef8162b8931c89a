"""What stands behind a network's last product is computed in float; the Edge TPU's has room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv.backends.tflite.run import Session
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.quantize._tflite_ends import ROOM, ends_of
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.runtime.spec import TensorSpec
from tests.backends.tflite_graphs import GRID, float_graph, images, int8_graph, torch_logits
from tests.methods.quantize.test_tflite_int8 import logits


def with_end(path: Path, add: Callable[[object, object], None]) -> Graph:
    """The residual network with another end, which `add` makes of its editable file."""
    model = flatbuffer.read(float_graph().path)
    add(model, flatbuffer.graph_of(model))
    flatbuffer.tidy(model, ("input",), ("logits",))
    flatbuffer.write(model, path)
    session = Session({"m": path.read_bytes()})
    return Graph(path, "tflite", "fp32", session.inputs, session.outputs)


def softmax(model, main) -> None:
    """Softmax behind the dense layer."""
    tensor = flatbuffer.new("TensorT")
    tensor.shape, tensor.type = [1, 10], flatbuffer.enum("TensorType", "FLOAT32")
    tensor.buffer, tensor.hasRank = 0, True
    main.tensors.append(tensor)
    op = flatbuffer.new("OperatorT")
    op.opcodeIndex = flatbuffer.add_op(model, "SOFTMAX")
    op.builtinOptionsType = flatbuffer.enum("BuiltinOptions", "SoftmaxOptions")
    op.builtinOptions = flatbuffer.new("SoftmaxOptionsT")
    op.builtinOptions.beta = 1.0
    op.inputs, op.outputs = [int(main.outputs[0])], [len(main.tensors) - 1]
    main.operators.append(op)
    main.outputs = [len(main.tensors) - 1]


def pool(model, main) -> None:
    """The mean over the last map, without the dense layer."""
    assert flatbuffer.op_name(model, main.operators[-2]) == "MEAN"
    main.operators = main.operators[:-1]
    main.outputs = [int(main.operators[-1].outputs[0])]


def last_map(model, main) -> None:
    """The last map itself."""
    assert flatbuffer.op_name(model, main.operators[-3]) == "CONV_2D"
    main.operators = main.operators[:-2]
    main.outputs = [int(main.operators[-1].outputs[0])]


@pytest.mark.parametrize(
    ("end", "freed", "executed"),
    [
        (softmax, ["FULLY_CONNECTED", "SOFTMAX"], {"int8": 5, "fp32": 1}),
        (pool, ["MEAN"], {"int8": 5}),
        (last_map, [], {"int8": 5}),
    ],
)
def test_what_is_behind_the_last_product_is_float(
    end, freed: list[str], executed: dict[str, int], tmp_path: Path
) -> None:
    floats = with_end(tmp_path / "float.tflite", end)
    model = flatbuffer.read(floats.path)
    main = flatbuffer.graph_of(model)
    ends = ends_of(model, floats.outputs, set())
    found = [
        flatbuffer.op_name(model, op)
        for op in main.operators
        if main.tensors[op.outputs[0]].name.decode() in ends.names
    ]
    assert found == freed
    made = quantize_tflite(floats, images()[:16], GRID, "int8", tmp_path / "q")
    assert made.facts["executed"] == executed
    assert made.outputs[0].dtype == ("float32" if freed else "int8")
    assert made.facts["float_ends"] == (["fully_connected_8"] if end is softmax else [])
    assert len(made.facts["warnings"]) == 1  # few images


def test_weights_of_the_float_product_stay_int8_in_the_file() -> None:
    graph = int8_graph()
    model = flatbuffer.read(graph.path)
    main = flatbuffer.graph_of(model)
    head = next(op for op in main.operators if flatbuffer.op_name(model, op) == "FULLY_CONNECTED")
    assert flatbuffer.constant(model, main.tensors[head.inputs[1]]) is None
    maker = next(op for op in main.operators if head.inputs[1] in list(op.outputs))
    held = main.tensors[maker.inputs[0]]
    assert flatbuffer.constant(model, held).dtype == np.int8
    assert len(held.quantization.scale) == 10
    codes = {flatbuffer.op_name(model, op): model.operatorCodes[op.opcodeIndex].version
             for op in main.operators}  # fmt: skip
    assert codes["DEQUANTIZE"] == 5  # a scale for each channel
    read = {int(t) for op in main.operators for t in op.inputs}
    held = {int(main.tensors[t].buffer) for t in read}
    for i, buffer in enumerate(model.buffers):  # the float weights are no longer there
        assert i in held or buffer.data is None or not len(buffer.data)
    assert Session({"m": graph.path.read_bytes()}).delegated() == 6


def test_answers_are_on_no_grid() -> None:
    step = int8_graph("uint8").outputs[0].scale
    whole, free = (logits(int8_graph(io), images()[16:]) / step for io in ("uint8", "int8"))
    assert np.allclose(whole, np.rint(whole), atol=1e-3)
    assert not np.allclose(free, np.rint(free), atol=1e-3)


def test_integer_answers_have_room_on_either_side() -> None:
    seen = torch_logits(images()[:16])
    spec: TensorSpec = int8_graph("uint8").outputs[0]
    assert spec.scale is not None
    assert spec.scale * 255 == pytest.approx((seen.max() - seen.min()) * (1 + 2 * ROOM), rel=0.01)
