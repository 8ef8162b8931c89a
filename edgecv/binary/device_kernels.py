"""Kernels on a device: built there, once a job, from the sources that came in its kit.

The kit is a zip; the job's room (`edgecv.device.remote`) is its own folder and goes with the job.
Imports with the standard library alone.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from edgecv.binary.build import NAME, build, compiler

log = logging.getLogger(__name__)
ROOM = "EDGECV_ROOM"
FOLDER = "edgecv/binary/c/"


@cache
def built() -> Path | None:
    """The library of this job; None: this is no device's job, or it was not compiled or loaded."""
    archive, cc = getattr(globals().get("__loader__"), "archive", None), compiler()
    if archive is None or cc is None or ROOM not in os.environ:
        return None
    folder = Path(os.environ[ROOM]) / "kernels"
    out, failed = folder / NAME, folder / "failed"
    if not out.is_file() and not failed.is_file():  # else another process of this job was here
        folder.mkdir(exist_ok=True)
        if said := _build(archive, cc, out):
            log.warning("the binary kernels could not be built: %s", " ".join(said.split())[:200])
            failed.touch()
    return None if failed.is_file() else out


def _build(archive: str, cc: str, out: Path) -> str:
    """Why there is no library that loads, or ""."""
    try:
        with TemporaryDirectory(dir=out.parent) as sources, ZipFile(archive) as kit:
            for name in kit.namelist():
                if name.startswith(FOLDER):
                    (Path(sources) / Path(name).name).write_bytes(kit.read(name))
            build(out, cc, sources=Path(sources))
        ctypes.CDLL(str(out))  # not where programs may not run: noexec
    except (OSError, subprocess.CalledProcessError) as e:
        return str(getattr(e, "stderr", None) or e)
    return ""
