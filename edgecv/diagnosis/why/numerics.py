"""Numbers that stop a processor: subnormal weights and activations; and numbers that are none.

time before and after: the same graph with its subnormal constants as zero, and the same session
with the processor taking all subnormals as zero, each in turns with what was shipped
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import MENDED, STATIC, Finding, named
from edgecv.measuring.flushing import possible
from edgecv.subnormals import scan


def check(case: Case) -> Iterator[Finding]:
    """Every finding about values."""
    if case.view is None:
        return
    weights = scan(case.view.floats())
    if weights:
        yield _weights(case, weights)
    yield from _activations(case, bool(weights))
    yield from _no_numbers(case)


def _weights(case: Case, found: dict[str, int]) -> Finding:
    saved = case.saving(lambda view: view.without_subnormals())
    times = f": {saved.shipped_ms:.3f} ms, with zeros {saved.mended_ms:.3f} ms" if saved else ""
    worst = sorted(found, key=lambda name: -found[name])
    return Finding(
        "subnormal-weights",
        f"{sum(found.values())} subnormal weights in {named(f'{n} ({found[n]})' for n in worst)}"
        f"{times}",
        tuple(worst),
        saved.ms if saved else None,
        "set them to zero (edgecv.subnormals.flush) and export again",
        MENDED if saved else STATIC,
        (saved.low, saved.high) if saved else None,
    )


def _activations(case: Case, weights: bool) -> Iterator[Finding]:
    """What the network itself makes of a golden input, with the weights' own set to zero."""
    if case.view is None or case.clock is None:
        return
    found = scan(case.view.activations(case.feeds))
    if not found:
        return
    files = case.view.without_subnormals() if weights else case.view.files
    saved = None
    if files is not None and case.threads == 1 and possible():
        usual, flushed = case.trial("weights mended", files), case.trial("flushed", files, True)
        saved = case.clock.saving(usual, flushed)
    worst = sorted(found, key=lambda name: -found[name])
    times = f": {saved.shipped_ms:.3f} ms, as zero {saved.mended_ms:.3f} ms" if saved else ""
    yield Finding(
        "subnormal-activations",
        f"{sum(found.values())} subnormal activations for one input, in "
        f"{named(f'{n} ({found[n]})' for n in worst)}{times}",
        tuple(worst),
        saved.ms if saved else None,
        "mend the layer that makes them (a batch norm folded over a huge deviation, a missing "
        "epsilon), or let the engine flush them (ONNX Runtime: session.set_denormal_as_zero)",
        MENDED if saved else STATIC,
        (saved.low, saved.high) if saved else None,
    )


def _no_numbers(case: Case) -> Iterator[Finding]:
    assert case.view is not None
    bad = [name for name, values in case.view.floats() if not np.isfinite(values).all()]
    if bad:
        yield Finding(
            "not-finite",
            f"NaN or infinity among the weights of {named(bad)}",
            tuple(dict.fromkeys(bad)),
            None,
            "the training diverged or an export overflowed: look at the step before",
            STATIC,
            wrong=True,
        )
