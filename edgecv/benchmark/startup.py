"""What a bundle costs before it is warm: import, load and first call, and the memory it holds.

Measured in a process of its own, which has loaded nothing else: memory that others freed would be
used again and not counted. Run by `edgecv.child`: `python -m edgecv.benchmark.startup JOB ANSWER`.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.backends import run_module
from edgecv.child import call, serve
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.bundle import opened

CALLS = 20  # after which memory is steady


def cold(path: Path, threads: int = 1) -> dict[str, Any]:
    """Start a process for one bundle; see `work` for the answer. Raises EdgecvError."""
    return call("edgecv.benchmark.startup", {"bundle": str(path), "threads": threads}, str(path))


def work(job: dict[str, Any]) -> dict[str, Any]:
    """{"import_ms", "load_ms", "first_call_ms", "memory_mb": {"before", "steady", "peak"}}.

    import_ms: of the engine's Python package. load_ms: file read, checked, compiled for this
    machine. memory_mb: resident memory of the process in units of 2**20 bytes: before the engine
    was imported, after CALLS calls, and the most there ever was.
    """
    path = Path(job["bundle"])
    before = _resident_mb()
    start = time.perf_counter()
    contents = read_bundle(path)
    read = time.perf_counter() - start
    engine = contents.manifest["engine"]
    imported = _import(engine)
    if prepare := getattr(run_module(engine), "prepare", None):
        prepare(contents.files)
    start = time.perf_counter()
    session = opened(contents, threads=job["threads"]).session
    loaded = time.perf_counter() - start
    feeds = contents.golden_feed()
    first = None
    if feeds:
        start = time.perf_counter()
        session.run(feeds)
        first = time.perf_counter() - start
        for _ in range(CALLS):
            session.run(feeds)
    return {
        "import_ms": 1e3 * imported,
        "load_ms": 1e3 * (read + loaded),
        "first_call_ms": None if first is None else 1e3 * first,
        "memory_mb": {"before": before, "steady": _resident_mb(), "peak": _peak_mb()},
    }


def _import(engine: str) -> float:
    """Seconds that the engine's package takes to import."""
    start = time.perf_counter()
    run_module(engine)
    if name := getattr(import_module(f"edgecv.backends.{engine}"), "IMPORTS", None):
        try:
            import_module(name)
        except ImportError:  # the session says so, with the extra that brings it
            return 0.0
    return time.perf_counter() - start


def _resident_mb() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)


def _peak_mb() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (x for x in lines if x.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 2**10, 2)
    except (OSError, ValueError, IndexError):
        return None


if __name__ == "__main__":
    serve(work)
