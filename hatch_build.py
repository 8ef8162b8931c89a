"""Builds the binary kernels when the package is built or installed, where there is a compiler."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What every Linux of PEP 600 has, of what C code alone may ask for.
LIBC = {b"libc.so.6", b"libm.so.6", b"libdl.so.2", b"libpthread.so.0", b"librt.so.1"}


class Kernels(BuildHookInterface):
    """Without a compiler, or when it fails, the package is made without them: `edgecv doctor`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version
        path = Path(self.root) / "edgecv" / "binary" / "build.py"
        spec = importlib.util.spec_from_file_location("kernels", path)
        kernels: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels)
        cc = kernels.compiler()
        if self.target_name != "wheel" or cc is None:
            return
        try:
            made = kernels.build(path.parent / kernels.NAME, cc)
        except (OSError, subprocess.CalledProcessError) as e:
            self.app.display_warning(f"no binary kernels: {getattr(e, 'stderr', None) or e}")
            return
        build_data["artifacts"].append(str(made.relative_to(self.root)))
        build_data["pure_python"] = False
        # by ctypes and ONNX Runtime alone: any Python, this system
        build_data["tag"] = f"py3-none-{platform_tag(made.read_bytes())}"


def platform_tag(library: bytes) -> str:
    """Of a wheel that holds this shared library: manylinux (PEP 600) by the newest symbol that it
    asks of glibc, 2.17 at least, as pip knows none that is older; this system's own tag where it
    reads any other library, or no glibc."""
    tag = re.sub("[-.]", "_", sysconfig.get_platform())
    words = set(library.split(b"\0"))  # names of symbols and libraries stand between zeros
    symbols = [re.fullmatch(rb"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", w) for w in words]
    glibc = [(int(m[1]), int(m[2])) for m in symbols if m]
    others = {w for w in words if re.fullmatch(rb"lib[\w.+-]*\.so[.\d]*", w)} - LIBC
    if sys.platform != "linux" or not glibc or others:
        return tag
    major, minor = max(*glibc, (2, 17))
    return f"manylinux_{major}_{minor}_{tag.removeprefix('linux_')}"
