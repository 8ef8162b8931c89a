"""Bundles of small real networks, one of each kind of task."""

from __future__ import annotations

from pathlib import Path

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


def detector(path: Path) -> Path:
    """Finds BOXES in every picture, a "moth" and a "lamp", with SHARE of its brightness."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rows = np.array([[*box, 0, 0] for box in BOXES], np.float32)[None]
    scores = np.zeros((1, 2, 6), np.float32)
    scores[0, :, 4] = SHARE
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
    graph = helper.make_graph(
        nodes, "spots",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 2, 6])],
        constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(made)
    preprocess = Preprocess((SIZE, SIZE), 3, (0.0,), (255.0,), resize="letterbox")
    manifest = {
        "name": "spots", "task": "detection", "target": "cpu", "engine": "onnxruntime",
        "precision": "fp32", "labels": ["moth", "lamp"],
        "decode": {"decoder": "end2end", "input": [SIZE, SIZE]},
        "input": {"name": "image", "preprocess": preprocess.to_json()},
        "inputs": [TensorSpec("image", "float32", (1, 3, SIZE, SIZE), "NCHW").to_json()],
        "outputs": [TensorSpec("found", "float32", (1, 2, 6)).to_json()],
    }  # fmt: skip
    pixels = np.full((1, 3, SIZE, SIZE), 0.5, np.float32)
    answer = (pixels.mean() * scores + rows).astype(np.float32)
    return write_bundle(
        path, manifest, {"model.onnx": made.SerializeToString()}, {"image": pixels},
        {"found": answer},
    )  # fmt: skip
