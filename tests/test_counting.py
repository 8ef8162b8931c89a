"""Every multiplication counts once, whoever calls it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.counting import macs, parameters  # noqa: E402


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
