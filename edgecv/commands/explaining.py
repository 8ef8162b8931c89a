"""`edgecv why`: why a bundle is not faster, or not right."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.commands.common import Bar, existing, seconds
from edgecv.errors import RecipeError
from edgecv.terminal import print_json


def register(command: Any) -> None:
    why = command(
        "why", run_why, "Say why a bundle is not faster, or not right, and what mends it."
    )
    why.add_argument("bundle", type=existing, help=".edgecv file")
    why.add_argument(
        "--against",
        type=existing,
        metavar="BUNDLE",
        help="what it ought to beat, the fp32 bundle of the same network as a rule",
    )
    why.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")
    why.add_argument(
        "--budget",
        type=seconds,
        default=20.0,
        metavar="20s",
        help="time for measuring mended graphs (20s)",
    )


def run_why(options: argparse.Namespace) -> int:
    from edgecv import child
    from edgecv.bench.calibration import ONE_THREAD
    from edgecv.why.words import show

    if options.threads < 1:
        raise RecipeError("--threads", f"is {options.threads}", "at least 1")
    for path in filter(None, (options.bundle, options.against)):
        if path.is_dir():
            raise RecipeError(str(path), "is a folder, not a bundle", "give a .edgecv file")
    job = {
        "bundle": str(options.bundle),
        "against": str(options.against) if options.against else None,
        "threads": options.threads,
        "budget_s": options.budget,
    }
    with Bar("why", quiet=options.json) as bar:
        data = child.call("edgecv.why.explain", job, "why", bar, ONE_THREAD)
    if options.json:
        print_json(data)
    else:
        show(data)
    return 0
