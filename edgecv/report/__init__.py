"""`edgecv report`: what a run found, as one HTML file that needs nothing else, and as plain data.

    results.json + store ── gather ──▶ data ── evidence ──▶ data ── page ──▶ report.html

The same run gives the same bytes: the page holds no time of writing and no path of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Progress = Callable[..., None]  # progress(done, total, note)


def collect(run_dir: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Everything the report says (`gather`), with the images and Grad-CAM maps (`evidence`).

    Raises DataError: no results.json there, a damaged or a newer one.
    """
    from edgecv.report import evidence, seen
    from edgecv.report.gather import gather

    data = gather(run_dir)
    evidence.collect(run_dir, data, progress or (lambda *_: None))
    seen.collect(run_dir, data, progress or (lambda *_: None))
    return data


def write(
    run_dir: Path,
    out: Path | None = None,
    progress: Progress | None = None,
    data: dict[str, Any] | None = None,
) -> Path:
    """Write the HTML file; return its path, by default DIR/report.html.

    data: what `collect` gave, to not ask the engines again
    Raises DataError (as collect), MissingExtraError (extra `report`), StoreError (a full disk).
    """
    from edgecv.files import check_file, disk_errors, write_atomic
    from edgecv.report import page

    page.check_libraries()
    path = out or run_dir / "report.html"
    check_file(path, "--out")
    text = page.html(run_dir, data or collect(run_dir, progress))
    with disk_errors(path):
        write_atomic(path, text)
    return path
