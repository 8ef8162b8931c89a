"""Reference kernels: primitives called "ref"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecv.runtime.spec import Layer

_REFERENCE = re.compile(r"(?:^|_)ref(?:_|$)")


def found(layers: Sequence[Layer]) -> tuple[list[Layer], str, str] | None:
    """The rows that ran so, what that is, and what to change; None where there are none."""
    rows = [r for r in layers if _REFERENCE.search(r.op.partition(" ")[2])]
    if not rows:
        return None
    what = f"OpenVINO has only a reference kernel for {len(rows)} step(s)"
    return rows, what, "an operator that it has a kernel for, or another engine's target"
