"""What commands share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=1, default=str))


def existing(text: str) -> Path:
    """An argparse type: a path that is there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path
