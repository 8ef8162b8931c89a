"""Every loss is its paper's, 0 where both say the same, and blind to what it must not see."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from edgecv.methods.distillation import losses  # noqa: E402

Y = torch.tensor([0, 2, 1])
LOGITS = {
    "soft": lambda s, t: losses.soft_targets(s, t, 4.0),
    "dkd": lambda s, t: losses.dkd(s, t, Y, 4.0, 8.0),
    "dist": lambda s, t: losses.dist(s, t, 4.0),
}
FEATURES = {
    "hints": losses.hints,
    "attention": losses.attention,
    "similarity": losses.similarity,
    "relational": losses.relational,
}
seeds = st.integers(0, 2**31)
fast = settings(max_examples=25, deadline=None)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize("loss", LOGITS.values(), ids=LOGITS)
@fast
@given(seed=seeds)
def test_logits_that_agree_cost_nothing_and_others_something(loss, seed: int) -> None:
    a, b = draw(seed, 3, 4), draw(seed + 1, 3, 4)
    assert float(loss(a, a)) == pytest.approx(0, abs=1e-9)
    assert float(loss(a, b)) > 0
    # a softmax does not see what is added to all logits of an image
    assert float(loss(a + 3, b - 2)) == pytest.approx(float(loss(a, b)), abs=1e-9)


@pytest.mark.parametrize("loss", FEATURES.values(), ids=FEATURES)
@fast
@given(seed=seeds)
def test_features_that_agree_cost_nothing_and_others_something(loss, seed: int) -> None:
    a, b = draw(seed, 4, 3, 2, 2), draw(seed + 1, 4, 3, 2, 2)
    assert float(loss(a, a)) == pytest.approx(0, abs=1e-9)
    assert float(loss(a, b)) > 0


@pytest.mark.parametrize("name", ["attention", "similarity", "relational"])
@fast
@given(seed=seeds, scale=st.floats(0.1, 10))
def test_the_size_of_features_is_not_taught(name: str, seed: int, scale: float) -> None:
    a, b = draw(seed, 4, 3, 2, 2), draw(seed + 1, 4, 3, 2, 2)
    loss = FEATURES[name]
    assert float(loss(scale * a, b)) == pytest.approx(float(loss(a, b)), rel=1e-6)


@pytest.mark.parametrize("name", ["attention", "similarity", "relational"])
def test_widths_may_differ(name: str) -> None:
    assert float(FEATURES[name](draw(0, 4, 5, 2, 2), draw(1, 4, 3, 2, 2))) > 0


@fast
@given(seed=seeds, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_pearson_sees_no_scale_and_no_shift(seed: int, scale: float, shift: float) -> None:
    a, b = draw(seed, 3, 6), draw(seed + 1, 3, 6)
    far = float(losses.uncorrelated(a, b))
    assert float(losses.uncorrelated(scale * a + shift, b)) == pytest.approx(far, abs=1e-6)
    assert float(losses.uncorrelated(a, scale * b + shift)) == pytest.approx(far, abs=1e-6)
    rows = [1 - np.corrcoef(p, q)[0, 1] for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert far == pytest.approx(np.mean(rows), abs=1e-6)


@fast
@given(seed=seeds)
def test_relations_see_no_turn_and_no_move(seed: int) -> None:
    a, b = draw(seed, 5, 3), draw(seed + 1, 5, 3)
    turn, _ = torch.linalg.qr(draw(seed + 2, 3, 3))
    far = float(losses.relational(a, b))
    assert float(losses.relational(a @ turn + 7, b)) == pytest.approx(far, abs=1e-8)


def test_soft_targets_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    # at T = 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2
    wanted = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(losses.soft_targets(student, teacher, 2.0)) == pytest.approx(wanted, rel=1e-6)


def test_the_square_of_the_temperature_keeps_the_gradients_size() -> None:
    """For large T, ∂/∂z → (z_s − z_t) / classes, whatever T (Hinton et al., equation 4)."""
    teacher, sizes = torch.tensor([[1.0, -1.0, 0.0]]), []
    for t in (50.0, 500.0):
        z = torch.tensor([[-1.0, 1.0, 0.0]], requires_grad=True)
        losses.soft_targets(z, teacher, t).backward()
        assert z.grad is not None
        torch.testing.assert_close(z.grad, (z.detach() - teacher) / 3, rtol=0.02, atol=0.02)
        sizes.append(float(z.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_dkd_by_hand() -> None:
    """p_t = (1/2, 1/4, 1/4), p_s = (1/4, 1/2, 1/4), the label is the first class."""
    teacher = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    student = torch.log(torch.tensor([[0.25, 0.5, 0.25]]))
    target = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    others = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    for beta in (0.0, 8.0):
        found = losses.dkd(student, teacher, torch.tensor([0]), 1.0, beta)
        assert float(found) == pytest.approx(target + beta * others, rel=1e-5)


@fast
@given(seed=seeds)
def test_dkd_takes_soft_targets_apart(seed: int) -> None:
    """KL = TCKD + (1 − p_t of the label) NCKD, equation 7, for one image."""
    s, t, y = draw(seed, 1, 5), draw(seed + 1, 1, 5), torch.tensor([3])
    doubt = 1 - float(functional.softmax(t / 2, 1)[0, 3])
    wanted = float(losses.soft_targets(s, t, 2.0))
    assert float(losses.dkd(s, t, y, 2.0, doubt)) == pytest.approx(wanted, abs=1e-8)


def test_dkd_stays_finite_for_a_sure_teacher() -> None:
    student = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    loss = losses.dkd(student, torch.tensor([[80.0, 0.0, -80.0]]), torch.tensor([0]), 1.0, 8.0)
    loss.backward()
    assert math.isfinite(float(loss))
    assert bool(torch.isfinite(student.grad).all())


def test_dist_by_hand() -> None:
    s, t = draw(3, 4, 5), draw(4, 4, 5)
    p, q = (functional.softmax(z / 2, 1).numpy() for z in (s, t))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    assert float(losses.dist(s, t, 2.0)) == pytest.approx(4 * (inter + intra), rel=1e-5)


def test_hints_by_hand() -> None:
    assert float(losses.hints(torch.zeros(1, 2, 1, 1), torch.tensor([[[[3.0]], [[1.0]]]]))) == 5


def test_attention_by_hand() -> None:
    """One looks at the left pixel alone, the other at both: (1 − 1/√2)² + (1/√2)²."""
    one, both = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[1.0, -1.0]]]])
    wanted = (1 - 2**-0.5) ** 2 + 0.5
    assert float(losses.attention(one, both)) == pytest.approx(wanted, rel=1e-6)


def test_similarity_by_hand() -> None:
    """Images alike against images at right angles: rows (1, 1)/√2 against (1, 0) and (0, 1)."""
    alike, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    wanted = 2 * ((1 - 2**-0.5) ** 2 + 0.5) / 4
    assert float(losses.similarity(alike, apart)) == pytest.approx(wanted, rel=1e-6)


def test_relations_by_hand() -> None:
    """Corners of a right triangle against three points on a line."""
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])

    def relations(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gap = points[None] - points[:, None]
        far = np.linalg.norm(gap, axis=2)
        toward = gap / np.where(far == 0, 1, far)[..., None]
        return far / far[far > 0].mean(), np.einsum("ijc,ikc->ijk", toward, toward)

    def huber(a: np.ndarray, b: np.ndarray) -> float:
        d = np.abs(a - b)
        return float(np.where(d < 1, 0.5 * d * d, d - 0.5).mean())

    (d1, a1), (d2, a2) = relations(corner.numpy()), relations(line.numpy())
    wanted = huber(d1, d2) + 2 * huber(a1, a2)
    assert float(losses.relational(corner, line)) == pytest.approx(wanted, rel=1e-5)


def test_relations_of_equal_images_have_a_gradient() -> None:
    same = torch.ones(3, 2, requires_grad=True)
    losses.relational(same, torch.randn(3, 2)).backward()
    assert bool(torch.isfinite(same.grad).all())
