"""What a network computes behind its layers, in milliseconds, beside the bundle of `--against`.

activations     kernels of activation functions, and the products by what they gate
slower-in-int8  layers that take longer in integers than the other bundle's do in float

Both are sums of the two engines' profiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from edgecv.diagnosis.why.against import Rival
from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import LEAST_SHARE, PROFILE, Finding, named
from edgecv.diagnosis.why.view import View
from edgecv.runtime.spec import Layer

# Kernels of activation functions, as engines' profiles call them.
FUNCTIONS = frozenset((
    "BiasGelu", "FastGelu", "Gelu", "HSigmoid", "HSwish", "HardSigmoid", "HardSwish", "Lookup",
    "Mish", "QLinearSigmoid", "QuickGelu", "Sigmoid", "SoftPlus", "Softplus", "Swish", "Tanh",
    "HARD_SWISH", "LOGISTIC", "TANH", "GELU",
))  # fmt: skip
PRODUCTS = ("Mul", "QLinearMul")


def check(case: Case, rival: Rival | None) -> Iterator[Finding]:
    """Every finding about epilogues."""
    if case.precision != "int8" or case.view is None or not case.layers:
        return
    yield from _activations(case, rival)
    if rival is not None and rival.precision != "int8":
        yield from _slower(case, rival)


def _activations(case: Case, rival: Rival | None) -> Iterator[Finding]:
    assert case.view is not None
    scale = _scale(case.layers, case.call_ms)
    own = of_functions(case.layers, case.view)
    took = scale * _sum(own)
    if case.call_ms is None or took < LEAST_SHARE * case.call_ms:
        return
    beside, ms = "", took
    if rival is not None:
        theirs = of_functions(rival.rows, rival.view)
        factor = _scale(rival.rows, rival.saved.mended_ms)
        ms -= factor * _sum(theirs)
        said = f" ({_kernels(theirs, factor)})" if theirs else ""
        beside = f"; in {rival.name} {factor * _sum(theirs):.1f} ms{said}"
    yield Finding(
        "activations",
        f"activation functions take {took:.1f} of {case.call_ms:.1f} ms "
        f"({_kernels(own, scale)}){beside}",
        tuple(dict.fromkeys(r.layer or r.name for r in sorted(own, key=_least_first))),
        ms,
        _change(case),
    )


def _change(case: Case) -> str:
    relu = "ReLU or ReLU6 in their place, which its integer layers take in (`--activations relu`)"
    if case.says.fused:
        return f"behind a layer {case.says.label} computes them with it: export again, or {relu}"
    if case.says.tables and not any(r.op.startswith("Lookup") for r in case.layers):
        return (
            f"tables in place of their pieces, as `edgecv export` of the float file has; or {relu}"
        )
    return f"{relu}; or a target whose engine computes layer and function as one (openvino)"


def _slower(case: Case, rival: Rival) -> Iterator[Finding]:
    assert case.view is not None
    scale, factor = _scale(case.layers, case.call_ms), _scale(rival.rows, rival.saved.mended_ms)
    mine, theirs = by_layer(case.layers, case.view), by_layer(rival.rows, rival.view)
    pairs = {
        name: (scale * (row.time_ms or 0.0), factor * (theirs[name].time_ms or 0.0))
        for name, row in mine.items()
        if row.precision == "int8" and name in theirs
    }
    least = LEAST_SHARE * (case.call_ms or 0.0)
    slow = {n: (a, b) for n, (a, b) in pairs.items() if a - b >= least}
    if not slow:
        return
    worst = sorted(slow, key=lambda n: slow[n][1] - slow[n][0])
    told = named(f"{n} {slow[n][0]:.1f} ms against {slow[n][1]:.1f}" for n in worst)
    yield Finding(
        "slower-in-int8",
        f"{len(worst)} layer(s) take longer in int8 than in {rival.name} ({rival.precision}): "
        f"{told}",
        tuple(worst),
        sum(a - b for a, b in slow.values()),
        "leave them in float (`--keep-float NAME`): an image's few channels fill no integer "
        "kernel, and wide maps cost the conversion around them",
        PROFILE,
    )


def of_functions(rows: Iterable[Layer], view: View | None) -> list[Layer]:
    """The rows of a profile that compute activation functions."""
    return [
        r for r in rows
        if (word := r.op.partition(" ")[0]) in FUNCTIONS
        or (word in PRODUCTS and view is not None and view.gates(r.name))
    ]  # fmt: skip


def by_layer(rows: Iterable[Layer], view: View | None) -> dict[str, Layer]:
    """The rows of layers that multiply, by what the network's file calls them."""
    found: dict[str, Layer] = {}
    for row in rows:
        name = view.multiplier(row) if view is not None else row.layer
        if name and row.precision:
            found.setdefault(name, row)
    return found


def _kernels(rows: Iterable[Layer], scale: float) -> str:
    """ "QLinearMul 104x 5.1, QLinearSigmoid 104x 3.1", the dearest first."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        times[row.op.partition(" ")[0]].append(scale * (row.time_ms or 0.0))
    order = sorted(times, key=lambda op: -sum(times[op]))
    return ", ".join(f"{op} {len(times[op])}x {sum(times[op]):.1f}" for op in order)


def _sum(rows: Iterable[Layer]) -> float:
    return sum(r.time_ms or 0.0 for r in rows)


def _scale(rows: Iterable[Layer], call_ms: float | None) -> float:
    """A profiler takes time too: where its rows add up to more than a call, they are scaled."""
    total = _sum(rows)
    return min(1.0, call_ms / total) if call_ms and total else 1.0


def _least_first(row: Layer) -> float:
    return -(row.time_ms or 0.0)
