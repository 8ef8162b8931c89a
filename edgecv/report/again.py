"""What to type to have a run, and its report, again."""

from __future__ import annotations

import shlex
from typing import Any

from edgecv.report.folder import Row


def commands(name: str, recipe: dict[str, Any], rows: list[Row]) -> list[dict[str, str]]:
    """{"command", "does"}: what to type to have all of this again."""
    out = f"runs/{name}"
    run = ["edgecv", "run", str(recipe.get("file") or f"{name}.yaml")]
    for setting in recipe.get("settings") or ():
        run += ["--set", str(setting)]
    for target in recipe.get("only") or ():
        run += ["--target", str(target)]
    found = [{"command": shlex.join(run), "does": "make, measure and compare everything"}]
    found.append({
        "command": f"edgecv verify {shlex.quote(out)}/bundles/*.edgecv",
        "does": "replay the golden inputs of every bundle",
    })  # fmt: skip
    by_target: dict[str, list[str]] = {}
    for row in rows:
        if row.get("bundle") and row.get("latency_ms"):
            by_target.setdefault(row["target"], []).append(f"{out}/{row['bundle']}")
    for target, bundles in by_target.items():
        does = f"measure {target} again, interleaved, on whichever machine this is typed"
        found.append({"command": shlex.join(["edgecv", "bench", *bundles]), "does": does})
    found.append({"command": shlex.join(["edgecv", "report", out]), "does": "write this page"})
    return found
