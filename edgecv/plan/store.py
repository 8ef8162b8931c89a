"""Store: every finished step's result, kept under the digest of everything it was made from.

    <root>/done/<digest>/       a finished result: its files, and key.json
    <root>/partial/<digest>/    a result in the making; a killed step finds its checkpoint here
    <root>/last/<node>.json     the key a node had when it last finished, to explain a rerun
    <root>/lock                 held by the one run that writes

A result appears in done/ by one rename after all its files are on disk, so it is whole or absent.
key.json holds the SHA-256 of every file: `damage` says, before a result is used, which one is no
longer what was written.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecv.errors import StoreError
from edgecv.files import FULL, digest, disk_errors, file_sha256, fsync, write_atomic

Key = dict[str, Any]


class Store:
    """Results by digest. Readers need no lock; one run writes at a time (`locked`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sound: set[str] = set()  # results that were hashed once

    def get(self, digest: str) -> Path | None:
        """The folder of a finished result, or None (also when files of it were deleted)."""
        folder = self.root / "done" / digest
        try:
            sizes = json.loads((folder / "key.json").read_text())["files"]
            whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return folder if whole else None

    def damage(self, digest: str) -> str:
        """The first file of a finished result that differs from what was written; "" for none.

        Every file is read, once in the life of this object. Results of an edgecv that kept no
        SHA-256 count as sound.
        """
        if digest in self._sound:
            return ""
        folder = self.root / "done" / digest
        try:
            written = json.loads((folder / "key.json").read_text()).get("sha256", {})
            for name, sha256 in written.items():
                if file_sha256(folder / name) != sha256:
                    return str(name)
        except (OSError, ValueError, AttributeError):
            return "key.json"
        self._sound.add(digest)
        return ""

    def begin(self, digest: str, resumable: bool) -> Path:
        """A folder to make a result in. A resumable one keeps what a killed run left there."""
        folder = self.root / "partial" / digest
        if not resumable:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, node: str, digest: str, key: Key, seconds: float | None = None) -> Path:
        """Move a result that is whole from partial/ to done/, and remember its key.

        seconds: how long it took to make, kept beside the key and no part of it
        """
        folder, final = self.root / "partial" / digest, self.root / "done" / digest
        sizes, sha256 = {}, {}
        for left in folder.glob(".key.json.*.tmp"):  # of a run that was killed right here
            left.unlink()
        (folder / "key.json").unlink(missing_ok=True)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            fsync(path)
            name = path.relative_to(folder).as_posix()
            sizes[name], sha256[name] = path.stat().st_size, file_sha256(path)
        data: dict[str, Any] = {"key": key, "files": sizes, "sha256": sha256}
        if seconds is not None:
            data["seconds"] = round(seconds, 3)
        write_atomic(folder / "key.json", json.dumps(data, indent=1))
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        fsync(final.parent)
        self._sound.add(digest)
        self.remember(node, key)
        return final

    def discard(self, digest: str) -> None:
        """Throw away a result in the making."""
        shutil.rmtree(self.root / "partial" / digest, ignore_errors=True)

    def remember(self, node: str, key: Key) -> None:
        """Keep the key a node was last satisfied with."""
        if self.recall(node) != key:
            (self.root / "last").mkdir(parents=True, exist_ok=True)
            write_atomic(self.root / "last" / f"{digest(node)}.json", json.dumps(key))

    def recall(self, node: str) -> Key | None:
        """The key the node had when it last finished, or None."""
        try:
            data = json.loads((self.root / "last" / f"{digest(node)}.json").read_text())
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for writing. Raises StoreError when another run holds it."""
        with disk_errors(self.root):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                handle = (self.root / "lock").open("w")
            except OSError as e:
                if e.errno in FULL:
                    raise
                what = f"cannot be written: {e.strerror}"
                raise StoreError(str(self.root), what, "use another --out") from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreError(
                    str(self.root), "another run is writing here", "wait for it, or use --out"
                ) from None
            yield


def seconds_of(folder: Path) -> float | None:
    """How long a finished result took when it was made; None where that was not kept."""
    try:
        seconds = json.loads((folder / "key.json").read_text())["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) else None
