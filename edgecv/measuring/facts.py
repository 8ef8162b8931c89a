"""facts.json: what was found of a bundle, or measured of a target's bundles."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgecv.errors import StoreError

FILE = "facts.json"


@dataclass(frozen=True)
class BundleFacts:
    """Of one bundle.

    bundle:       its file's name
    size_bytes:   of the file; engine_bytes: of the engine's files in it
    compiled:     False where the vendor's compiler was not there
    reason:       why it was not run here; "" where it was
    metric:       {"name", "value", "samples", "images"}, or None
    executed:     precision -> layers that the engine ran in it
    parity:       {"graph", "compiled", "float"}: `edgecv.fidelity.Parity` as JSON, or None
                  (`edgecv.bundling.parity`)
    warnings:     what makes the figures say less than they seem to
    made_up:      the images that answers were compared on were no photographs
    task:         as the manifest says; None is no classifier
    fidelity:     of an int8 graph, the task's metric against float's own answers: {"metric",
                  "value", "good"}; None where the task is not asked
    search:       what a search for the quantizer's settings tried, or None
    """

    bundle: str
    size_bytes: int
    engine_bytes: int
    engine: str
    compiled: bool
    notes: tuple[str, ...]
    reason: str
    metric: dict[str, Any] | None
    executed: dict[str, int]
    parity: dict[str, Any]
    search: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    made_up: bool = False
    task: str | None = None
    fidelity: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "notes": list(self.notes), "warnings": list(self.warnings)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> BundleFacts:
        """Raises KeyError, TypeError where it is none."""
        names = {f.name for f in fields(BundleFacts)}
        found = {k: v for k, v in data.items() if k in names}
        return BundleFacts(
            **found | {"notes": tuple(data["notes"]), "warnings": tuple(data.get("warnings", ()))}
        )


def write(folder: Path, facts: BundleFacts | dict[str, Any]) -> None:
    """Keep the facts of a bundle, or what measuring bundles answered."""
    data = facts.to_json() if isinstance(facts, BundleFacts) else facts
    (folder / FILE).write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> BundleFacts:
    """Of a bundle's folder in the store. Raises StoreError."""
    try:
        return BundleFacts.from_json(measured(folder))
    except (KeyError, TypeError):
        raise _damaged(folder) from None


def measured(folder: Path) -> dict[str, Any]:
    """What measuring a target's bundles answered (docs/bench.md). Raises StoreError."""
    try:
        data = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        raise _damaged(folder) from None
    if not isinstance(data, dict):
        raise _damaged(folder)
    return data


def _damaged(folder: Path) -> StoreError:
    return StoreError(str(folder), "facts are damaged", "delete the folder and run again")
