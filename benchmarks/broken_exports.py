"""Bundles that were exported wrongly, in the ways that happen: made from healthy ones, for
`parity_causes.py` and the tests of `edgecv parity`.

    wrong layout      the graph reads the memory of its image as (H, W, C) where it is (C, H, W);
                      TFLite: with height and width exchanged
    wrong mean, std   the bundle's preprocessing is another network's
    corrupted layer   a quarter of one convolution's output channels hold other weights
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.runtime.archive import read_bundle, write_bundle

Edit = Callable[[bytes], bytes]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def rewritten(
    bundle: Path, out: Path, files: Mapping[str, bytes] | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """The bundle with other engine files, or another preprocessing, and digests that fit."""
    contents = read_bundle(bundle)
    manifest = dict(contents.manifest)
    if preprocess:
        given = {**manifest["input"]["preprocess"], **preprocess}
        manifest["input"] = {**manifest["input"], "preprocess": given}
    return write_bundle(
        out, manifest, files or contents.files, contents.golden_inputs, contents.golden_outputs,
        contents.correct,
    )  # fmt: skip


def edited(bundle: Path, out: Path, edit: Edit) -> Path:
    """The bundle with its one engine file changed."""
    files = dict(read_bundle(bundle).files)
    name = next(iter(files))
    return rewritten(bundle, out, {**files, name: edit(files[name])})


def wrong_normalisation(bundle: Path, out: Path) -> Path:
    """The bundle with ImageNet's mean and std, or 0 and 255 for images of one channel."""
    grey = read_bundle(bundle).preprocess.channels == 1
    mean, std = ((0.0,), (255.0,)) if grey else (MEAN, STD)
    return rewritten(bundle, out, preprocess={"mean": list(mean), "std": list(std)})


def onnx_layout(content: bytes) -> bytes:
    """Reshape and Transpose in front: what is (C, H, W) in memory is taken for (H, W, C)."""
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    held = {t.name for t in graph.initializer}
    image = next(i for i in graph.input if i.name not in held)
    _, c, h, w = (d.dim_value for d in image.type.tensor_type.shape.dim)
    for node in graph.node:
        node.input[:] = ["image/nchw" if n == image.name else n for n in node.input]
    shape = onnx.numpy_helper.from_array(np.array([1, h, w, c], np.int64), "image/shape")
    graph.initializer.append(shape)
    make = onnx.helper.make_node
    nodes = [
        make("Reshape", [image.name, "image/shape"], ["image/nhwc"], name="/Reshape"),
        make("Transpose", ["image/nhwc"], ["image/nchw"], perm=[0, 3, 1, 2], name="/Transpose"),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString(deterministic=True))


def onnx_normalising(content: bytes, mean: Sequence[float], std: Sequence[float]) -> bytes:
    """Sub and Div in front: the graph wants pixels, and its bundle normalises them once more."""
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    held = {t.name for t in graph.initializer}
    image = next(i.name for i in graph.input if i.name not in held)
    for node in graph.node:
        node.input[:] = ["image/ready" if n == image else n for n in node.input]
    for name, value in (("image/mean", mean), ("image/std", std)):
        array = np.array(value, np.float32).reshape(1, -1, 1, 1)
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    make = onnx.helper.make_node
    nodes = [
        make("Sub", [image, "image/mean"], ["image/centred"], name="/Sub"),
        make("Div", ["image/centred", "image/std"], ["image/ready"], name="/Div"),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString(deterministic=True))


def onnx_corrupted(content: bytes, index: int, seed: int = 0) -> tuple[bytes, str]:
    """The file with other weights in a quarter of the channels of its index-th convolution, and
    that layer's name."""
    import onnx

    model = onnx.load_model_from_string(content)
    held = {t.name: t for t in model.graph.initializer}
    made = {n.output[0]: n for n in model.graph.node}
    node = [n for n in model.graph.node if n.op_type == "Conv"][index]
    name = node.input[1] if node.input[1] in held else made[node.input[1]].input[0]
    weight = onnx.numpy_helper.to_array(held[name])
    held[name].CopyFrom(onnx.numpy_helper.from_array(_other(weight, 0, seed), name))
    return bytes(model.SerializeToString(deterministic=True)), str(node.name or node.output[0])


def tflite_turned(content: bytes) -> bytes:
    """A TRANSPOSE in front that exchanges height and width."""
    from edgecv.graphs.tflite import flatbuffer

    model = flatbuffer.parse(content, "model.tflite")
    graph = flatbuffer.graph_of(model)
    image = int(graph.inputs[0])
    order, turned = flatbuffer.new("TensorT"), flatbuffer.new("TensorT")
    order.name, order.shape = b"turn.order", [4]
    order.type = flatbuffer.enum("TensorType", "INT32")
    like = graph.tensors[image]
    turned.name, turned.type, turned.shape = b"turned", like.type, list(like.shape)
    turned.quantization, turned.buffer = like.quantization, 0
    graph.tensors += [order, turned]
    flatbuffer.set_constant(model, order, np.array([0, 2, 1, 3], np.int32))
    place = len(graph.tensors) - 1
    for op in graph.operators:
        op.inputs = [place if int(i) == image else int(i) for i in op.inputs]
    op = flatbuffer.new("OperatorT")
    op.opcodeIndex = flatbuffer.add_op(model, "TRANSPOSE")
    op.inputs, op.outputs = [image, place - 1], [place]
    graph.operators.insert(0, op)
    return _tflite(model)


def tflite_corrupted(content: bytes, index: int, seed: int = 0) -> tuple[bytes, str]:
    """As `onnx_corrupted`."""
    from edgecv.graphs.tflite import flatbuffer

    model = flatbuffer.parse(content, "model.tflite")
    graph = flatbuffer.graph_of(model)
    kinds = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
    ops = [op for op in graph.operators if flatbuffer.op_name(model, op) in kinds]
    weight = graph.tensors[int(ops[index].inputs[1])]
    values = flatbuffer.constant(model, weight)
    assert values is not None
    axis = kinds[flatbuffer.op_name(model, ops[index])]
    flatbuffer.set_constant(model, weight, _other(values, axis, seed))
    name = bytes(weight.name).decode()
    if not name.endswith(".weight"):
        name = bytes(graph.tensors[int(ops[index].outputs[0])].name).decode()
    return _tflite(model), name.removesuffix(".weight")


def openvino_files(onnx_file: bytes) -> dict[str, bytes]:
    """An .onnx file as OpenVINO's compiler makes of it."""
    from edgecv import target
    from edgecv.backends.onnxruntime.run import Session
    from edgecv.backends.openvino.compile import compile as compiled
    from edgecv.graph import Graph

    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.onnx"
        path.write_bytes(onnx_file)
        session = Session({path.name: onnx_file})
        graph = Graph(path, "onnx", "fp32", session.inputs, session.outputs)
        made = compiled(graph, target.load("openvino"), Path(room) / "out")
        return {name: (Path(room) / "out" / name).read_bytes() for name in made.files}


def _other(weight: np.ndarray, axis: int, seed: int) -> np.ndarray:
    """A quarter of the channels, and one at least, with their weights shuffled and negated."""
    rng, rows = np.random.default_rng(seed), np.moveaxis(weight.copy(), axis, 0)
    for row in rows[: max(1, len(rows) // 4)]:
        values = row.reshape(-1).copy()
        rng.shuffle(values)
        low = -127 if weight.dtype == np.int8 else None
        row[...] = np.clip(-values.astype(np.float64), low, None).reshape(row.shape)
    return np.ascontiguousarray(np.moveaxis(rows, 0, axis))


def _tflite(model: Any) -> bytes:
    from edgecv.graphs.tflite import flatbuffer

    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.tflite"
        flatbuffer.write(model, path)
        return path.read_bytes()
