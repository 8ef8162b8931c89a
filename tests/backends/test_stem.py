"""A first layer of few channels, in integers: another order of the same sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.backends.onnxruntime.stem import rearranged  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.target import load  # noqa: E402
from tests.backends.test_lookup import answers, compiled, images  # noqa: E402

FEW = [(3, 6, 2, 2), (3, 3, 2, 1), (3, 3, 2, 0), (1, 7, 2, 3), (2, 4, 4, 0), (3, 5, 3, 1)]
NONE = [(4, 3, 2, 1), (3, 3, 1, 1)]


@pytest.mark.parametrize(("channels", "kernel", "step", "pad"), FEW + NONE)
def test_the_sums_stay_the_same(
    channels: int, kernel: int, step: int, pad: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(channels, 8, kernel, step, pad)
    net = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 4, 1))
    x = np.concatenate([images(), images()], 1)[:, :channels]
    graph = export_onnx(net.eval(), torch.zeros(1, *x.shape[1:]), tmp_path / "float")
    quantized = quantize_onnx(graph, x, load("cpu").grid, tmp_path / "q")
    model = onnx.load(str(quantized.path))
    before = answers(model.SerializeToString(), x, optimised=True)
    assert rearranged(model) == ((channels, kernel, step, pad) in FEW)
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(answers(model.SerializeToString(), x, optimised=True), before)
    assert compiled(quantized, tmp_path / "c") == model.SerializeToString(deterministic=True)
