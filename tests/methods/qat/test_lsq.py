"""LSQ and PACT by hand: values, gradients, where they start, what they may not exceed."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgecv.methods.qat.lsq import TINY, Lsq, levels  # noqa: E402
from edgecv.methods.qat.pact import Pact  # noqa: E402

X = torch.tensor([-3.0, -0.6, -0.2, 0.3, 0.9, 1.4, 2.6, 9.0])


def lsq(low: int, high: int, step: float | list[float], **options) -> Lsq:
    steps = torch.tensor(step).reshape(-1)
    made = Lsq(low, high, channels=len(steps), **options)
    made.step.data.copy_(steps)
    return made


def straight_through(x, step, low, high, gain):
    """The paper's own pseudo-code (appendix A of Esser et al.), gradients by autograd."""
    step = (step - step * gain).detach() + step * gain
    inside = (x / step).clamp(low, high)
    return ((inside.round() - inside).detach() + inside) * step


def test_values_by_hand() -> None:
    quantized = lsq(-2, 3, 0.5)(X)
    assert quantized.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 1.5, 1.5]


def test_gradients_by_hand() -> None:
    """∂x̂/∂s: Qn below, round(x/s) − x/s inside, Qp above; ∂x̂/∂x: 1 inside."""
    quantizer, x = lsq(-2, 3, 0.5), X.clone().requires_grad_()
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    inside = sum(round(v / 0.5) - v / 0.5 for v in X[1:6].tolist())
    gain = 1 / math.sqrt(1 * 3)  # one element an image, Qp = 3
    assert quantizer.step.grad.item() == pytest.approx(gain * (-2 + inside + 3 + 3), rel=1e-5)


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("channels", [1, 4])
def test_gradients_are_the_papers(weight: bool, channels: int) -> None:
    torch.manual_seed(0)
    x, pull = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    steps = [0.1, 0.3, 0.2, 0.4][:channels]
    quantizer = lsq(-7, 7, steps, weight=weight)
    mine = x.clone().requires_grad_()
    (quantizer(mine) * pull).sum().backward()
    count = x.numel() if weight else x.numel() / 4
    step = torch.tensor(steps).view(-1, 1, 1).requires_grad_()
    theirs = x.clone().requires_grad_()
    wanted = straight_through(theirs, step, -7, 7, 1 / math.sqrt(count * 7))
    (wanted * pull).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(quantizer.step.grad, step.grad.flatten())


def test_clipped_values_have_a_true_derivative() -> None:
    """Where everything is clipped nothing is rounded, and gradcheck can differentiate."""
    x = torch.tensor([-9.0, 9.0, 20.0], dtype=torch.float64, requires_grad=True)
    step = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    from edgecv.methods.qat.lsq import FakeQuantize

    def clipped(x, step):
        return FakeQuantize.apply(x, step, -2, 3, 1.0, True)

    assert torch.autograd.gradcheck(clipped, (x, step))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    bits=st.integers(2, 8),
    step=st.floats(1e-4, 10),
    seed=st.integers(0, 99),
)
def test_quantizing_twice_changes_nothing(bits: int, step: float, seed: int) -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * step * 40
    for quantizer in (lsq(*levels(bits), step), lsq(0, 2**bits - 1, step)):
        once = quantizer(x).detach()
        assert torch.equal(quantizer(once), once)
        q = once / quantizer.size().detach()
        assert torch.equal(q.round(), q.round().clamp(quantizer.low, quantizer.high))
        assert torch.equal(q.round() * quantizer.size().detach(), once)


def test_levels_stand_a_change_of_sign_and_two_bits_have_four() -> None:
    assert [levels(b) for b in (8, 4, 3, 2)] == [(-127, 127), (-7, 7), (-3, 3), (-2, 1)]


def test_a_step_starts_as_the_paper_says() -> None:
    quantizer = lsq(0, 15, 1.0)
    quantizer.start(torch.tensor(0.5), torch.tensor(0.0), torch.tensor(9.0))
    assert quantizer.step.item() == pytest.approx(2 * 0.5 / math.sqrt(15))


def test_a_step_never_starts_wider_than_the_extremes() -> None:
    quantizer = lsq(0, 255, 1.0)
    quantizer.start(torch.tensor(0.5), torch.tensor(0.0), torch.tensor(2.0))
    assert quantizer.step.item() == pytest.approx(2 / 255)


def test_a_channel_of_zeros_starts_in_the_middle_of_the_others() -> None:
    quantizer = lsq(-7, 7, [1.0, 1.0, 1.0], weight=True)
    mean = torch.tensor([0.1, 0.0, 0.1])
    quantizer.start(mean, -mean, 9 * mean)
    assert quantizer.step[1] == quantizer.step[0] > TINY


def test_a_step_stays_above_zero_and_can_come_back() -> None:
    quantizer = lsq(-7, 7, -0.5)
    quantized = quantizer(X)
    assert bool(torch.isfinite(quantized).all())
    quantized.sum().backward()
    assert quantizer.step.grad.item() != 0


@pytest.mark.parametrize("kind", [Lsq, Pact])
def test_the_range_stays_within_a_clip(kind) -> None:
    quantizer = kind(0, 255, most=6.0)
    quantizer.start(torch.tensor(1e3), torch.tensor(0.0), torch.tensor(1e3))
    assert quantizer(torch.tensor([100.0])).item() == pytest.approx(6.0)


@pytest.mark.parametrize("kind", [Lsq, Pact])
def test_a_frozen_step_gets_no_gradient(kind) -> None:
    quantizer, x = kind(0, 3), X.clone().requires_grad_()
    quantizer.frozen = True
    quantizer(x).sum().backward()
    assert all(p.grad is None for p in quantizer.parameters())
    assert x.grad.sum() > 0


def test_pact_by_hand() -> None:
    """y = s round(clip(x, 0, α) / s), s = α / Qp; ∂y/∂α = 1 where x ≥ α, else 0."""
    quantizer = Pact(0, 3)
    quantizer.alpha.data.fill_(1.5)
    x = X.clone().requires_grad_()
    quantized = quantizer(x)
    assert quantized.tolist() == [0, 0, 0, 0.5, 1.0, 1.5, 1.5, 1.5]
    quantized.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert quantizer.alpha.grad.item() == pytest.approx(2.0)


def test_pact_moves_the_negative_side_in_proportion() -> None:
    quantizer = Pact(-1, 2)
    quantizer.alpha.data.fill_(2.0)
    x = torch.tensor([-5.0, 0.1, 5.0], requires_grad=True)
    quantized = quantizer(x)
    assert quantized.tolist() == [-1.0, 0.0, 2.0]
    quantized.sum().backward()
    assert quantizer.alpha.grad.item() == pytest.approx(-0.5 + 1.0)


def test_pact_starts_at_the_largest_value() -> None:
    quantizer = Pact(-1, 2)
    quantizer.start(torch.tensor(0.1), torch.tensor(-3.0), torch.tensor(1.0))
    assert quantizer.alpha.item() == 6.0  # −3 needs a step of 3
