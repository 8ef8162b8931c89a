"""Some files are source code: opening them compiles or imports what their maker wrote.

A bundle of C is, and a Model folder whose builder is somebody's function. So an engine's session
(`check`) and a Model folder (`edgecv.models.builder_trust`) want to be told that the maker is
trusted, by EDGECV_TRUST_SOURCE=1. `run`, `export` trust what lies in their own folder (`own`), and
tell it to the processes and devices that measure (`passed`). Imports with the standard library
alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from edgecv.errors import TrustError

VARIABLE = "EDGECV_TRUST_SOURCE"
_OWN = ContextVar("edgecv_own_source", default=False)


def given() -> bool:
    """Whether source code may be compiled and run here."""
    return _OWN.get() or told()


def told() -> bool:
    """Whether the user said that source code is to be trusted, of whatever it is."""
    return os.environ.get(VARIABLE) == "1"


@contextmanager
def telling(trusted: bool) -> Iterator[None]:
    """What `--trust` says, here and in the processes that are started meanwhile."""
    before = os.environ.get(VARIABLE)
    if trusted:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if trusted:
            os.environ.pop(VARIABLE)
            os.environ.update({} if before is None else {VARIABLE: before})


def check(engine: str) -> None:
    """Raises TrustError where nobody said that the source is to be trusted."""
    if not given():
        what = "its files are source code, which opening compiles and runs"
        raise TrustError(engine, what, f"if you trust who made them: {VARIABLE}=1")


@contextmanager
def own() -> Iterator[None]:
    """Trust what this thread opens meanwhile: this run made it."""
    before = _OWN.set(True)
    try:
        yield
    finally:
        _OWN.reset(before)


def passed() -> dict[str, str]:
    """What a child's or a device's environment is to say of it."""
    return {VARIABLE: "1"} if given() else {}
