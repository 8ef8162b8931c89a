"""Subnormal numbers taken as zero by the processor itself, for the calls inside a `with`.

    MXCSR |= FTZ | DAZ      x86-64: bits 15 and 6 ("Intel 64 and IA-32 Architectures", 10.2.3)

A multiplication with a subnormal operand is done in microcode there and takes some hundred times as
long; with these bits set it takes what any other does. They belong to a thread: what an engine
computes on threads of its own is not touched, so this holds for one engine thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

FTZ_DAZ = 0x8040


class _Environment(ctypes.Structure):
    """fenv_t of glibc on x86-64 (bits/fenv.h): the x87 state, then MXCSR."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


def possible() -> bool:
    """Whether this machine's subnormals can be switched off here (x86-64 Linux with glibc)."""
    return _library() is not None


@contextlib.contextmanager
def flushing() -> Iterator[None]:
    """Inside, this thread takes subnormals as zero. Does nothing where that is not `possible`."""
    library = _library()
    if library is None:
        yield
        return
    usual = _Environment()
    library.fegetenv(ctypes.byref(usual))
    changed = _Environment.from_buffer_copy(usual)
    changed.mxcsr |= FTZ_DAZ
    library.fesetenv(ctypes.byref(changed))
    try:
        yield
    finally:
        library.fesetenv(ctypes.byref(usual))


@cache
def _library() -> Any:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if not x86 or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    try:
        return ctypes.CDLL("libm.so.6")
    except OSError:
        return None
