"""What was parsed of our own sources, kept in the user's cache folder: parsing them is most of the
time that a plan takes.

An entry holds for one content of one file (SHA-256) and one parser, so an edit is never missed. A
file that is damaged, or a folder that cannot be written to, only means to parse again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgecv.keys.parsed import Parsed

PARSER = Path(__file__).with_name("parsed.py")


def folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "edgecv"


class ParsedCache:
    """Module -> what its source is, parsed. Reads its file when it is first asked."""

    def __init__(self, where: Path) -> None:
        """where: the folder of its file; it need not be there"""
        parser = hashlib.sha256(PARSER.read_bytes() + sys.version.encode()).hexdigest()[:16]
        self.path = where / f"parsed-{parser}.json"
        self.entries: dict[str, Any] = self._read()
        self.new = False

    def get(self, module: str, source: bytes) -> Parsed | None:
        """None where there is nothing of this content."""
        entry = self.entries.get(module)
        if not entry or entry["of"] != _sha(source):
            return None
        sets = {k: frozenset(v) for k, v in entry["parsed"].items() if isinstance(v, list)}
        return Parsed(**{**entry["parsed"], **sets})

    def put(self, module: str, source: bytes, parsed: Parsed) -> None:
        plain = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(parsed).items()}
        self.entries[module] = {"of": _sha(source), "parsed": plain}
        self.new = True

    def save(self) -> None:
        """Write what is new, if there is something and the folder can be written to."""
        if not self.new:
            return
        self.new = False
        body = json.dumps(self.entries, sort_keys=True)
        temporary = self.path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(_sha(body.encode()) + "\n" + body)
            temporary.replace(self.path)

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            said, _, body = self.path.read_text().partition("\n")
            if said == _sha(body.encode()):
                return dict(json.loads(body))
        return {}


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
