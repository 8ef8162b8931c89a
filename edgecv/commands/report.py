"""`edgecv report`, and the report at the end of `edgecv run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgecv.commands.common import Bar, existing
from edgecv.errors import EdgecvError, one_line
from edgecv.terminal import print_json

MAPS = ("maps",)  # of a classifier's images; their truth is a class
MASKS = ("truth", "before", "after", "differing")  # of segmentation, as data URIs


def register(command: Any) -> None:
    made = command("report", report, "Write a run's report: one HTML file, and its figures here.")
    made.add_argument(
        "folder", type=existing, metavar="DIR", help="what `edgecv run` wrote: runs/<recipe>"
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/report.html")


def report(options: argparse.Namespace) -> int:
    from edgecv import report as reporting
    from edgecv.files import check_file
    from edgecv.report import page, summary

    page.check_libraries()
    if options.folder.name == "results.json":
        options.folder = options.folder.parent
    check_file(options.out or options.folder / "report.html", "--out")
    with Bar("report") as bar:
        data = reporting.collect(options.folder, bar)
    path = reporting.write(options.folder, options.out, data=data)
    if options.json:
        print_json({**without_pictures(data), "report": str(path)})
        return 0
    for line in summary.lines(data):
        print(line)
    print(f"\n{path}  {path.stat().st_size / 1024:,.0f} KB")
    return 0


def at_the_end(out: Path, quiet: bool) -> Path | None:
    """The report of a run that has just ended; what goes wrong is a line, never a lost run."""
    from edgecv import report as reporting
    from edgecv import source_trust

    try:
        with source_trust.own(), Bar("report", quiet) as bar:
            return reporting.write(out, progress=bar)
    except EdgecvError as e:
        print(f"no report: {e}", file=sys.stderr)
    except Exception as e:
        first = one_line(e, 200)
        again = f"edgecv report {out} --traceback"
        print(f"no report: {type(e).__name__}: {first} ({again})", file=sys.stderr)
    return None


def without_pictures(data: dict[str, Any]) -> dict[str, Any]:
    """The data as a script wants them: without the pixels of Grad-CAM and of maps."""

    def bare(ones: list[dict[str, Any]], left_out: tuple[str, ...]) -> list[dict[str, Any]]:
        return [
            {**one, "images": [{k: v for k, v in image.items() if k not in left_out}
                               for image in one["images"]]}
            for one in ones
        ]  # fmt: skip

    return {**data, "minds": bare(data["minds"], MAPS), "seen": bare(data["seen"], MASKS)}
