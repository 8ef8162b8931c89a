"""`edgecv run`: a recipe, done."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgecv.commands.common import add_jobs, add_limits, add_trust, is_quiet, limits_of, names
from edgecv.commands.report import at_the_end
from edgecv.errors import missing
from edgecv.memory import keep_freed
from edgecv.terminal import print_json


def register(command: Any) -> None:
    text = "Run a recipe: train, compress, compile, measure. Resumes where it stopped."
    made = command("run", run, text)
    add_recipe(made)
    made.set_defaults(resumes=True)
    add_trust(made)
    add_jobs(made)
    made.add_argument("--no-report", action="store_true", help="do not write DIR/report.html")


def add_recipe(made: Any) -> None:
    """A recipe, and what is said of it on the command line."""
    made.add_argument("recipe", type=Path, help="recipe file (or the name of one of edgecv's)")
    made.add_argument("--out", type=Path, metavar="DIR", help="default: runs/<recipe>")
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="override, e.g. prune.ratio=0.4 or seed=1; may be repeated",
    )  # fmt: skip
    made.add_argument(
        "--target",
        action="extend",
        default=[],
        type=names,
        metavar="NAME[,NAME]",
        help="these targets only; may be repeated",
    )
    add_limits(made)


def checked_recipe(options: argparse.Namespace) -> tuple[Any, dict[str, Any], Path]:
    """The checked recipe, where it came from, and the folder for results."""
    try:
        import edgecv.console
        import edgecv.plan.recipe  # noqa: F401  (rich, pydantic: find out before anything is made)
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", "edgecv run") from None
    from edgecv.api.run import loaded

    limits = limits_of(options)
    recipe, source = loaded(options.recipe, options.settings, options.target, limits)
    return recipe, source, options.out or Path("runs") / recipe.name


def tell_notes(recipe: Any) -> None:
    """What checking a recipe found, in lines."""
    for note in recipe.notes:
        print(f"note: {note}")


def run(options: argparse.Namespace) -> int:
    recipe, source, out = checked_recipe(options)
    from edgecv import limits
    from edgecv.api.run import made, succeeded
    from edgecv.console import Progress, results_table

    keep_freed()
    quiet = is_quiet(options)
    if not quiet:
        tell_notes(recipe)
    with Progress(quiet) as progress:
        outcome, data = made(recipe, source, out, progress, options.jobs)
    if options.json:
        print_json(data)
    else:
        results_table(data, outcome, out / "results.json")
        for verdict in data["limits"]:
            print(limits.sentence(verdict))
    if not options.no_report and (page := at_the_end(out, options.json)) and not options.json:
        print(page)
    return 0 if succeeded(data) else 1
