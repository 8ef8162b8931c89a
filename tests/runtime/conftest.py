"""Tiny real networks and bundles of them; nothing here is a stand-in for an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.runtime.archive import write_bundle
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec

CLASSES = 5


def network(size: int = 8, channels: int = 3, integer: bool = False) -> bytes:
    """ONNX: conv 3x3 -> ReLU -> global average -> dense to CLASSES, weights from a fixed seed.

    Float in and out; `integer` puts a uint8 grid on both ends (scales 1/64 and 1/32).
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    weights = {
        "w": rng.normal(0, 0.4, (8, channels, 3, 3)),
        "d": rng.normal(0, 1.0, (CLASSES, 8)),
        "b": rng.normal(0, 1.0, CLASSES),
    }
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    first, last = ("x", "y") if integer else ("image", "scores")
    nodes = [
        helper.make_node("Conv", [first, "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "d", "b"], [last], transB=1),
    ]
    kind = TensorProto.FLOAT
    if integer:
        kind = TensorProto.UINT8
        for name, scale in (("sx", 1 / 64), ("sy", 1 / 32)):
            constants.append(numpy_helper.from_array(np.float32(scale), name))
        constants.append(numpy_helper.from_array(np.uint8(128), "z"))
        nodes.insert(0, helper.make_node("DequantizeLinear", ["image", "sx", "z"], ["x"]))
        nodes.append(helper.make_node("QuantizeLinear", ["y", "sy", "z"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind, [1, channels, size, size])],
        [helper.make_tensor_value_info("scores", kind, [1, CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def described(size: int = 8, channels: int = 3, integer: bool = False, **changes: Any) -> dict:
    """The manifest of `network` with the same arguments."""
    grid_in = {"scale": 1 / 64, "zero_point": 128} if integer else {}
    grid_out = {"scale": 1 / 32, "zero_point": 128} if integer else {}
    dtype = "uint8" if integer else "float32"
    shape = (1, channels, size, size)
    pre = Preprocess(
        (size, size), channels, (127.0,), (64.0,), crop_pct=1.0, dtype=dtype, **grid_in
    )
    return {
        "name": "tiny",
        "task": "classification",
        "target": "cpu",
        "engine": "onnxruntime",
        "precision": "int8" if integer else "fp32",
        "input": {"name": "image", "shape": list(shape), "preprocess": pre.to_json()},
        "inputs": [TensorSpec("image", dtype, shape, "NCHW", **grid_in).to_json()],
        "outputs": [TensorSpec("scores", dtype, (1, CLASSES), "NC", **grid_out).to_json()],
        "labels": ["ant", "bee", "cat", "dog", "eel"],
        **changes,
    }


def golden(model: bytes, manifest: dict, samples: int = 3) -> tuple[dict, dict]:
    """Golden inputs and what ONNX Runtime, called directly, answers to them."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    pre = Preprocess.from_json(manifest["input"]["preprocess"])
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (samples, *pre.size, pre.channels), dtype=np.uint8)
    inputs = pre.normalise(pixels)
    rows = [session.run(None, {"image": inputs[i : i + 1]})[0] for i in range(samples)]
    return {"image": inputs}, {"scores": np.concatenate(rows)}


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """make_bundle(size=8, channels=3, integer=False, **manifest keys) -> path of a bundle."""

    def make(
        size: int = 8, channels: int = 3, integer: bool = False, file: str = "tiny", **changes: Any
    ) -> Path:
        model = network(size, channels, integer)
        manifest = described(size, channels, integer, **changes)
        path = tmp_path / f"{file}.edgecv"
        return write_bundle(path, manifest, {"model.onnx": model}, *golden(model, manifest))

    return make
