"""One thing to make, of what, and under which key."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgecv.files import digest
from edgecv.plan.store import Key
from edgecv.stages.base import Stage
from edgecv.target import Target


@dataclass(frozen=True)
class Node:
    """One thing to make. inputs: role -> node id; per_target nodes may fail alone; measures: its
    maker times something, and wants the machine for itself."""

    id: str
    kind: str
    inputs: dict[str, str]
    key: Key
    stage: Stage | None = None
    step: str = ""
    target: Target | None = None
    precision: str = "fp32"
    facts: dict[str, Any] = field(default_factory=dict)
    measures: bool = False

    @cached_property
    def digest(self) -> str:
        return digest(self.key)

    @property
    def per_target(self) -> bool:
        return self.target is not None
