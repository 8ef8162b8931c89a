"""Plain text tables for the commands that also run on a device. Standard library only."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SLOWER = "int8 is slower than fp32"  # in a row's reason


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> None:
    """Print rows under a head, columns aligned; columns named in `right` to the right."""
    print("\n".join(lines(head, rows, right)))


def lines(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()
) -> list[str]:
    """The table's lines."""
    every = [list(head), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    to_right = set(right)

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if i in to_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(every[0]), "  ".join("-" * w for w in widths), *map(line, every[1:])]


def precision(row: Mapping[str, Any]) -> str:
    """ "int8" of a row of results.json; "int8 + 1 bit" where layers ran as xnor and popcount."""
    executed = row.get("executed")
    counted = isinstance(executed, Mapping) and executed.get("binary")
    return f"{row['precision']} + 1 bit" if counted else str(row["precision"])


def reason(row: Mapping[str, Any], folder: Path) -> str:
    """The reason of a row of results.json; where int8 is slower, with the command that says why.

    folder: the run's, as the command is to name it
    """
    said = str(row.get("reason") or "")
    if SLOWER not in said or not row.get("bundle"):
        return said
    before, _, after = said.partition(SLOWER)
    after = after[after.find(";") :] if ";" in after else ""  # 0.2 wrote a command without a folder
    return f"{before}{SLOWER}: `{why(row, folder)}` says why{after}"


def why(row: Mapping[str, Any], folder: Path) -> str:
    """The command that says what costs a row's bundle its time."""
    return shlex.join(["edgecv", "why", str(folder / str(row["bundle"]))])
