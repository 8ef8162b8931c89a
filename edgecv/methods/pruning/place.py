"""Which target a shared step measures on: the one that is named, else the first that runs here."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.backends import facts
from edgecv.benchmark.machine import machine
from edgecv.errors import TargetError
from edgecv.target import Target, load


def here(targets: Sequence[Target], on: str | None, where: str) -> Target:
    """Raises TargetError: an unknown name, or none of them runs on this machine."""
    features = machine()["features"]
    if on is not None:
        named = {t.name: t for t in targets}.get(on) or load(on)
        if reason := named.not_here(features):
            raise TargetError(where, f"on: {on}: {reason}", "name a target that runs here")
        return named
    for target in targets:
        if not target.not_here(features) and facts(target.backend).alone:
            return target
    hint = "add `on: cpu`, or prune by macs, size_mb or ratio"
    raise TargetError(where, "no target of the recipe runs on this machine", hint)
