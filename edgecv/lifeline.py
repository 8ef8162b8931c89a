"""A process that ends with the one that began it, however that ends, and leaves nothing behind.

The parent holds one end of a pipe and the child waits at the other: when the parent is gone, even
by SIGKILL, the pipe closes. The child is the first of a session of its own, so that what it has
started (a compiler, a converter) ends with it, and its temporary files lie in the parent's room.

    parent stopped (SIGINT, SIGTERM, SIGHUP)   child's session gets SIGTERM, then SIGKILL
    parent killed                              child removes the room and kills its session
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

LIFELINE = "EDGECV_LIFELINE"  # descriptor:room, for the child alone
GRACE_S = 1.0  # from SIGTERM to SIGKILL: an engine may be deep in its own code


@contextmanager
def started(
    command: Sequence[str],
    room: Path,
    environment: Mapping[str, str],
    stdout: int | IO[str] | None = subprocess.PIPE,
    stderr: int | IO[str] | None = subprocess.STDOUT,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """A running command whose Python calls `watch`; it is over when the block is left.

    room: a temporary folder of the caller's, in which the child's own temporary files go
    """
    scratch = room / "tmp"
    scratch.mkdir(exist_ok=True)
    theirs, ours = os.pipe()
    try:
        told = {LIFELINE: f"{theirs}:{room}", "TMPDIR": str(scratch)}
        try:
            process = subprocess.Popen(
                list(command),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={**environment, **told},
                pass_fds=(theirs,),
                start_new_session=True,
                text=True,
                errors="replace",
            )
        finally:
            os.close(theirs)
        with process:
            try:
                yield process
            except BaseException:  # also Ctrl-C: nothing goes on measuring unseen
                end(process)
                raise
    finally:
        os.close(ours)


def end(process: subprocess.Popen[str]) -> None:
    """End a process and all of its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.killpg(process.pid, number)
        if number == signal.SIGTERM:
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)


def watch() -> None:
    """The child's side, before it works: end when the parent does. Nothing without a parent that
    holds the other end."""
    held = os.environ.pop(LIFELINE, None)
    if held is None:
        return
    descriptor, _, room = held.partition(":")
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_wait, args=(int(descriptor), Path(room)), daemon=True).start()


def _leave(*_: object) -> NoReturn:
    """Temporary folders are removed on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


def _wait(descriptor: int, room: Path) -> None:
    with suppress(OSError):
        os.read(descriptor, 1)
    shutil.rmtree(room, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)
