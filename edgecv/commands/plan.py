"""`edgecv plan`: what a run would do, and why."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.commands.run import add_recipe, checked_recipe, tell_notes
from edgecv.terminal import print_json


def register(command: Any) -> None:
    made = command("plan", plan, "Show what a run would do, what it would reuse, and why.")
    add_recipe(made)


def plan(options: argparse.Namespace) -> int:
    recipe, _, out = checked_recipe(options)
    from edgecv.console import plan_table
    from edgecv.plan import pipeline
    from edgecv.plan.foresight import check_classes
    from edgecv.plan.store import Store

    check_classes(recipe)
    lines = pipeline.plan(recipe, Store(out / "store"))
    if options.json:
        nodes = [
            {"node": p.node.id, "action": p.action, "why": list(p.why), "digest": p.node.digest}
            for p in lines
        ]
        print_json({"recipe": recipe.name, "out": str(out), "nodes": nodes})
    else:
        plan_table(recipe.name, out, lines)
        tell_notes(recipe)
    return 0
