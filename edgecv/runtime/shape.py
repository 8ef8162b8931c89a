"""Plain JSON of unknown origin: read within bounds, and compared with the shape it must have.

A shape is a type, a tuple of types, `Number` or `Text` (a range), a list of shapes (of that
length), a dict of shapes, or `Every` (a list of any length, a dict of any keys). A key that ends in
"?" may be absent or null; other keys than a dict's own are allowed unless it is `Only`.

Imported on devices: the standard library only.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

NUMBER = (int, float)
# Lists and mappings take some 30 times their bytes when read; texts and numbers a few times.
CONTAINERS = 1_000_000
BYTES = 256 << 20


@dataclass(frozen=True)
class Every:
    """A list whose items, or a dict whose values, all have one shape."""

    container: type
    shape: Any


@dataclass(frozen=True)
class Only:
    """A dict of shapes that has no other keys."""

    keys: dict[str, Any]


@dataclass(frozen=True)
class Number:
    """A finite number within bounds, both included; whole: an int."""

    least: float
    most: float
    whole: bool = False


@dataclass(frozen=True)
class Text:
    """A string of so many characters at the most, or one of `among`."""

    most: int = 0
    among: tuple[str, ...] = ()


def whole(least: int, most: int = 1 << 53) -> Number:
    """An int within bounds."""
    return Number(least, most, True)


def load(path: Path, limit: int = BYTES) -> Any:
    """A JSON file. Raises ValueError, which says what is wrong, and OSError."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("is no regular file")
    if about.st_size > limit:
        raise ValueError(f"has {about.st_size:,} bytes")
    return loads(path.read_bytes())


def loads(data: bytes) -> Any:
    """JSON in memory that is bounded by its bytes. Raises ValueError, which says what is wrong."""
    if data.count(b"[") + data.count(b"{") > CONTAINERS:
        raise ValueError(f"holds more than {CONTAINERS:,} lists")
    try:
        return json.loads(data, parse_constant=_no_number)
    except json.JSONDecodeError as e:
        raise ValueError(f"is not JSON: {e.msg} in line {e.lineno}") from None
    except UnicodeDecodeError:
        raise ValueError("is not JSON: it is no text in UTF-8") from None
    except RecursionError:
        raise ValueError("is not JSON: it is too deep") from None
    except ValueError as e:  # or a number of thousands of digits
        what = e.args[0] if isinstance(e, _NoNumberError) else "a number is too long"
        raise ValueError(f"is not JSON: {what}") from None


class _NoNumberError(ValueError):
    """NaN or an infinity, which JSON does not have."""


def _no_number(text: str) -> float:
    raise _NoNumberError(f"{text} is no number")


def wrong(value: Any, shape: Any, where: str = "") -> str:
    """Where the value is not of that shape, and what it is instead; "" when it fits."""
    if isinstance(shape, Every):
        if not isinstance(value, shape.container):
            return _not(value, where)
        inside: Any = value
        items = inside.items() if shape.container is dict else enumerate(inside)
        return _first(wrong(v, shape.shape, _at(where, k)) for k, v in items)
    if isinstance(shape, Only):
        return wrong(value, shape.keys, where) or _unknown(value, shape, where)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _not(value, where)
        return _first(_key(value, key, inner, where) for key, inner in shape.items())
    if isinstance(shape, list):
        if not isinstance(value, list) or len(value) != len(shape):
            return _not(value, where)
        pairs = zip(value, shape, strict=True)
        return _first(wrong(v, s, _at(where, i)) for i, (v, s) in enumerate(pairs))
    return "" if _fits(value, shape) else _not(value, where)


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, Number):
        kinds = int if shape.whole else NUMBER
        plain = isinstance(value, kinds) and not isinstance(value, bool)
        return plain and shape.least <= value <= shape.most
    if isinstance(shape, Text):
        if shape.among:
            return isinstance(value, str) and value in shape.among
        return isinstance(value, str) and len(value) <= shape.most and not _surrogates(value)
    if isinstance(value, bool) and shape is not bool:
        return False
    if isinstance(value, float) and not isfinite(value):
        return False
    if isinstance(value, int) and abs(value) > 1 << 63:
        return False
    return isinstance(value, shape)


def _surrogates(text: str) -> bool:
    """Whether a text holds half a character, which no file can hold."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _unknown(value: dict[str, Any], shape: Only, where: str) -> str:
    known = {key.rstrip("?") for key in shape.keys}
    extra = next((key for key in value if key not in known), None)
    return "" if extra is None else f"{where or 'it'} cannot have {extra[:40]!r}"


def _key(value: dict[str, Any], key: str, shape: Any, where: str) -> str:
    name = key.rstrip("?")
    if value.get(name) is None:
        return "" if key.endswith("?") else f"{where or 'it'} has no {name!r}"
    return wrong(value[name], shape, _at(where, name))


def _at(where: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{where}[{key}]"
    key = key if len(key) <= 40 and key.isprintable() else repr(key[:40])
    return f"{where}.{key}" if where else key


def _not(value: Any, where: str) -> str:
    return f"{where or 'it'} cannot be {_short(value)}"


def _short(value: Any) -> str:
    """A value in few words, without writing out what is large."""
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, dict | list):
        kind = "a mapping" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}"
    if isinstance(value, int) and abs(value) > 1 << 63:
        return "a number of that size"
    return repr(json.dumps(value))


def _first(found: Iterable[str]) -> str:
    return next(filter(None, found), "")
