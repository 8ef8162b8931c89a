"""One caller at a time, and none after the end: what every session and every bundle is used under.

An engine's buffers belong to one call (the arena of generated C, LiteRT's tensors, OpenVINO's
request), so a second thread waits for its turn; after `end` there is no memory left to write into,
so a call raises.

Imported on devices: the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Any, TypeVar

from edgecv.errors import EdgecvError, EngineError

Method = TypeVar("Method", bound=Callable[..., Any])


class Turn:
    """`with turn:` around whatever touches the engine; one thread may nest its turns.

    where, kind: of the error that is raised after the end
    """

    def __init__(self, where: str, kind: type[EdgecvError] = EngineError) -> None:
        self._where, self._kind = where, kind
        self._lock, self._over = RLock(), False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._over:
            self._lock.release()
            raise self._kind(self._where, "was closed", "open it again to run it")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def end(self) -> bool:
        """Wait for the call that is under way, then let none begin; False where it was so."""
        with self._lock:
            first, self._over = not self._over, True
        return first


def in_turn(method: Method) -> Method:
    """A method that runs under its object's `_turn`."""

    @wraps(method)
    def waits(self: Any, *arguments: Any, **options: Any) -> Any:
        with self._turn:
            return method(self, *arguments, **options)

    return waits  # type: ignore[return-value]
