"""Files: digests, writing that is whole or absent, and what a full disk says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecv.errors import StoreError


def canonical(data: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)


def digest(data: Any) -> str:
    """32 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Ask the disk to keep a file or a folder's list of names."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file that is either the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def publish(source: Path, path: Path) -> None:
    """Put a copy of a finished file (or folder) where the user looks for it, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if source.is_dir():
            shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("key.json"))
            shutil.rmtree(path, ignore_errors=True)
        else:
            shutil.copyfile(source, temporary)
        temporary.replace(path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        raise


def check_folder(folder: Path, option: str = "--out") -> None:
    """Before the work: raises StoreError where it cannot be a folder that is written to. Makes
    nothing. option: that which names it"""
    there = next(
        p for p in (folder, *folder.parents, *folder.absolute().parents) if os.path.lexists(p)
    )
    if not there.is_dir():
        what = "is a file, not a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to"
    else:
        return
    what = what if there == folder else f"cannot be made: {there} {what}"
    raise StoreError(str(folder), what, f"give {option} another folder")


def check_file(path: Path, option: str, appends: bool = False) -> None:
    """Before the work: raises StoreError where no file of that name can be written, or added to.
    Makes nothing. option: that which names it"""
    folder, hint = path.parent, f"give {option} another file"
    if path.is_dir():
        raise StoreError(str(path), "is a folder, not a file", hint)
    if not os.path.lexists(folder):
        inside = next(p for p in folder.absolute().parents if os.path.lexists(p))
        hint = f"mkdir -p {folder}" if inside.is_dir() else hint
        raise StoreError(str(path), "its folder is not there", hint)
    if not folder.is_dir():
        raise StoreError(str(path), f"{folder} is a file, not a folder", hint)
    if appends and path.exists():
        if not os.access(path, os.W_OK):
            raise StoreError(str(path), "cannot be written to", hint)
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(str(path), "its folder cannot be written to", hint)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


FULL_WORDS = ("No space left", "StorageFull", *(f"os error {number})" for number in FULL))


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a StoreError; nothing that was finished is lost.

    Libraries wrap the operating system's error in types of their own (safetensors, torch, zip), so
    any failure while the disk is full is laid to the disk.
    """
    try:
        yield
    except OSError as e:
        if e.errno in FULL:
            raise _full(where) from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            place = str(e.filename or where)
            raise StoreError(place, f"cannot be written: {e.strerror}", "use another --out") from e
        raise
    except Exception as e:
        if any(word in str(e) for word in FULL_WORDS):
            raise _full(where) from e
        raise


def _full(where: Path) -> StoreError:
    hint = "free some space and run the same command again: finished steps are kept"
    return StoreError(str(where), "no space left on the disk", hint)
