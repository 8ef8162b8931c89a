"""`edgecv targets`: the device profiles that there are."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.errors import missing
from edgecv.terminal import print_json


def register(command: Any) -> None:
    command("targets", targets, "List the device profiles that a recipe or --target can name.")


def targets(options: argparse.Namespace) -> int:
    from edgecv.text_table import table

    try:
        from edgecv import target
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", "edgecv targets") from None
    found = [target.load(name) for name in target.names()]
    if options.json:
        print_json([t.model_dump(mode="json") for t in found])
        return 0
    rows = [
        [t.name, t.backend, "/".join(t.precisions), str(t.alignment), str(t.threads), t.description]
        for t in found
    ]
    table(["target", "engine", "precisions", "align", "threads", "device"], rows, right=(3, 4))
    return 0
