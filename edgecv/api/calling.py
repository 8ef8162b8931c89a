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
    from edgecv.nodes import Node

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
    """A `pipeline.Reporter` that tells a Progress: done and total count the steps of the run."""

    def __init__(self, tell: Progress | None) -> None:
        self._tell = telling(tell)
        self._index, self._total, self._name = 0, 1, ""

    def start(self, node: Node, index: int, total: int) -> None:
        self._index, self._total, self._name = index, total, node.id
        self._tell(index, total, node.id)

    def progress(self, done: int, total: int, note: str = "") -> None:
        share = min(1.0, done / total) if total else 0.0
        self._tell(self._index + share, self._total, f"{self._name} {note}".strip())

    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None:
        del seconds
        if node.id == self._name:
            self._tell(self._index + 1, self._total, f"{node.id} {status} {note}".strip())
