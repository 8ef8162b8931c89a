"""Products of two activations in int8: OpenVINO has them on some grids only, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecv.backends import compile_module, facts, run_module
from edgecv.bundling.precision import check_precision, float_layers
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.target import load
from tests.networks import SIZE, conv, images, seeded

pytest.importorskip("openvino")


class Products(nn.Module):
    """Two convolutions and three products of what they make: most layers are such products."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = conv(3, 16, stride=2), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        rows, others = a.flatten(2), self.other(a).flatten(2)
        shares = rows @ others.transpose(1, 2)
        return (shares @ rows).reshape(a.shape) + (shares @ others).reshape(a.shape)


def test_they_run_in_float_and_are_told_by_name(tmp_path: Path) -> None:
    target = load("openvino")
    graph = export_onnx(seeded(Products).eval(), torch.zeros(1, 3, SIZE, SIZE), tmp_path / "float")
    pixels = images(8).pixels.astype(np.float32)
    samples = np.ascontiguousarray(((pixels - 127) / 64).transpose(0, 3, 1, 2))
    made = quantize_onnx(graph, samples, target.grid, tmp_path / "int8")
    compiled = compile_module("openvino").compile(made, target, tmp_path / "engine")
    files = {name: (tmp_path / "engine" / name).read_bytes() for name in compiled.files}
    session = run_module("openvino").Session(files)
    try:
        ran = session.executed()
        assert ran == {"int8": 2, "fp32": 3}
        (said,) = check_precision(
            "net", made, ran, lambda: float_layers(session), facts("openvino").floating
        )
    finally:
        session.close()
    assert "they stay float" in said
    assert all(name in said for name in ("/MatMul (MatMul)", "/MatMul_1", "/MatMul_2"))
