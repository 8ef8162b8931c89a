"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it started ends, temporary folders go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

SIGNALS = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n))


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end. exit_code: 128 + its number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread at the first of SIGNALS; cleaning up is not interrupted.

    A signal that is ignored (`nohup`) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in SIGNALS}
    taken = [n for n, old in before.items() if old is signal.SIG_DFL]

    def stop(number: int, _: object) -> NoReturn:
        for n in taken:
            signal.signal(n, signal.SIG_IGN)
        raise Stopped(number)

    for n in taken:
        signal.signal(n, stop)
    try:
        yield
    finally:
        for n in taken:
            signal.signal(n, before[n])
