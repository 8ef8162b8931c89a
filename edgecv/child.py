"""Running vendor code in a process of its own: a crash there is an error here, never a lost run.

The parent hands over a JSON job and reads a JSON answer; an EdgecvError travels with its type. What
the engine prints is kept aside and shown only when it dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecv import errors
from edgecv.errors import EdgecvError, EngineError


def call(module: str, job: dict[str, Any], where: str) -> dict[str, Any]:
    """Run `python -m module` on a job and return its answer.

    Raises whatever EdgecvError the child raised; EngineError when it crashed.
    """
    with tempfile.TemporaryDirectory(prefix="edgecv-") as room:
        task, answer = Path(room) / "job.json", Path(room) / "answer.json"
        task.write_text(json.dumps(job))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        process = subprocess.run(
            [sys.executable, "-m", module, str(task), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
        try:
            data = json.loads(answer.read_text())
        except (OSError, ValueError):
            raise EngineError(where, _death(process), "run `edgecv doctor`") from None
    if "error" in data:
        raise _revive(data["error"])
    return dict(data["answer"])


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: read the job, do the work, write the answer or the error."""
    task, answer = Path(sys.argv[1]), Path(sys.argv[2])
    data: dict[str, Any]
    from edgecv.store import disk_errors

    try:
        job = json.loads(task.read_text())
        with disk_errors(Path(job.get("out", task.parent))):
            data = {"answer": work(job)}
    except EdgecvError as e:
        data = {"error": [type(e).__name__, e.where, e.what, e.hint]}
    answer.write_text(json.dumps(data))


def _death(process: subprocess.CompletedProcess[bytes]) -> str:
    said = process.stdout.decode(errors="replace").strip().splitlines()
    last = f": {said[-1][:200]}" if said else ""
    if process.returncode < 0:
        return f"the engine died of {signal.Signals(-process.returncode).name}{last}"
    return f"the engine's process ended with code {process.returncode}{last}"


def _revive(error: list[str]) -> EdgecvError:
    name, *facts = error
    kind = getattr(errors, name, EngineError)
    return kind(*facts) if issubclass(kind, EdgecvError) else EngineError(*facts)
