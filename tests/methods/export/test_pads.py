"""Zero padding of its own becomes the convolution's, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgecv.bundling.inference import graph_outputs
from edgecv.methods.export._pads import absorb_paddings
from edgecv.methods.export.onnx import export_onnx
from edgecv.runtime.preprocess import Preprocess


class Padded(nn.Module):
    """(N, 3, 9, 9) -> (N, 4): a padding before one or two convolutions, of any mode and value."""

    def __init__(self, mode: str = "constant", value: float = 0.0, keep: bool = False) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3, 2, padding=1), nn.Conv2d(3, 4, 5, 2)
        self.mode, self.value, self.keep = mode, value, keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.pad(x, (0, 1, 2, 1), self.mode, self.value if self.mode == "constant" else None)
        z = self.conv(y).mean((2, 3)) + self.other(y).mean((2, 3))
        return z + y.mean((2, 3)).sum(1, keepdim=True) if self.keep else z


def exported(module: nn.Module, out: Path) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """The ONNX form, what it says of some images, and what PyTorch says."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3), dtype=np.uint8)
    graph = export_onnx(module.eval(), torch.zeros(1, 3, 9, 9), out)
    preprocess = Preprocess(size=(9, 9), channels=3, mean=(127.0,), std=(64.0,))
    with torch.no_grad():
        asked = module(torch.from_numpy(preprocess.normalise(pixels))).numpy()
    return onnx.load(str(graph.path)), graph_outputs(graph, pixels, preprocess), asked


def test_uneven_zeros_go_into_every_convolution_that_reads_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, found, asked = exported(Padded(), tmp_path)
    assert "Pad" not in {n.op_type for n in model.graph.node}
    pads = sorted(
        list(a.ints) for n in model.graph.node for a in n.attribute
        if n.op_type == "Conv" and a.name == "pads"
    )  # fmt: skip
    assert pads == [[2, 0, 1, 1], [3, 1, 2, 2]]
    assert not [t.name for t in model.graph.initializer if list(t.dims) == [8]]
    np.testing.assert_allclose(found, asked, atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [Padded(value=1.0), Padded(mode="reflect"), Padded(mode="replicate"), Padded(keep=True)],
    ids=["ones", "reflect", "replicate", "read elsewhere"],
)
def test_what_would_change_a_value_stays(module: nn.Module, tmp_path: Path) -> None:
    model, found, asked = exported(module, tmp_path)
    assert "Pad" in {n.op_type for n in model.graph.node}
    np.testing.assert_allclose(found, asked, atol=1e-4)


def test_a_crop_and_a_padding_of_channels_stay() -> None:
    for pads in ([0, 0, -1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]):
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [
                    onnx.helper.make_node("Pad", ["x", "pads"], ["y"]),
                    onnx.helper.make_node("Conv", ["y", "w"], ["z"]),
                ],
                "g", [], [],
                [
                    onnx.numpy_helper.from_array(np.array(pads), "pads"),
                    onnx.numpy_helper.from_array(np.ones((1, 3, 3, 3), np.float32), "w"),
                ],
            )
        )  # fmt: skip
        assert absorb_paddings(model) == 0
        assert len(model.graph.node) == 2
