"""What the functions of the API share: paths, progress, errors by the keywords' names."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from edgecv.errors import EdgecvError, StoreError, not_installed

if TYPE_CHECKING:
    from edgecv.plan.node import Node

StrPath = str | os.PathLike[str]
# progress(done, total, note): in steps, whole or not; total may grow
Progress = Callable[[float, float, str], None]

P = ParamSpec("P")
R = TypeVar("R")
_OPTION = re.compile(r"--([a-z][a-z-]*)")
_KEYWORDS = {"target": "targets", "set": "settings"}  # options that are not called as the keyword


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the API: whatever goes wrong outside of the caller's own code is an EdgecvError
    that speaks of keywords and not of the command's options."""

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        with errors(function.__name__):
            return function(*args, **named)

    return call


@contextmanager
def errors(name: str) -> Iterator[None]:
    """Raises EdgecvError for what the function of that name meets inside."""
    try:
        yield
    except EdgecvError as e:
        e.where, e.what, e.hint = e.args = (*map(spelled, (e.where, e.what, e.hint)),)
        raise
    except ModuleNotFoundError as e:
        if (e.name or "edgecv").partition(".")[0] == "edgecv":
            raise
        raise not_installed(e.name or "", f"edgecv.{name}") from e
    except OSError as e:
        raise StoreError(str(e.filename or f"edgecv.{name}"), str(e.strerror or e)) from e


def spelled(text: str) -> str:
    """Options as keywords; a command to be typed stays as it is."""
    return text if "edgecv " in text else _OPTION.sub(_keyword, text)


def _keyword(option: re.Match[str]) -> str:
    word = option[1].replace("-", "_")
    return _KEYWORDS.get(word, word)


def path_of(value: StrPath | None) -> Path | None:
    """A path, or None."""
    return None if value is None else Path(value)


def one_or_several(values: Any) -> list[Any]:
    """A list of one path or name, or of those that are given."""
    return [values] if isinstance(values, str | os.PathLike) else list(values)


def telling(progress: Progress | None) -> Callable[..., None]:
    """A Progress to be called without a note too, and where there is none."""

    def tell(done: float, total: float, note: str = "") -> None:
        if progress is not None:
            progress(done, total, note)

    return tell


class Steps:
    """A Reporter (`edgecv.plan.execute`) that tells a Progress; done and total count steps."""

    def __init__(self, tell: Progress | None) -> None:
        self._tell = telling(tell)
        self._done, self._total = 0, 1
        self._shares: dict[str, float] = {}  # of the steps that run

    def start(self, node: Node, index: int, total: int) -> None:
        self._done, self._total, self._shares[node.id] = index, total, 0.0
        self._say(node.id)

    def progress(self, node: Node, done: float, total: float, note: str = "") -> None:
        if node.id in self._shares:
            self._shares[node.id] = min(1.0, done / total) if total else 0.0
        self._say(f"{node.id} {note}".strip())

    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None:
        del seconds
        if self._shares.pop(node.id, None) is not None:
            self._done += 1
            self._say(f"{node.id} {status} {note}".strip())

    def _say(self, note: str) -> None:
        self._tell(self._done + sum(self._shares.values()), self._total, note)
