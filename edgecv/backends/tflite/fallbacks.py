"""Operators outside the XNNPACK delegate: the profile calls them by the file's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecv.diagnosis.why.findings import named
from edgecv.runtime.spec import Layer

_BUILTIN = re.compile(r"[A-Z0-9_]+")


def found(layers: Sequence[Layer]) -> tuple[list[Layer], str, str] | None:
    """The rows that ran so, what that is, and what to change; None where there are none."""
    rows = [r for r in layers if _BUILTIN.fullmatch(r.op) and r.time_ms is not None]
    if not rows:
        return None
    ops = named(dict.fromkeys(r.op for r in rows))
    if len(rows) == len(layers):
        return rows, f"XNNPACK took none of the operators: {ops}", "a LiteRT with XNNPACK"
    return (
        rows,
        f"{len(rows)} of {len(layers)} operators ran outside XNNPACK: {ops}",
        "operators and types that XNNPACK takes there "
        "(static shapes, float32 or int8, no transposition in between)",
    )
