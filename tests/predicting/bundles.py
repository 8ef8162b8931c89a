"""Bundles of small real networks, one of each kind of task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.runtime.archive import write_bundle
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec
from tests.runtime.conftest import described, golden, network

SIZE = 64
BOXES = ((8, 16, 40, 48), (32, 0, 64, 32))  # in pixels of the input, always found
SHARE = (1.0, 0.5)  # of the picture's brightness, 0..1, that is each one's score


def classifier(path: Path) -> Path:
    model, manifest = network(SIZE), described(SIZE)
    return write_bundle(path, manifest, {"model.onnx": model}, *golden(model, manifest))


def tensors(path: Path) -> Path:
    """The same network; nothing says what its output means."""
    model, manifest = network(SIZE), described(SIZE)
    del manifest["task"], manifest["labels"]
    return write_bundle(path, manifest, {"model.onnx": model}, *golden(model, manifest))


def detector(path: Path, share: tuple[float, ...] = SHARE) -> Path:
    """Finds BOXES in every picture, a "moth" and a "lamp", with this share of its brightness."""
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    rows = np.array([[*box, 0, 0] for box in BOXES], np.float32)[None]
    scores = np.zeros((1, 2, 6), np.float32)
    scores[0, :, 4] = share
    rows[0, :, 5] = (0, 1)
    constants = [
        numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(scores, "share"),
        numpy_helper.from_array(np.array([1, 1, 1]), "shape"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "shape"], ["bright"]),
        helper.make_node("Mul", ["bright", "share"], ["scored"]),
        helper.make_node("Add", ["scored", "rows"], ["found"]),
    ]
    made = _onnx("spots", nodes, ("found", [1, 2, 6]), constants)
    preprocess = Preprocess((SIZE, SIZE), 3, (0.0,), (255.0,), resize="letterbox")
    pixels = np.full((1, 3, SIZE, SIZE), 0.5, np.float32)
    answer = (pixels.mean() * scores + rows).astype(np.float32)
    decode = {"decoder": "end2end", "input": [SIZE, SIZE]}
    manifest = _manifest("detection", preprocess, TensorSpec("found", "float32", (1, 2, 6)),
                         ["moth", "lamp"], decode)  # fmt: skip
    return write_bundle(path, manifest, {"model.onnx": made}, {"image": pixels}, {"found": answer})


def segmenter(path: Path, gain: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Path:
    """Every pixel is of its brightest channel, times a gain: "red", "green" or "blue"."""
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    shape = (1, 3, SIZE, SIZE)
    gains = np.array(gain, np.float32).reshape(1, 3, 1, 1)
    made = _onnx("hues", [helper.make_node("Mul", ["image", "gain"], ["map"])],
                 ("map", list(shape)), [numpy_helper.from_array(gains, "gain")])  # fmt: skip
    preprocess = Preprocess((SIZE, SIZE), 3, (0.0,), (255.0,), resize="stretch")
    pixels = np.full(shape, 0.5, np.float32)
    output = TensorSpec("map", "float32", shape, "NCHW")
    manifest = _manifest("segmentation", preprocess, output, ["red", "green", "blue"],
                         {"input": [SIZE, SIZE]})  # fmt: skip
    return write_bundle(
        path, manifest, {"model.onnx": made}, {"image": pixels}, {"map": pixels * gains}
    )


def _onnx(
    name: str, nodes: list[Any], output: tuple[str, list[int]], constants: list[Any]
) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    ends = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)]
        for n, shape in (("image", [1, 3, SIZE, SIZE]), output)
    ]
    graph = helper.make_graph(nodes, name, *ends, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _manifest(
    task: str, preprocess: Preprocess, output: TensorSpec, labels: list[str], decode: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": task, "task": task, "target": "cpu", "engine": "onnxruntime",
        "precision": "fp32", "labels": labels, "decode": decode,
        "input": {"name": "image", "preprocess": preprocess.to_json()},
        "inputs": [TensorSpec("image", "float32", (1, 3, SIZE, SIZE), "NCHW").to_json()],
        "outputs": [output.to_json()],
    }  # fmt: skip
