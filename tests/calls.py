"""How much Python a call takes: what its overhead is made of, whatever the machine and its load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def calls(work: Callable[[], Any]) -> int:
    """Functions, Python's and C's, that `work` calls."""
    seen: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda *told: seen.append(told[1]))
    try:
        work()
    finally:
        sys.setprofile(before)
    return sum(event in ("call", "c_call") for event in seen)
