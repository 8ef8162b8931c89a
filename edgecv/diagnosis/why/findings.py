"""What `edgecv why` says: findings, each with the milliseconds it costs and the change to win them.

    cost = t(shipped) - t(mended)       both measured in turns, median over rounds
    cost = sum of layers' times         from the engine's profiler, where nothing can be mended

Imported where a report is printed: the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

# A cost below this share of a call is no reason for anything.
LEAST_SHARE = 0.02
MENDED, TWIN, TURNS = "a mended graph in turns", "layers of their own in turns", "both in turns"
PROFILE, STATIC = "the profile", "the file alone"


@dataclass(frozen=True)
class Finding:
    """One reason why a bundle is slow or wrong.

    kind:   its name, "s8s8"
    what:   one sentence
    where:  layers of the model, the dearest first
    ms:     what it costs of a call; None where it cannot be measured here
    change: what would win that
    how:    where ms comes from: MENDED, TWIN, TURNS, PROFILE or STATIC
    bounds: 95% interval of ms, where two graphs were measured in turns
    wrong:  it is about answers, not time: it stands whatever it costs
    """

    kind: str
    what: str
    where: tuple[str, ...]
    ms: float | None
    change: str
    how: str = PROFILE
    bounds: tuple[float, float] | None = None
    wrong: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON of the fields."""
        made = asdict(self)
        return {**made, "where": list(self.where), "bounds": self.bounds and list(self.bounds)}


def sorted_out(
    found: Iterable[Finding], call_ms: float | None
) -> tuple[list[Finding], list[Finding]]:
    """(causes, the rest): the dearest first; wrong answers before all.

    A cause costs LEAST_SHARE of a call, and more than nothing at its interval's low end; what was
    seen and costs less is the rest. Without a clock here (call_ms None) everything is a cause.
    """
    ordered = sorted(found, key=lambda f: (not f.wrong, -(f.ms or 0.0), f.kind))
    causes = [f for f in ordered if _counts(f, call_ms)]
    return causes, [f for f in ordered if f not in causes]


def _counts(finding: Finding, call_ms: float | None) -> bool:
    if finding.wrong or call_ms is None:
        return True
    if finding.ms is None or finding.ms < LEAST_SHARE * call_ms:
        return False
    return finding.bounds is None or finding.bounds[0] > 0.0


def named(where: Iterable[str], most: int = 3) -> str:
    """ "stem.0, stage1.0.conv1 and 8 more"."""
    names = list(where)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
