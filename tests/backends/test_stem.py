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
from edgecv.methods.quantize.options import Options, Rounding  # noqa: E402
from edgecv.methods.quantize.vnni_saturation import neighbours, saturating  # noqa: E402
from edgecv.target import Grid, load  # noqa: E402
from tests.backends.test_lookup import answers, compiled, images  # noqa: E402

FEW = [(3, 6, 2, 2), (3, 3, 2, 1), (3, 3, 2, 0), (1, 7, 2, 3), (2, 4, 4, 0), (3, 5, 3, 1)]
NONE = [(4, 3, 2, 1), (3, 3, 1, 1)]


@pytest.mark.parametrize(("channels", "kernel", "step", "pad"), FEW)
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_without_vnni_no_pair_saturates_in_either_order(
    channels: int, kernel: int, step: int, pad: int, rounding: Rounding, tmp_path: Path
) -> None:
    """Other weights are neighbours behind the rearrangement."""
    torch.manual_seed(0)
    first = nn.Conv2d(channels, 64, kernel, step, pad)
    nn.init.normal_(first.weight)
    net = nn.Sequential(first, nn.ReLU(), nn.Conv2d(64, 4, 1))
    x = np.concatenate([images(), images()], 1)[:, :channels]
    graph = export_onnx(net.eval(), torch.zeros(1, *x.shape[1:]), tmp_path / "float")
    grid = Grid(reduce_range=True)
    quantized = quantize_onnx(graph, x, grid, tmp_path / "q", Options(rounding=rounding))
    model = onnx.load(str(quantized.path))
    before = first_integers(model)
    assert np.abs(before).max() > 64  # 8 bits where the neighbours allow it
    assert not saturating(before.reshape(len(before), -1), neighbours(before.shape)).any()
    assert rearranged(model) == 1
    after = first_integers(model)
    assert after.shape != before.shape
    assert not saturating(after.reshape(len(after), -1), neighbours(after.shape)).any()


def first_integers(model: onnx.ModelProto) -> np.ndarray:
    """The weights of the first convolution, as int."""
    makers = {name: n for n in model.graph.node for name in n.output}
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    (held,) = (t for t in model.graph.initializer if t.name == makers[conv.input[1]].input[0])
    return onnx.numpy_helper.to_array(held).astype(int)


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
