"""`edgecv completion`: a shell's completion script."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.errors import missing


def register(command: Any) -> None:
    made = command("completion", completion, "Print a shell completion script.", json_=False)
    made.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise missing("shtab", "compress", "edgecv completion") from None
    print(shtab.complete(options.root, shell=options.shell))
    return 0
