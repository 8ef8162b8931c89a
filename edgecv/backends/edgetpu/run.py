"""Coral Edge TPU on the device: LiteRT with the libedgetpu delegate.

A bundle that was not compiled for the Edge TPU is plain full-integer TFLite and runs on the CPU;
`Session.on_device` says which it is.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecv.backends.tflite import run as tflite
from edgecv.errors import EngineError, MissingExtraError
from edgecv.runtime.spec import Probe, Profile
from edgecv.runtime.turn import in_turn

_LIBRARIES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib"}
LIBRARY = _LIBRARIES.get(sys.platform, "edgetpu.dll")
# The name of the one custom operator that stands for a compiled subgraph.
CUSTOM_OP = "edgetpu-custom-op"


def probe() -> Probe:
    """Whether LiteRT and libedgetpu are here; a device is only seen when a session opens."""
    host = tflite.probe()
    if not host.available:
        return Probe("edgetpu", False, None, host.reason, host.extra)
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return Probe("edgetpu", False, host.version, f"{LIBRARY} is not installed: {_cure()}", "")
    return Probe("edgetpu", True, f"{host.version}, {LIBRARY}", "", "")


def _cure() -> str:
    """What brings the runtime and the compiler to this machine, or that there is none for it."""
    system, processor = platform.system(), platform.machine()
    linux = system == "Linux"
    brings = "Debian package libedgetpu1-std brings" if linux else "runtime archive holds"
    if linux and processor in ("x86_64", "AMD64"):
        return f"Coral's {brings} it; its package edgetpu-compiler compiles for it"
    none = f"there is no compiler for {system} on {processor}: compile on x86-64 Linux"
    return f"Coral's {brings} it; {none}"


class Session(tflite.Session):
    """A network on the Edge TPU (on_device), or the same file uncompiled on the CPU.

    Raises MissingExtraError (compiled, but no libedgetpu) and EngineError (no Edge TPU plugged
    in, or the engine refuses the file).
    """

    on_device: bool

    def __init__(self, files: Mapping[str, bytes], threads: int = 1) -> None:
        self.on_device = CUSTOM_OP.encode() in next(iter(files.values()))
        options: dict[str, Any] = {}
        if self.on_device:
            options["experimental_delegates"] = [_delegate()]
        super().__init__(files, threads, **options)

    @in_turn
    def executed(self) -> dict[str, int]:
        """As LiteRT counts; a subgraph on the Edge TPU, which shows no layers, is one int8."""
        count = super().executed()
        subgraphs = sum(op["op_name"] == CUSTOM_OP for op in self._engine._get_ops_details())
        return {**count, "int8": count.get("int8", 0) + subgraphs} if subgraphs else count

    @in_turn
    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """As LiteRT's on the CPU; a subgraph on the Edge TPU is one operator without a time."""
        if not self.on_device:
            return super().profile(feeds, runs)
        from edgecv.backends.tflite.profile import operators

        reason = "libedgetpu has no profiler: what runs on the Edge TPU is one operator to LiteRT"
        return Profile(tuple(operator.layer() for operator in operators(self._engine)), reason)


def _delegate() -> Any:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as e:
        hint = "install libedgetpu1-std from coral.ai/software"
        raise MissingExtraError("Edge TPU", f"{LIBRARY} is not installed", hint) from e
    try:
        return tflite.engine().load_delegate(LIBRARY)
    except (ValueError, OSError, RuntimeError) as e:
        hint = "plug it in, and see that this user may open it (plugdev group)"
        raise EngineError("Edge TPU", "no device answers", hint) from e
