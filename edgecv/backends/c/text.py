"""Numbers, comments and names as C has them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np


def number(value: Any) -> str:
    """A number or a name in C."""
    if isinstance(value, (float, np.floating)):
        if np.isinf(value):
            return "3.402823466e+38f" if value > 0 else "-3.402823466e+38f"
        text = f"{np.float32(value):.9g}"
        return f"{text}f" if any(c in text for c in ".en") else f"{text}.0f"
    if isinstance(value, (int, np.integer)):
        return f"({value})" if value < 0 else str(value)
    return str(value)


def safe(text: str) -> str:
    """Text in a comment."""
    return re.sub(r"[^\w ./:-]", "_", text)


def literal(name: str) -> str:
    """A tensor's own name inside a C string: it is how a bundle calls what it gives."""
    return "".join(c if safe(c) == c else "".join(f"\\{b:03o}" for b in c.encode())
                   for c in name)  # fmt: skip
