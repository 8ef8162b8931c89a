"""A forward that decides by the image is refused where it does; what ONNX Runtime would refuse is
written in numbers; every other spelling answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.errors import ModelError  # noqa: E402
from edgecv.methods.export._forward import decision  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 16, 16)


class Net(nn.Module):
    """conv, what is given, mean, dense."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.middle = middle
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)).mean((2, 3)))


def in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, ::2] += 1
    x[:, 1] = 0
    return x


def asserted(x: Tensor) -> Tensor:
    assert torch.isfinite(x).all()
    return x


def by_shape(x: Tensor) -> Tensor:
    return x[:, :, : x.shape[2] // 2] if x.shape[2] > 8 and float(x.shape[3]) else x


SOUND: dict[str, Callable[[Tensor], Tensor]] = {
    "same": nn.Conv2d(8, 8, 3, padding="same"),
    "same, dilated": nn.Conv2d(8, 8, 3, padding="same", dilation=2),
    "same, even": nn.Conv2d(8, 8, (2, 4), padding="same"),
    "same, even and dilated": nn.Conv2d(8, 8, (2, 4), padding="same", dilation=(3, 1)),
    "same, depthwise": nn.Conv2d(8, 8, 3, padding="same", groups=8, dilation=3),
    "reflect": nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect"),
    "circular": nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    "in place": in_place,
    "not contiguous": lambda x: x.permute(0, 2, 3, 1)[:, ::2].permute(0, 3, 1, 2),
    "interpolated": lambda x: F.interpolate(x, size=(20, 13), mode="bilinear"),
    "asserted": asserted,
    "by shape": by_shape,
}


@pytest.mark.parametrize("name", SOUND)
def test_every_spelling_answers_as_torch(name: str, tmp_path: Path) -> None:
    module = Net(SOUND[name])
    graph = export_onnx(module, EXAMPLE, tmp_path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(graph.path), options)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], wanted, atol=1e-5)


READS: dict[str, Callable[[Tensor], Tensor]] = {
    "if": lambda x: x if x.sum() > 0 else -x,
    "float": lambda x: x / float(x.max()),
    "item": lambda x: x * x[0, 0, 0, 0].item(),
    "numpy": lambda x: x * torch.from_numpy(np.abs(x.numpy())),
    "index": lambda x: x[:, : int(x.argmax()) % 4 + 1].repeat(1, 8, 1, 1)[:, :8],
}


@pytest.mark.parametrize("name", READS)
def test_a_forward_that_reads_values_is_refused_at_its_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nets:mine.*reads the values of an image") as e:
        export_onnx(Net(READS[name]), EXAMPLE, tmp_path, where="nets:mine")
    assert "test_forward.py:" in str(e.value)


def test_constants_and_parameters_may_be_read() -> None:
    scale = nn.Parameter(torch.ones(()))
    assert decision(Net(lambda x: x * float(scale) if scale > 0 else x), EXAMPLE) == ""


def test_what_has_no_onnx_form_is_told_by_its_operator(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = Net(lambda x: torch.special.i0(x))
    with pytest.raises(ModelError, match="cannot be exported to ONNX: operator 'i0'") as e:
        export_onnx(module, EXAMPLE, tmp_path, where="nets:mine")
    assert "nets:mine" in str(e.value)
    assert "graph(" not in capfd.readouterr().out, "stdout is the command's own"
