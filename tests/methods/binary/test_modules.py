"""A one-bit layer computes the same in PyTorch and in the kernels, and passes gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.binary import library  # noqa: E402
from edgecv.binary.reference import Shape, packed  # noqa: E402
from edgecv.methods.binary.modules import DELTA, OneBit, RPReLU, sign  # noqa: E402


def normed(channels: int, generator: torch.Generator) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.weight.data = torch.randn(channels, generator=generator)
    norm.bias.data = torch.randn(channels, generator=generator)
    norm.running_mean = torch.randn(channels, generator=generator)
    norm.running_var = 0.1 + torch.rand(channels, generator=generator)
    return norm


def test_the_sign_of_zero_is_one() -> None:
    assert sign(torch.tensor([-0.0, 0.0, 1e-30, -1e-30])).tolist() == [1, 1, 1, -1]


@pytest.mark.parametrize(
    ("estimator", "slope"),
    [
        ("clip", lambda x: float(abs(x) <= 1)),
        ("polynomial", lambda x: max(0.0, 2 - 2 * abs(x))),
        ("annealed", lambda x: 2 * (1 - np.tanh(2 * x) ** 2)),
    ],
)
def test_estimators_by_hand(estimator: str, slope) -> None:
    x = torch.tensor([-1.5, -0.6, 0.0, 0.3, 0.9, 2.0], requires_grad=True)
    (sign(x, estimator, 2.0) * 3).sum().backward()
    wanted = [3 * slope(v) for v in x.detach().tolist()]
    assert x.grad.tolist() == pytest.approx(wanted, abs=1e-6)


def test_ternary_weights_by_hand() -> None:
    conv = nn.Conv2d(1, 1, 2, bias=False)
    conv.weight.data = torch.tensor([[[[0.1, -0.5], [0.9, 0.3]]]])
    made = OneBit(conv, weights="ternary", shortcut=False).eval()
    w, alpha = made.quantized()
    assert pytest.approx(0.315) == DELTA * 0.45
    assert w.flatten().tolist() == [0, -1, 1, 0]
    assert float(alpha) == pytest.approx(0.7)


def test_the_folded_norm_is_the_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, padding=1)
    made = OneBit(conv, normed(5, generator), shortcut=False).eval()
    x = torch.randn(2, 6, 7, 7, generator=generator)
    w, alpha = made.quantized()
    dots = F.conv2d(made.signed(x), w, padding=1)
    wanted = made.norm(dots * alpha.view(-1, 1, 1) + conv.bias.view(-1, 1, 1))
    torch.testing.assert_close(made(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "width"), [(1, 6), (2, 6), (2, 12), (1, 18), (2, 5)])
@pytest.mark.parametrize("side", [7, 8])
def test_a_shortcut_is_added_where_shapes_allow(stride: int, width: int, side: int) -> None:
    made = OneBit(nn.Conv2d(6, width, 3, stride, padding=1, bias=False)).eval()
    x = torch.randn(1, 6, side, side, generator=torch.Generator().manual_seed(1))
    assert made.around == (width % 6 == 0)
    whole = made(x)
    made.around = False
    rest = whole - made(x)
    if width % 6:
        assert not rest.any()
    elif stride == 1:
        torch.testing.assert_close(rest, x.repeat(1, width // 6, 1, 1), rtol=0, atol=1e-4)
    else:
        torch.testing.assert_close(rest[0, 0, 0, 0], x[0, 0, :2, :2].mean(), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("weights", ["binary", "ternary"])
@pytest.mark.parametrize("seed", range(12))
def test_the_kernels_compute_the_same_bits(seed: int, weights: str) -> None:
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    groups = int(rng.choice([1, 1, 2]))
    c, f = groups * int(rng.integers(1, 80)), groups * int(rng.integers(1, 80))
    k, stride, pad = int(rng.integers(1, 5)), int(rng.integers(1, 3)), int(rng.integers(0, 3))
    conv = nn.Conv2d(c, f, k, stride, pad, groups=groups, bias=bool(seed % 2))
    made = OneBit(conv, normed(f, generator), weights=weights, shortcut=False).eval()
    made.shift.data = torch.randn(c, generator=generator) / 3
    x = torch.randn(1, c, 9, 8, generator=generator)
    with torch.no_grad():
        wanted = made(x)[0].numpy()
        w, alpha = made.quantized()
        scale, bias = (v.numpy() for v in made.folded(alpha))
        ones = (made.signed(x)[0] > 0).permute(1, 2, 0).numpy()
    taps = w.detach().permute(0, 2, 3, 1).numpy()
    shape = Shape(9, 8, c, f, (k, k), (stride, stride), pads=(pad,) * 4, groups=groups)
    mask = packed(taps != 0) if weights == "ternary" else None
    for name in library.sets():
        layer = library.Layer(shape, packed(taps > 0), mask, name)
        np.testing.assert_array_equal(layer.real(packed(ones), scale, bias), wanted, name)


def test_everything_that_learns_gets_a_gradient() -> None:
    net = nn.Sequential(
        OneBit(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)), RPReLU(8),
        OneBit(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), weights="ternary"),
    )  # fmt: skip
    x = torch.randn(4, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    net(x).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
    still = {n for n, p in net.named_parameters() if not p.grad.any()}
    assert still <= {"0.bias"}, "a bias before a batch norm has no effect"


def test_padding_with_something_else_than_zeros_is_refused() -> None:
    with pytest.raises(ValueError, match="reflect"):
        OneBit(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))


def test_trained_ternary_weights_by_hand() -> None:
    conv = nn.Conv2d(1, 1, 2, bias=False)
    conv.weight.data = torch.tensor([[[[0.04, -0.5], [0.96, 0.3]]]])
    made = OneBit(conv, weights="ttq", real_inputs=True, shortcut=False)
    w, alpha = made.quantized()
    assert made.sizes is not None
    assert made.sizes.tolist() == pytest.approx([0.63, 0.5])
    assert w.flatten().tolist() == pytest.approx([0, -0.5, 0.63, 0.63])
    assert alpha.tolist() == [1]
    (w * torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).sum().backward()
    assert made.sizes.grad.tolist() == pytest.approx([7, -2])
    assert made.weight.grad.flatten().tolist() == pytest.approx([1, 2 * 0.5, 3 * 0.63, 4 * 0.63])


def test_trained_ternary_weights_without_a_side() -> None:
    conv = nn.Conv2d(1, 1, 2, bias=False)
    conv.weight.data = torch.tensor([[[[0.4, 0.5], [0.9, 0.3]]]])
    made = OneBit(conv, weights="ttq", real_inputs=True, shortcut=False)
    assert made.sizes.tolist() == pytest.approx([0.525, 0.525])
