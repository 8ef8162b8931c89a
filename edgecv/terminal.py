"""What reaches the terminal: text without control characters, and JSON that nothing is mixed with.

Strings of a file (a layer's name, a label, a note) are shown as they are but for characters that
a terminal obeys: escape sequences, carriage returns, changes of the writing direction.

Imported on devices: the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from typing import Any, TextIO

_OBEYED = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_SHOWN = {c: f"\\x{c:02x}" if c < 0x100 else f"\\u{c:04x}" for c in _OBEYED - {9, 10}}

# Where JSON goes while everything else that is printed goes to stderr.
_json: list[TextIO] = []


def printable(text: str) -> str:
    """The text with what a terminal would obey written out: "\\x1b"; lines stay lines."""
    # half a character, from JSON or a file's name, is in no encoding
    return text.translate(_SHOWN).encode(errors="backslashreplace").decode()


class Printable:
    """A text stream that is written to in `printable`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def shown(only_json: bool) -> Iterator[None]:
    """stdout in `printable`; or, only_json, for `print_json` alone: what anything else prints, a
    library's C code included, goes to stderr."""
    before = sys.stdout
    if only_json:
        with _alone(before):
            yield
        return
    sys.stdout = Printable(before)
    try:
        yield
    finally:
        sys.stdout = before


@contextmanager
def _alone(stdout: TextIO) -> Iterator[None]:
    stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # a daemon without stdout
        kept = -1
    ours = stdout
    with suppress(OSError, ValueError):  # a stream in memory is no descriptor
        if kept >= 0 and stdout.fileno() == 1:
            ours = os.fdopen(os.dup(kept), "w", encoding=stdout.encoding)
    if kept >= 0:
        _redirect()
    _json.append(ours)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout
        _json.pop()
        try:
            if ours is not stdout:
                ours.close()
        finally:
            if kept >= 0:
                import ctypes

                with suppress(OSError, AttributeError):  # what C still holds is no JSON either
                    ctypes.CDLL(None).fflush(None)
                os.dup2(kept, 1)
                os.close(kept)


def _redirect() -> None:
    """Descriptor 1 to where 2 goes, or nowhere."""
    try:
        os.dup2(2, 1)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def print_json(data: Any) -> None:
    """One JSON document on stdout; a number that is not finite is null."""
    _print(data, indent=1)


def print_json_line(data: Any) -> None:
    """One JSON document in one line of stdout, of many; a number that is not finite is null."""
    _print(data, indent=None)


def _print(data: Any, indent: int | None) -> None:
    try:
        text = json.dumps(data, indent=indent, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), indent=indent, default=str)
    print(text, file=_json[-1] if _json else None, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value
