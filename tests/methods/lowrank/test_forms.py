"""Every form: exact at full rank, closer with every rank, closest on the data it was fitted to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import ModelError, StageError  # noqa: E402
from edgecv.methods.lowrank import cp, evbmf, ranks  # noqa: E402
from edgecv.methods.lowrank.apply import factorised  # noqa: E402
from edgecv.methods.lowrank.decide import Candidate  # noqa: E402
from edgecv.methods.lowrank.form import balanced, composed, error, rank_of, shape_of  # noqa: E402
from edgecv.methods.lowrank.history import FORMS, form_of  # noqa: E402

CONVOLUTIONS = [name for name in FORMS if name != "svd"]
QUICK = settings(max_examples=25, derandomize=True, deadline=None)


def form(name: str):
    return form_of(name, groups=2, penalty=1e-3)


def data(weight: np.ndarray, seed: int = 1, count: int = 300) -> np.ndarray:
    """E[x xᵀ] of inputs that are far from white."""
    rng = np.random.default_rng(seed)
    size = weight[0].size
    x = rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) * rng.uniform(0, 2, size)
    return x.T @ x / count


def losses(name: str, weight: np.ndarray, steps: list, covariance=None, judge=None) -> list[float]:
    shape = shape_of(nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:]))
    made = []
    for step in steps:
        groups = [part.groups for part in form(name).parts(shape, step)]
        factors = form(name).factors(weight, step, covariance)
        assert [f.shape for f in factors] == [p.dims for p in form(name).parts(shape, step)]
        made.append(error(weight, composed(factors, groups), judge))
    return made


LADDER = {
    "spatial": [(2,), (6,), (12,)], "tucker2": [(2, 2), (4, 5), (6, 8)],
    "cp": [(2,), (6,), (12,)], "grouped": [(2,), (8,), (14,)],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_error_falls_with_the_rank_and_ends_at_nothing(name: str) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 6, 3, 3))
    shape = shape_of(nn.Conv2d(6, 8, 3))
    steps = [*LADDER[name], form(name).most(shape)]
    found = losses(name, weight, steps)
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.3
    assert found[-1] < 1e-20


@pytest.mark.parametrize("name", CONVOLUTIONS)
@settings(max_examples=10, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_data_aware_is_never_worse_on_its_data(name: str, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(6, 4, 3, 3))
    c = data(weight, seed + 1)
    steps = {"tucker2": [(2, 3)], "cp": [(4,)]}.get(name, [(4,)])
    (plain,), (aware,) = (losses(name, weight, steps, known, c) for known in (None, c))
    assert aware <= plain * (1 + 1e-6)


@QUICK
@given(
    out=st.integers(1, 12), inner=st.integers(1, 12), rank=st.integers(1, 12),
    seed=st.integers(0, 10_000), aware=st.booleans(),
)  # fmt: skip
def test_svd_is_the_optimum(out: int, inner: int, rank: int, seed: int, aware: bool) -> None:
    """Eckart and Young: what is lost are the squares of the singular values left out."""
    weight = np.random.default_rng(seed).normal(size=(out, inner, 1, 1))
    rank = min(rank, out, inner)
    c = data(weight, seed + 1) if aware else None
    factors = form("svd").factors(weight, (rank,), c)
    values, _ = form("svd").spectra(weight, c)[0]
    least = (values[rank:] ** 2).sum() / (values**2).sum()
    assert error(weight, composed(factors, (1, 1)), c) == pytest.approx(least, abs=1e-7)


@QUICK
@given(seed=st.integers(0, 10_000), into=st.integers(1, 6), out=st.integers(1, 8))
def test_tucker_finds_what_has_low_rank(seed: int, into: int, out: int) -> None:
    rng = np.random.default_rng(seed)
    core = rng.normal(size=(out, into, 3, 3))
    weight = np.einsum("oq,qpyx,pi->oiyx", rng.normal(size=(8, out)), core,
                       rng.normal(size=(into, 6)))  # fmt: skip
    assert losses("tucker2", weight, [(into, out)])[0] < 1e-20


LAYERS = {
    "strided": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "uneven": lambda: nn.Conv2d(6, 8, (3, 5), (2, 1), (1, 2), bias=False),
    "dilated": lambda: nn.Conv2d(6, 8, 3, padding=2, dilation=2),
    "same": lambda: nn.Conv2d(6, 8, 3, padding="same"),
    "reflect": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_torch_computes_the_composed_weight(name: str, kind: str) -> None:
    """Factors in torch layers give what one layer with the product of factors gives."""
    torch.manual_seed(0)
    layer = LAYERS[kind]().double()
    shape = shape_of(layer)
    weight = layer.weight.detach().numpy()
    found = Candidate("layer", shape, form(name), weight, None)
    step = (4, 4) if name == "tucker2" else (4,)
    row = factorised(layer, found, step)
    groups = [part.groups for part in found.form.parts(shape, step)]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(composed(found.factors(step), groups)))
        x = torch.randn(2, 6, 11, 9, dtype=torch.float64)
        torch.testing.assert_close(row(x), layer(x))


@pytest.mark.parametrize("layer", [nn.Linear(6, 8), nn.Conv2d(6, 8, 1, stride=2, padding=1)])
def test_dense_and_1x1_layers_are_exact_at_full_rank(layer: nn.Module) -> None:
    weight = layer.weight.detach().double().numpy().reshape(8, 6, 1, 1)
    row = factorised(layer, Candidate("l", shape_of(layer), form("svd"), weight, None), (6,))
    x = torch.randn(3, 6) if isinstance(layer, nn.Linear) else torch.randn(3, 6, 5, 5)
    torch.testing.assert_close(row(x), layer(x))


def test_macs_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from edgecv.methods.lowrank.form import built

    layer = nn.Conv2d(8, 12, 3, 2, 1)
    shape = shape_of(layer, (14, 10), (7, 5))
    for name in CONVOLUTIONS:
        step = (4, 4) if name == "tucker2" else (4,)
        row = built(form(name).parts(shape, step), layer)
        with FlopCounterMode(display=False) as counter:
            row(torch.zeros(1, 8, 14, 10))
        assert form(name).macs(shape, step) == counter.get_total_flops() // 2, name


def test_a_rank_as_wide_as_the_layer_has_no_1x1_of_its_own() -> None:
    shape = shape_of(nn.Conv2d(6, 8, 3))
    assert [p.dims for p in form("tucker2").parts(shape, (6, 4))] == [(4, 6, 3, 3), (8, 4, 1, 1)]
    assert [p.dims for p in form("tucker2").parts(shape, (3, 8))] == [(3, 6, 1, 1), (8, 3, 3, 3)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@QUICK
@given(
    channels=st.tuples(st.sampled_from([8, 16, 24, 48]), st.sampled_from([8, 16, 32, 48])),
    align=st.sampled_from([1, 4, 8, 16]),
)
def test_ranks_are_multiples_of_the_alignment_and_save(
    name: str, channels: tuple[int, int], align: int
) -> None:
    shape = shape_of(nn.Conv2d(*channels, 3), (9, 9), (7, 7))
    most = form(name).most(shape)
    ladder = form(name).ladder(shape, align)
    costs = [form(name).macs(shape, step) for step in ladder]
    assert costs == sorted(costs)
    for step in ladder:
        assert all(r % align == 0 or r == top for r, top in zip(step, most, strict=True))
        assert form(name).macs(shape, step) < shape.macs
    share = ranks.by_macs(form(name), shape, 0.5, align)
    assert share is None or form(name).macs(shape, share) <= 0.5 * shape.macs


def test_energy_is_held_by_the_fewest_values() -> None:
    assert [rank_of(np.array([2.0, 1.0, 1.0]), e) for e in (0.5, 2 / 3, 0.7, 1.0)] == [1, 1, 2, 3]
    assert rank_of(np.zeros(3), 0.9) == 1


@pytest.mark.parametrize("rank", [1, 3, 9])
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_evbmf_finds_the_rank_under_noise(rank: int, noise: float) -> None:
    rng = np.random.default_rng(rank)
    made = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, 150))
    values = np.linalg.svd(made + noise * rng.normal(size=made.shape), compute_uv=False)
    assert evbmf.rank(values, made.shape) == rank
    assert evbmf.rank(values, made.shape[::-1]) == rank
    found = evbmf.noise_variance(values**2, *made.shape)
    assert found == pytest.approx(noise**2, rel=0.1)
    assert evbmf.rank(values, made.shape, 1e6) == 1


def test_evbmf_of_noise_alone_and_of_nothing() -> None:
    noise = np.random.default_rng(0).normal(size=(30, 90))
    assert evbmf.rank(np.linalg.svd(noise, compute_uv=False), (30, 90)) == 1
    assert evbmf.rank(np.zeros(30), (30, 90)) == 1


def test_cp_without_a_penalty_diverges_and_says_so() -> None:
    """The product of two 2x2 matrices: of rank 7 (Strassen), and at 5 components run away."""
    tensor = np.zeros((4, 4, 4))
    for i, j, k in itertools.product(range(2), repeat=3):
        tensor[2 * i + j, 2 * j + k, 2 * k + i] = 1.0
    with pytest.raises(StageError, match=r"rank 5 diverges: .* \(raise penalty") as caught:
        cp.decomposed(tensor, 5, 0.0)
    assert "\n" not in str(caught.value)
    a, b, c = cp.decomposed(tensor, 5, 1e-3)
    made = np.einsum("ar,br,cr->abc", a, b, c)
    assert ((tensor - made) ** 2).sum() < 0.5 * (tensor**2).sum()


def test_a_penalty_keeps_components_small() -> None:
    """a∘a∘b + a∘b∘a + b∘a∘a: of rank 3, and as near as one likes to rank 2: by cancelling."""
    a, b = np.eye(2)
    tensor = sum(np.einsum("a,b,c->abc", *t) for t in ((a, a, b), (a, b, a), (b, a, a)))
    unit = np.linalg.norm(tensor) ** (1 / 3)
    found = [cp.intensity([f / unit for f in cp.decomposed(tensor, 2, p)]) for p in (0, 1e-3, 0.1)]
    assert found[0] > 2 * found[2]
    assert found == sorted(found, reverse=True)


def test_cp_of_infinite_weights_is_no_result() -> None:
    with pytest.raises(StageError, match="diverges"):
        cp.check(np.ones((2, 2, 2)), [np.full((2, 2), np.inf)] * 3, 2)


def test_balanced_factors_have_equal_norms() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(3, 5, 1, 1)) * 100, rng.normal(size=(4, 3, 1, 1))
    first[2] = 0.0  # a channel that holds nothing
    one, two = balanced(first, last)
    np.testing.assert_allclose(composed([one, two], (1, 1)), composed([first, last], (1, 1)))
    norms = np.linalg.norm(one[:2].reshape(2, -1), axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(two[:, :2].reshape(4, 2), axis=0))
    assert np.isfinite(two).all()


def test_an_unknown_form_is_from_a_newer_edgecv() -> None:
    with pytest.raises(ModelError, match="unknown form 'tt'"):
        form_of("tt")
