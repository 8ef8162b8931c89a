"""A bundle of C is source code: opening it compiles and runs what its maker wrote.

So a session wants to be told that the maker is trusted, by EDGECV_TRUST_SOURCE=1; a run trusts what
it makes itself (`own`). Children and devices are told with the environment (`passed`). Imports with
the standard library alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from edgecv.errors import EngineError

VARIABLE = "EDGECV_TRUST_SOURCE"


def check(engine: str) -> None:
    """Raises EngineError where nobody said that the source is to be trusted."""
    if os.environ.get(VARIABLE) != "1":
        what = "its files are source code, which opening compiles and runs"
        raise EngineError(engine, what, f"if you trust who made them: {VARIABLE}=1")


@contextmanager
def own() -> Iterator[None]:
    """Trust what is opened meanwhile, here and in child processes: this run makes it."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def passed() -> dict[str, str]:
    """What a device's environment is to say of it."""
    return {k: v for k, v in os.environ.items() if k == VARIABLE}
