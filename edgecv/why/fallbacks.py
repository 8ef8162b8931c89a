"""Steps that the engine could not give to its quick kernels.

LiteRT      operators outside the XNNPACK delegate: the profile calls them by the file's own words
OpenVINO    reference kernels: primitives called "ref"
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgecv.runtime.spec import Layer
from edgecv.why.case import Case
from edgecv.why.findings import PROFILE, Finding, named

_BUILTIN = re.compile(r"[A-Z0-9_]+")
_REFERENCE = re.compile(r"(?:^|_)ref(?:_|$)")


def check(case: Case) -> Iterator[Finding]:
    """Steps that ran on a fallback."""
    if case.engine in ("tflite", "edgetpu"):
        yield from _outside(case)
    if case.engine == "openvino":
        rows = [r for r in case.layers if _REFERENCE.search(r.op.partition(" ")[2])]
        if rows:
            yield _finding(
                rows, f"OpenVINO has only a reference kernel for {len(rows)} step(s)",
                "an operator that it has a kernel for, or another engine's target",
            )  # fmt: skip


def _outside(case: Case) -> Iterator[Finding]:
    rows = [r for r in case.layers if _BUILTIN.fullmatch(r.op) and r.time_ms is not None]
    if not rows:
        return
    all_of_them = len(rows) == len(case.layers)
    what = (
        "XNNPACK took none of the operators"
        if all_of_them
        else f"{len(rows)} of {len(case.layers)} operators ran outside XNNPACK"
    )
    ops = named(dict.fromkeys(r.op for r in rows))
    yield _finding(
        rows,
        f"{what}: {ops}",
        "a LiteRT with XNNPACK"
        if all_of_them
        else "operators and types that XNNPACK takes there "
        "(static shapes, float32 or int8, no transposition in between)",
    )


def _finding(rows: list[Layer], what: str, change: str) -> Finding:
    rows = sorted(rows, key=lambda r: -(r.time_ms or 0.0))
    where = tuple(dict.fromkeys(r.layer or r.name for r in rows))
    return Finding("fallback", what, where, sum(r.time_ms or 0.0 for r in rows), change, PROFILE)
