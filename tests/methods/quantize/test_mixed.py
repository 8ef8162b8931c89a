"""The integer program, against trying everything."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.methods.quantize.mixed import Problem, choose, rungs

amounts = st.floats(0.0, 10.0, allow_subnormal=False).map(lambda v: round(v, 3))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    layers = [f"l{i}" for i in range(draw(st.integers(1, 5)))]
    tensors = [f"t{i}" for i in range(draw(st.integers(0, 4)))]
    touching = {
        t: draw(st.lists(st.sampled_from(layers), min_size=1, unique=True)) for t in tensors
    }
    return Problem(
        {name: draw(amounts) for name in layers},
        {t: draw(amounts) for t in tensors},
        touching,
        {name: draw(amounts) for name in layers},
    )


@settings(max_examples=80, deadline=None)
@given(problems(), st.floats(0.0, 1.0))
def test_nothing_cheaper_is_as_good(problem: Problem, share: float) -> None:
    noise = share * problem.noise
    every = itertools.chain.from_iterable(
        itertools.combinations(problem.weights, n) for n in range(len(problem.weights) + 1)
    )
    fits = [k for k in every if problem.left(k) <= noise + 1e-6 * problem.noise]
    best = min(sum(problem.cost[name] for name in kept) for kept in fits)
    kept = choose(problem, noise)
    assert kept is not None
    assert problem.left(kept) <= noise + 1e-5 * problem.noise
    assert sum(problem.cost[name] for name in kept) <= best + 1e-4 * (1 + best)


def test_a_tensor_is_float_only_between_float_layers() -> None:
    """Neither layer alone removes the noise between them."""
    problem = Problem({"a": 0.1, "b": 0.1}, {"t": 5.0}, {"t": ["a", "b"]}, {"a": 1.0, "b": 1.0})
    assert problem.left(["a"]) == pytest.approx(5.1)
    assert choose(problem, 1.0) == ("a", "b")
    assert choose(problem, 5.15) in (("a",), ("b",))
    assert choose(problem, 6.0) == ()


def test_rungs_go_up() -> None:
    problem = Problem({f"l{i}": 2.0**i for i in range(6)}, {}, {}, {f"l{i}": 1.0 for i in range(6)})
    found = rungs(problem, (1, 3, 6, 10))
    left = [problem.left(kept) for kept in found]
    assert left == sorted(left, reverse=True)
    assert found[0] == ("l5",)
