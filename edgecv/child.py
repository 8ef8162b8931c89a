"""Running vendor code in a process of its own: a crash there is an error here, never a lost run.

The parent hands over a JSON job and reads a JSON answer; an EdgecvError travels with its type, and
progress as lines of stdout that begin with MARK. What the engine prints is kept aside and shown
only when it dies.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgecv import errors, lifeline, user_code
from edgecv.errors import EdgecvError, EngineError, not_installed

# ASCII record separator: no engine begins a line with it.
MARK = "\x1eedgecv "

Progress = Callable[..., None]  # progress(done, total, note)


def command(module: str, *arguments: Path) -> list[str]:
    """`python -m module` that searches no working folder for modules (-P)."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def variables(module: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of such a process: what is importable here is importable there, but for the
    folders in which a user's own code lies; and so for the processes that it starts itself.

    more: variables on top of this process's own
    """
    hidden = set(user_code.folders())
    paths = [p for p in sys.path if p and Path(p).resolve() not in hidden]
    for name in ("edgecv", module.partition(".")[0]):  # wherever they were imported from
        spec = importlib.util.find_spec(name)
        roots = [str(Path(p).parent) for p in (spec and spec.submodule_search_locations) or ()]
        # before any other installation of the same name, and after everything else
        other = next((i for i, p in enumerate(paths) if (Path(p) / name).is_dir()), len(paths))
        paths[other:other] = [root for root in roots if root not in paths[:other]]
    told = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    told[user_code.VARIABLE] = os.pathsep.join(map(str, user_code.recipes()))
    return {**os.environ, **(more or {}), **told}


def call(
    module: str,
    job: dict[str, Any],
    where: str,
    progress: Progress | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `python -m module` on a job and return its answer.

    progress:    called as progress(done, total, note) with what the child reports
    environment: variables on top of this process's own
    Raises whatever EdgecvError the child raised; EngineError when it crashed.
    """
    with tempfile.TemporaryDirectory(prefix="edgecv-") as room:
        task, answer = Path(room) / "job.json", Path(room) / "answer.json"
        task.write_text(json.dumps(job))
        start = command(module, task, answer)
        with lifeline.started(start, Path(room), variables(module, environment)) as process:
            last = listen(process, progress)
            process.wait()
        try:
            data = json.loads(answer.read_text())
        except (OSError, ValueError):
            if library := absent(module, last):
                raise not_installed(library, where) from None
            raise EngineError(where, death(process.returncode, last), "run `edgecv doctor`") from (
                None
            )
    return unpack(data)


def listen(process: subprocess.Popen[str], progress: Progress | None) -> str:
    """Pass on the child's progress until it closes its stdout; return its last own words."""
    said: deque[str] = deque(maxlen=20)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            if progress:
                progress(*json.loads(line[len(MARK) :]))
        elif line.strip():
            said.append(line.strip())
    return said[-1] if said else ""


def report(done: float, total: float, note: str = "") -> None:
    """The child's side: tell the parent how far the work is."""
    print(f"{MARK}{json.dumps([done, total, note])}", flush=True)


def unpack(data: dict[str, Any]) -> dict[str, Any]:
    """The answer that `serve` wrote. Raises the EdgecvError that it holds instead."""
    if "error" in data:
        raise revive(data["error"])
    return dict(data["answer"])


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: read the job, do the work, write the answer or the error."""
    lifeline.watch()
    task, answer = Path(sys.argv[1]), Path(sys.argv[2])
    data: dict[str, Any]
    from edgecv.files import disk_errors

    try:
        job = json.loads(task.read_text())
        with disk_errors(Path(job.get("out", task.parent))):
            data = {"answer": work(job)}
    except EdgecvError as e:
        data = {"error": [type(e).__name__, e.where, e.what, e.hint]}
    answer.write_text(json.dumps(data))


def absent(module: str, last: str) -> str:
    """The library whose absence ended a child, by its last words; "" where it ended otherwise."""
    found = re.search(r"^ModuleNotFoundError: No module named '([\w.]+)'", last)
    own = ("edgecv", module.partition(".")[0])
    return found[1] if found and found[1].partition(".")[0] not in own else ""


def death(code: int, last: str) -> str:
    """How a child's process ended, in words."""
    said = f": {last[:200]}" if last else ""
    if code < 0:
        return f"the engine died of {signal.Signals(-code).name}{said}"
    return f"the engine's process ended with code {code}{said}"


def revive(error: list[str]) -> EdgecvError:
    """The error whose type, where, what and hint these are."""
    name, *facts = error
    kind = getattr(errors, name, EngineError)
    known = isinstance(kind, type) and issubclass(kind, EdgecvError)
    return kind(*facts) if known else EngineError(*facts)
