"""Steps that the engine could not give to its quick kernels.

An engine that has such kernels tells them from others in the fallbacks.py of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from edgecv.backends import has
from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import PROFILE, Finding
from edgecv.runtime.spec import Layer


def check(case: Case) -> Iterator[Finding]:
    """Steps that ran on a fallback."""
    if has(case.engine, "fallbacks"):
        told = import_module(f"edgecv.backends.{case.engine}.fallbacks").found(case.layers)
        if told is not None:
            yield _finding(*told)


def _finding(rows: list[Layer], what: str, change: str) -> Finding:
    rows = sorted(rows, key=lambda r: -(r.time_ms or 0.0))
    where = tuple(dict.fromkeys(r.layer or r.name for r in rows))
    return Finding("fallback", what, where, sum(r.time_ms or 0.0 for r in rows), change, PROFILE)
