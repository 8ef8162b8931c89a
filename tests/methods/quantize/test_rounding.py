"""Rounding of weights: the layer's output error is what it lowers, on any layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from edgecv.methods.quantize.layer_rounding import LIMIT, settle_layer
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.rounding import (
    DAMP,
    FEWEST,
    HELD,
    LAZY,
    PLACES,
    SAMPLES,
    SAMPLES_PER_WEIGHT,
    WIDE,
    Moments,
    columns,
    descend,
    output_error,
    places_of,
    round_layer,
    round_weights,
    spread,
)


@pytest.mark.parametrize(
    "case", [(3, 8, 3, 1, 1, 1, 1), (4, 8, 3, 2, 1, 2, 4), (4, 6, 1, 2, 0, 1, 2)]
)
def test_columns_times_weights_are_the_convolution(case: tuple[int, ...]) -> None:
    c, o, k, stride, pad, dilation, groups = case
    layer = nn.Conv2d(c, o, k, stride, pad, dilation, groups, bias=False)
    x = torch.randn(1, c, 12, 9, generator=torch.Generator().manual_seed(0))
    got = columns(x[0].numpy(), (k, k), (stride,) * 2, (dilation,) * 2, (pad,) * 4, groups)
    expected = layer(x).detach().numpy().reshape(o, -1)
    wide = layer(x).shape[3]
    places = spread(expected.shape[1], PLACES, wide)
    weights = layer.weight.detach().numpy().reshape(groups, o // groups, -1)
    np.testing.assert_allclose((weights @ got).reshape(o, -1), expected[:, places], atol=1e-5)


def _unevenness(at: np.ndarray, size: int) -> float:
    """How far the share of places before any column (or row) is from its share of the map."""
    share = (np.sort(at) + 0.5) / size
    rank = np.arange(len(share) + 1) / len(share)
    return float(np.maximum(np.abs(rank[1:] - share), np.abs(rank[:-1] - share)).max())


@given(
    high=st.integers(1, 400), wide=st.integers(8, 400), most=st.sampled_from([FEWEST, 43, PLACES])
)
@example(high=63, wide=63, most=PLACES)  # places by equal steps: 63 of 64 in the last column
@example(high=126, wide=126, most=PLACES)
@example(high=56, wide=56, most=43)
def test_places_are_spread_over_a_map_of_any_width(high: int, wide: int, most: int) -> None:
    places = spread(high * wide, most, wide)
    assert len(places) <= min(most, high * wide)
    assert len(places) >= (most if high * wide >= 2 * most else 0.75 * min(most, high * wide))
    assert (np.diff(places) > 0).all()
    assert places[0] >= 0
    assert places[-1] < high * wide
    assert _unevenness(places % wide, wide) < 0.13 + 0.5 / min(wide, most)
    assert _unevenness(places // wide, high) < 0.13 + 0.5 / min(high, most)


def test_as_many_places_are_looked_at_as_h_wants() -> None:
    for images in (1, 8, 64, 160, 1000, 100_000):
        for inputs in (9, 64, 512, 1152, 9000):
            places = places_of(inputs, images)
            assert FEWEST <= places <= PLACES
            if places < PLACES:
                assert places * images >= max(SAMPLES, SAMPLES_PER_WEIGHT * inputs)
    assert places_of(9, 64) == PLACES
    assert places_of(9, 128) == PLACES // 2


def test_weights_round_to_the_least_error_of_the_output() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 1, 400)) + 0.1 * rng.normal(size=(2, 9, 400))  # much alike, as pixels
    h, w, s = x @ x.transpose(0, 2, 1), rng.normal(size=(2, 5, 9)), np.full((2, 5), 0.04)

    def error(q: np.ndarray) -> float:
        return float((((w - s[:, :, None] * q) @ x) ** 2).sum())

    nearest, best = np.rint(w / s[:, :, None]), round_weights(w, s, h, 127)
    assert error(best) < 0.25 * error(nearest)
    assert np.array_equal(best, round_weights(w, s, h * 1e6, 127))
    assert np.abs(round_weights(w, s, h, 20)).max() == 20
    alone = np.stack([np.eye(9)] * 2)  # inputs that have nothing in common: nothing to gain
    assert np.array_equal(round_weights(w, s, alone, 127), nearest.clip(-127, 127))
    assert np.array_equal(round_weights(w, s, 0 * alone, 127), nearest.clip(-127, 127))


def alike(seed: int, groups: int = 2, rows: int = 5, k: int = 9) -> tuple[np.ndarray, ...]:
    """Weights, scales of 4 bits and H of inputs that are much alike, as pixels are."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 1, 300)) + 0.2 * rng.normal(size=(groups, k, 300))
    w = rng.normal(size=(groups, rows, k))
    return w, np.abs(w).max(2) / 7, x @ x.transpose(0, 2, 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 12))
def test_every_way_stays_on_the_grid_and_descent_never_loses(
    seed: int, groups: int, rows: int, k: int
) -> None:
    w, s, h = alike(seed, groups, rows, k)
    found = {
        how: round_layer(w, s, h, 7, how) for how in ("nearest", "gptq", "descent", "adaround")
    }
    for made in found.values():
        assert made.q.shape == w.shape
        assert np.abs(made.q).max() <= 7
        assert np.array_equal(made.q, np.rint(made.q))
    damped = h + 0.01 * np.einsum("gkk->g", h)[:, None, None] / k * np.eye(k)
    assert (
        output_error(w, found["descent"], damped) <= output_error(w, found["gptq"], damped) + 1e-9
    )


def test_adaround_goes_up_or_down_and_beats_nearest() -> None:
    w, s, h = alike(0, groups=3, rows=16, k=18)
    nearest, ours = (round_layer(w, s, h, 7, how) for how in ("nearest", "adaround"))
    assert np.all(np.abs(ours.q - w / s[:, :, None]) < 1 + 1e-9)
    assert output_error(w, ours, h) < 0.4 * output_error(w, nearest, h)


def test_descent_ends_where_no_single_step_helps() -> None:
    w, s, h = alike(1)
    q = descend(w, s, h, 7, round_weights(w, s, h, 7))
    damped = h + 0.01 * np.einsum("gkk->g", h)[:, None, None] / 9 * np.eye(9)
    for k in range(9):
        for step in (-1, 1):
            moved = q.copy()
            moved[:, :, k] = np.clip(moved[:, :, k] + step, -7, 7)
            e, f = w - s[:, :, None] * q, w - s[:, :, None] * moved
            assert np.all(((f @ damped) * f).sum(2) >= ((e @ damped) * e).sum(2) - 1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_scales_of_few_bits_are_searched(shared: bool) -> None:
    w, s, h = alike(2)
    w[0, 0, 0] *= 8  # an outlier that would spoil its row
    s = np.full(s.shape, np.abs(w).max() / 7) if shared else np.abs(w).max(2) / 7
    plain = round_layer(w, s, h, 7, "nearest")
    ours = round_layer(w, s, h, 7, "nearest", search=True, shared=shared)
    assert output_error(w, ours, h) < output_error(w, plain, h)
    assert len(set(ours.s.ravel())) == (1 if shared else ours.s.size)


def test_a_layer_with_few_columns_has_no_h_and_a_mean() -> None:
    few, enough = Moments(), Moments()
    x = np.random.default_rng(0).normal(1, 1, size=(1, 9, 4)).astype(np.float32)
    for _ in range(20):
        few.add(x[:, :, :1], 20)
        enough.add(x, 20)
    assert few.square is None
    assert enough.square is not None
    np.testing.assert_allclose(enough.mean, x.mean(2), rtol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3])
def test_columns_of_channels_last_are_the_same_and_stay_so(kernel: int) -> None:
    image = np.random.default_rng(0).normal(size=(9, 7, 6)).astype(np.float32)
    how = ((kernel, kernel), (1, 1), (1, 1), (kernel // 2,) * 4, 6)
    last = columns(image.transpose(2, 0, 1), *how)
    first = columns(np.ascontiguousarray(image.transpose(2, 0, 1)), *how)
    np.testing.assert_array_equal(last, first)
    assert last.strides[0] == image.itemsize
    assert first.flags.c_contiguous


@pytest.mark.parametrize(("groups", "k", "places"), [(1, WIDE + 44, 20), (1, 40, 20), (30, 9, 20)])
def test_moments_are_the_sum_of_each_images_product(groups: int, k: int, places: int) -> None:
    rng, seen = np.random.default_rng(0), Moments()
    wanted, total = np.zeros((groups, k, k)), np.zeros((groups, k))
    for i in range(HELD + 3):
        x = rng.normal(1, 1, size=(groups, k, places)).astype(np.float32)
        seen.add(x, 1000)
        wanted += (x @ x.transpose(0, 2, 1)).astype(np.float64)
        total += x.sum(2, dtype=np.float64)
        if i == 1:  # who looks in between changes nothing
            np.testing.assert_allclose(seen.square, wanted, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(seen.square, wanted, rtol=1e-6, atol=1e-4)
    np.testing.assert_array_equal(seen.square, np.swapaxes(seen.square, 1, 2))
    np.testing.assert_allclose(seen.total, total, rtol=1e-12)


def test_rounding_in_blocks_is_rounding_one_by_one() -> None:
    rng, k = np.random.default_rng(1), LAZY + 21
    w, x = rng.normal(size=(2, 6, k)), rng.normal(size=(2, k, 4 * k))
    h, s = x @ x.transpose(0, 2, 1), np.abs(w).max(2) / 127
    damp = DAMP * np.einsum("gkk->gk", h).mean(1)
    for g in range(2):
        order = np.argsort(-np.diag(h[g]), kind="stable")
        u = np.linalg.cholesky(np.linalg.inv(h[g][order][:, order] / damp[g] + np.eye(k))).T
        rest, wanted = w[g][:, order].copy(), np.empty((6, k))
        for i, at in enumerate(order):
            wanted[:, at] = np.clip(np.rint(rest[:, i] / s[g]), -127, 127)
            error = (rest[:, i] - s[g] * wanted[:, at]) / u[i, i]
            rest[:, i:] -= error[:, None] * u[i, i:]
        np.testing.assert_array_equal(round_weights(w, s, h, 127)[g], wanted)


def test_a_dead_channel_keeps_its_bias_and_the_mean_stays() -> None:
    rng = np.random.default_rng(0)
    w, bias = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    w[1] *= 1e-12
    bias[1] = 2.0
    seen = Moments()
    seen.add(rng.normal(1, 1, size=(1, 27, 300)), 1)
    scale = np.abs(w).max((1, 2, 3)) / 127
    made = settle_layer(w, bias, seen, scale, 0.02, 127, Options(rounding="nearest"))
    assert made.raised == 1
    assert np.all(np.abs(made.bias) / (made.s * 0.02) <= LIMIT * (1 + 1e-6))
    assert not made.q[1].any()
    assert made.bias[1] == pytest.approx(2.0)
    drift = (w - made.s.reshape(4, 1, 1, 1) * made.q).reshape(4, -1) @ seen.mean[0]
    np.testing.assert_allclose(made.bias - bias, drift, atol=1e-9)
    kept = Options(rounding="nearest", bias_correction=False)
    np.testing.assert_array_equal(settle_layer(w, bias, seen, scale, 0.02, 127, kept).bias, bias)
