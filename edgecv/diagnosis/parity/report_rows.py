"""A rung as plain JSON: two forms, how they compare, what they may differ by, what was found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgecv.diagnosis.parity import tolerances
from edgecv.fidelity import Parity, Tolerance

Rung = dict[str, Any]


def rung(
    step: str, before: str, after: str, parity: Parity, limit: Tolerance,
    finding: dict[str, Any] | None,
) -> Rung:  # fmt: skip
    return {
        "step": step,
        "from": before,
        "to": after,
        "parity": parity.to_json(),
        "limit": asdict(limit),
        "agrees": finding is None and tolerances.holds(parity, limit),
        "finding": finding,
    }
