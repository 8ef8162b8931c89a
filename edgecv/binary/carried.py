"""Kernels on a device: built there, once a job, from the sources that came in its kit.

The kit is a zip; the job's room (`edgecv.device.remote`) is its own folder and goes with the job.
Imports with the standard library alone.
"""

from __future__ import annotations

import logging
import os
import subprocess
from functools import cache
from pathlib import Path
from zipfile import ZipFile

from edgecv.binary.build import NAME, build, compiler

log = logging.getLogger(__name__)
ROOM = "EDGECV_ROOM"
FOLDER = "edgecv/binary/c/"


@cache
def built() -> Path | None:
    """The library of this job; None where this is no device's job or nothing compiles it."""
    archive, cc = getattr(globals().get("__loader__"), "archive", None), compiler()
    if archive is None or cc is None or ROOM not in os.environ:
        return None
    out = Path(os.environ[ROOM]) / "kernels" / NAME
    if out.is_file():  # another process of this job built it
        return out
    sources = out.parent / "c"
    sources.mkdir(parents=True, exist_ok=True)
    with ZipFile(archive) as kit:
        for name in kit.namelist():
            if name.startswith(FOLDER) and Path(name).suffix in (".c", ".h"):
                (sources / Path(name).name).write_bytes(kit.read(name))
    try:
        return build(out, cc, sources=sources)
    except (OSError, subprocess.CalledProcessError) as e:
        said = " ".join(str(getattr(e, "stderr", None) or e).split())[:200]
        log.warning("the binary kernels could not be built: %s", said)
        return None
