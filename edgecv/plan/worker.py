"""The other side of `edgecv.plan.workers`: make node after node until the channel closes."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

from edgecv import lifeline, logs, source_trust
from edgecv.errors import EdgecvError
from edgecv.files import disk_errors
from edgecv.memory import keep_freed
from edgecv.models import builder_trust
from edgecv.plan import makers
from edgecv.plan.graph import Expansion

EVERY_S = 0.1  # progress is told at most so often


class Telling(logging.Handler):
    """To the process that began this one, which may be told from several threads."""

    def __init__(self, channel: Connection) -> None:
        super().__init__()
        self._channel, self._told, self._one = channel, 0.0, Lock()

    def tell(self, **message: Any) -> None:
        with self._one:
            self._channel.send_bytes(json.dumps(message).encode())

    def progress(self, done: float, total: float, note: str = "") -> None:
        if time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            self.tell(progress=[float(done), float(total), str(note)])

    def emit(self, record: logging.LogRecord) -> None:
        said = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self.tell(log={**said, "msg": record.getMessage()})


def told(error: Exception) -> dict[str, Any]:
    """An exception as JSON (`edgecv.plan.workers.revived`)."""
    if isinstance(error, EdgecvError):
        words = [error.where, error.what, error.hint]
        return {"ours": True, "type": type(error).__name__, "words": words}
    facts: list[Any] = [str(error)]
    if isinstance(error, OSError) and error.errno is not None:
        facts = [error.errno, error.strerror, error.filename and str(error.filename)]
    return {
        "ours": False,
        "type": type(error).__name__,
        "words": facts,
        "name": getattr(error, "name", None),
        "trace": "".join(traceback.format_exception(error)).rstrip(),
    }


def _work(job: dict[str, Any], expansion: Expansion, telling: Telling) -> makers.Work:
    return makers.Work(
        expansion=expansion,
        node=expansion.nodes[job["node"]],
        inputs={role: Path(folder) for role, folder in job["inputs"].items()},
        images={split: Path(folder) for split, folder in job["images"].items()},
        out=Path(job["out"]),
        progress=telling.progress,
    )


def _log_to(telling: Telling, levels: dict[str, int]) -> None:
    """Whatever is logged goes there, and nowhere else."""
    logs.quiet(levels["edgecv"] <= logging.DEBUG)
    logging.getLogger().handlers = [telling]
    logging.getLogger().setLevel(levels["root"])
    logging.getLogger("edgecv").setLevel(levels["edgecv"])


def main() -> None:
    lifeline.watch()
    keep_freed()
    channel = Connection(os.dup(0))
    with open(os.devnull) as nothing:  # noqa: PTH123  (processes that this one begins read nothing)
        os.dup2(nothing.fileno(), 0)
    telling = Telling(channel)
    telling.tell(ready=True)
    try:
        expansion, root, levels = channel.recv()
        _log_to(telling, levels)
        with source_trust.own(), builder_trust.named(expansion.recipe.builders()):
            while True:
                job = json.loads(channel.recv_bytes())
                error = None
                try:
                    with disk_errors(Path(root)):
                        makers.make(_work(job, expansion, telling))
                except Exception as e:
                    error = told(e)
                telling.tell(error=error)
    except (EOFError, OSError):  # there is no more to do, or nobody to do it for
        sys.exit()


if __name__ == "__main__":
    main()
