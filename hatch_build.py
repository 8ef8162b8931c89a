"""Builds the binary kernels when the package is built or installed, where there is a compiler."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


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
        build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
