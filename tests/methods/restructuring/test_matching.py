"""Cheaper activations fitted to each channel: less error, the same operators, exact folding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from edgecv.backends.onnxruntime.tensors import runner  # noqa: E402
from edgecv.graphs.onnx.draft import inferred  # noqa: E402
from edgecv.graphs.onnx.epilogues import FUNCTIONS, epilogues  # noqa: E402
from edgecv.graphs.onnx.index import Index  # noqa: E402
from edgecv.methods.restructuring.activations import Answers, places, replaced  # noqa: E402
from edgecv.methods.restructuring.matching import (  # noqa: E402
    CHEAP,
    NUMBERS,
    absorbs,
    fitted,
    folded,
    in_short,
    matched,
    matches,
)
from edgecv.methods.restructuring.refitting import refitted  # noqa: E402
from tests.methods.restructuring.test_activations import exported, images  # noqa: E402


class Joined(nn.Module):
    """Readers of each kind: 1x1, padded depthwise, grouped, a join, a pool, a sum."""

    def __init__(self, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), act())
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1), act())
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), act())
        self.grouped = nn.Sequential(nn.Conv2d(16, 12, 1, groups=2), act())
        self.left = nn.Sequential(nn.Conv2d(12, 12, 1), act())
        self.last = nn.Conv2d(12, 5, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(self.stem(x))
        x = torch.cat([nn.functional.max_pool2d(x, 3, 2, 1), self.depth(x)[..., ::2, ::2]], 1)
        x = self.grouped(x)
        return self.last(x + self.left(x)).flatten(2)


@pytest.fixture(params=[nn.SiLU, nn.GELU, nn.Mish])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> onnx.ModelProto:
    return exported(Joined(request.param), tmp_path)


@pytest.mark.parametrize("into", ["hardswish", "relu6", "relu"])
def test_answers_are_nearer_than_when_replaced(model: onnx.ModelProto, into: str) -> None:
    found, some = places(model, into), images()
    answers = Answers(model, images(8, seed=1))
    made, aims = matched(model, found, into, matches(model, found, into, some))
    plain = answers.error(replaced(model, [place.tensor for place in found], into))
    assert len(aims) == len(found)
    assert answers.error(made) < 0.9 * plain
    fitted_too = refitted(model, made, some, aims=aims)
    assert answers.error(fitted_too) < answers.error(made)


def test_folding_leaves_the_operators_of_a_replacement_and_the_same_answers(
    model: onnx.ModelProto,
) -> None:
    found = places(model, "hardswish")
    made, _ = matched(model, found, "hardswish", matches(model, found, "hardswish", images()))
    done = folded(made)
    plain = replaced(model, [place.tensor for place in found], "hardswish")
    assert [n.op_type for n in done.graph.node] == [n.op_type for n in plain.graph.node]
    assert len(epilogues(done)) == len(found)
    onnx.checker.check_model(done)
    for image in images(3, seed=2):
        for a, b in zip(runner(made)(image), runner(done)(image), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def test_what_readers_can_take(model: onnx.ModelProto) -> None:
    """By the layer in front: a padded layer takes no addend, a slice and a sum nothing."""
    index = Index(model.graph)
    ends = [e.output for e in epilogues(model)]
    found = [absorbs(index, inferred(model), end) for end in ends]
    assert found == [(True, True), (True, False), (False, False), (False, False), (False, False)]


def test_a_padded_reader_takes_a_factor_alone(tmp_path: Path) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Conv2d(4, 4, 3, 1, 1, groups=4)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    model = exported(Padded(), tmp_path)
    (end,) = places(model, "hardswish")
    assert absorbs(Index(model.graph), inferred(model), end.tensor) == (True, False)


def test_a_channel_near_zero_is_stretched_and_a_wide_one_is_not() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(0, 0.3, 4000), rng.normal(0, 8, 4000)])
    silu, cheap = FUNCTIONS["silu"][-1], CHEAP["hardswish"]
    b, a, c, d = fitted(silu, cheap, x)
    error = np.square(c[:, None] * cheap(b[:, None] * x + a[:, None]) + d[:, None] - silu(x))
    plain = np.square(cheap(x) - silu(x))
    assert b[0] > 1.3
    assert b[1] < b[0]
    assert error.mean(1)[0] < 0.02 * plain.mean(1)[0]
    assert (error.mean(1) <= plain.mean(1)).all()
    free = fitted(silu, cheap, x, scaled=False)
    assert (free[2] == 1).all()
    assert (free[3] == 0).all()


@pytest.mark.parametrize("cheap", sorted(CHEAP))
def test_a_few_numbers_say_what_all_do(cheap: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, (6, 6400)) * np.array([0.1, 0.5, 1, 2, 8, 30])[:, None]
    x += np.array([0, -2, 0.5, -1, 3, 0])[:, None]
    short, shares = in_short(x)
    assert short.shape == (6, len(shares))
    assert 100 < len(shares) < NUMBERS
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(short @ shares, x.mean(1))
    silu, given = FUNCTIONS["silu"][0], CHEAP[cheap]

    def error(line: tuple[np.ndarray, ...]) -> np.ndarray:
        b, a, c, d = (v[:, None] for v in line)
        return np.square(silu(x) - c * given(b * x + a) - d).mean(1)

    few = error(fitted(silu, given, short, shares=shares))
    np.testing.assert_array_less(few, 1.06 * error(fitted(silu, given, x)) + 1e-6)


def test_numbers_that_are_few_stand_for_themselves() -> None:
    x = np.random.default_rng(0).normal(size=(3, 7))
    short, shares = in_short(x)
    np.testing.assert_allclose(short @ shares, x.mean(1))
    assert short.shape[1] <= 7
