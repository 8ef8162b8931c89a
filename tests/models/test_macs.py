"""Every multiplication counts once, whoever calls it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.models.macs import macs, parameters  # noqa: E402


class Own(nn.Conv2d):
    """A convolution of the user's own: weights standardised."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Called(nn.Module):
    """A functional convolution, twice, and a matrix product, without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(3, 3, 3, 3))
        self.matrix = nn.Parameter(torch.zeros(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.conv2d(x, self.kernel, padding=1)
        return x.mean((2, 3)) @ self.matrix


def test_a_subclassed_convolution_counts_like_any_other() -> None:
    plain, own = nn.Conv2d(3, 8, 3, 2, 1), Own(3, 8, 3, 2, 1)
    assert macs(own, 3, (16, 16)) == macs(plain, 3, (16, 16)) == 3 * 8 * 9 * 64


def test_functional_calls_count_and_shared_weights_count_twice() -> None:
    assert macs(Called(), 3, (8, 8)) == 2 * 3 * 3 * 9 * 64 + 15
    assert parameters(Called()) == 81 + 15


def test_weights_may_be_on_the_meta_device() -> None:
    with torch.device("meta"):
        module = Called()
    assert macs(module, 3, (8, 8)) == macs(Called(), 3, (8, 8))


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4, 8]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_convolutions_by_the_formula(groups: int, kernel: int, stride: int, dilation: int) -> None:
    layer = nn.Conv2d(8, 16, kernel, stride, 4, dilation, groups)
    side = (12 + 8 - dilation * (kernel - 1) - 1) // stride + 1
    assert macs(layer, 8, (12, 12)) == side * side * 16 * (8 // groups) * kernel * kernel


def test_activations_and_normalisation_do_not_count() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    assert macs(module, 3, (8, 8)) == 0


class Rows(nn.Module):
    """What is given, on the pixels of an image as rows of 24 features."""

    def __init__(self, call: Callable[[Tensor], Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.call = nn.ModuleList(parts), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x.flatten(2).transpose(1, 2))


T, D = 16, 24
ATTENTION = nn.MultiheadAttention(D, 3, batch_first=True)
ENCODER = nn.TransformerEncoderLayer(D, 3, 2 * D, batch_first=True)
LSTM, BILINEAR = nn.LSTM(D, 12, batch_first=True), nn.Bilinear(D, D, 5)
FUSED: dict[str, tuple[nn.Module, int]] = {
    "scaled_dot_product_attention": (
        Rows(lambda x: F.scaled_dot_product_attention(x, x, x)), 2 * T * T * D
    ),
    "MultiheadAttention": (
        Rows(lambda x: ATTENTION(x, x, x, need_weights=False)[0], ATTENTION),
        4 * T * D * D + 2 * T * T * D,
    ),
    "TransformerEncoderLayer": (Rows(ENCODER, ENCODER), 8 * T * D * D + 2 * T * T * D),
    "LSTM": (Rows(lambda x: LSTM(x)[0], LSTM), T * 4 * 12 * (D + 12)),
    "Bilinear": (Rows(lambda x: BILINEAR(x, x), BILINEAR), T * D * D * 5),
    "matrix and vector": (Rows(lambda x: x[0] @ x[0, 0]), T * D),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_what_runs_as_one_kernel_counts_by_its_products(name: str) -> None:
    module, wanted = FUSED[name]
    assert macs(module, D, (4, 4)) == wanted
