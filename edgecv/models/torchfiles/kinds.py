"""Which of PyTorch's formats a file is, by what is in it; its name says little.

torchscript   a zip with code/ beside data.pkl, as torch.jit.save writes
program       a zip with models/*.json, as torch.export.save writes
weights       any other zip with data.pkl, or a pickle, as torch.save writes
safetensors   a JSON header, then numbers
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from edgecv.errors import ModelError

# What reading a damaged zip archive raises.
ZIP_ERRORS = (
    zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError, KeyError,
    OverflowError, struct.error, zlib.error,
)  # fmt: skip
HEADER = 100_000_000  # bytes: the most that safetensors itself allows


def kind(path: Path) -> str:
    """One of the words above. Raises ModelError: no such file, none of these, damaged."""
    where = path.name
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError(where, "is a folder, and no file of PyTorch's")
        with path.open("rb") as file:
            begin = file.read(64)
    except FileNotFoundError:
        raise ModelError(
            where, "no such file", "" if str(path) == where else f"looked up as {path}"
        ) from None
    except OSError as e:
        raise ModelError(where, f"cannot be read: {e.strerror}") from None
    if begin.startswith(b"version https://git-lfs"):
        what = "is a Git LFS pointer, not the file"
        raise ModelError(where, what, "fetch it: git lfs pull")
    if begin.startswith(b"PK"):
        return _archive(path)
    if begin.startswith(b"\x80"):
        return "weights"
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < min(HEADER, size):
        return "safetensors"
    if begin[:1] in (b"<", b"{"):
        raise ModelError(where, "is text and no file of PyTorch's", "download the file itself")
    if len(begin) < 64:
        raise ModelError(where, f"has {size} bytes", "truncated? copy it again")
    what = "is none of the formats of PyTorch"
    raise ModelError(where, what, "a state dict by torch.save, or .safetensors")


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
    except ZIP_ERRORS:
        what = "is a damaged zip archive"
        raise ModelError(path.name, what, "truncated? copy it again") from None
    if "data.pkl" in inside:
        return "torchscript" if any(n.startswith("code/") for n in inside) else "weights"
    if any(n.startswith("models/") and n.endswith(".json") for n in inside):
        return "program"
    what = "is a zip archive, and none of PyTorch's"
    raise ModelError(path.name, what, "a state dict by torch.save, or .safetensors")


def check_sums(path: Path) -> None:
    """Raises ModelError where a member of a zip archive is not what was written: torch.load does
    not look. Files written without sums (torch.serialization.set_crc32_options) have none right."""
    wrong, right = "", 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            try:
                with archive.open(member) as file:
                    while file.read(1 << 20):
                        pass
                right += member.file_size > 0
            except ZIP_ERRORS:
                wrong = wrong or member.filename
    if wrong and right:
        what = f"is damaged: {wrong!r} does not match its checksum"
        raise ModelError(path.name, what, "copy it again")
