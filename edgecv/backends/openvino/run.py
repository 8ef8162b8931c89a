"""OpenVINO on a CPU, device side. Imports with numpy alone.

OpenVINO runs in bf16 on CPUs that have it unless it is told not to: every session asks for f32,
so that a float row is a float row, but where the .xml says that bf16 is meant. Integer layers stay
integer under either. Precision is read back from the compiled graph (`get_runtime_model`).

BinaryConvolution gives NaN the sign that its kernel happens to have (AVX2: -1, AVX-512: +1), so a
network that counts bits refuses NaN where it enters (docs/decisions/008-one-bit.md).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from edgecv.backends.openvino import BINARY, LAYERS
from edgecv.errors import DataError, EngineError, missing, one_line
from edgecv.graphs.openvino.files import UNREADABLE, spec, wish
from edgecv.runtime.spec import Probe, Profile
from edgecv.runtime.turn import Turn, in_turn

ENGINE = "openvino"
TELEMETRY = "openvino_telemetry"
EXTRA = "openvino"

JIT = "jit_"  # kernels that count bits; a reference kernel of one-bit values is no proof of speed
PRECISIONS = {"u8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def probe() -> Probe:
    """Whether OpenVINO is here, and which."""
    try:
        openvino = library()
    except ImportError as e:
        return Probe(ENGINE, False, None, f"openvino is not installed ({e})", EXTRA)
    return Probe(ENGINE, True, str(openvino.__version__).split("-")[0])


def library() -> Any:
    """openvino, imported without its telemetry: that forks, and a process which does so while
    another of its threads holds the loader's lock waits for ever. Raises ImportError."""
    if "openvino" in sys.modules or TELEMETRY in sys.modules:
        return import_module("openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # OpenVINO has a stub in its place
    try:
        return import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]


def plain(files: Mapping[str, bytes]) -> Any:
    """A session that computes every operator by itself, in float32 (`plain.py`)."""
    from edgecv.backends.openvino.plain import Plain

    return Plain(files)


class Session:
    """model.xml and model.bin, loaded.

    files:   the .xml's bytes first, the .bin's second
    threads: computing threads
    Raises MissingExtraError, EngineError (not a network that OpenVINO can read).
    """

    def __init__(self, files: Mapping[str, bytes], threads: int = 1) -> None:
        try:
            ov = library()
        except ImportError:
            raise missing("openvino", EXTRA, ENGINE) from None
        try:
            xml, weights = [*files.values(), b""][:2]
            core = ov.Core()
            model = core.read_model(xml, weights)
            self._files, self._config = (xml, weights), config(threads, wish(model))
            self._counts = any(n.get_type_name() == BINARY for n in model.get_ops())
            self._compiled: Any = core.compile_model(model, "CPU", self._config)
            self._request: Any = self._compiled.create_infer_request()
        except Exception as e:
            raise EngineError(ENGINE, one_line(e), UNREADABLE) from None
        self.inputs = tuple(map(spec, self._compiled.inputs))
        self.outputs = tuple(map(spec, self._compiled.outputs))
        # The engine's own buffers: copying in and out is quicker than passing arrays each call.
        request = self._request
        self._in = [(t.name, request.get_input_tensor(i).data) for i, t in enumerate(self.inputs)]
        self._out = [
            (t.name, request.get_output_tensor(i).data) for i, t in enumerate(self.outputs)
        ]
        self._infer, self._turn = request.infer, Turn(ENGINE)

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in (shape and dtype of `inputs`), arrays by output name out.

        Raises EngineError: a missing or unknown name, a wrong shape or dtype. DataError: NaN, which
        has no sign, for a network that counts bits.
        """
        if len(feeds) != len(self._in):
            raise self._refuse(feeds)
        for name, buffer in self._in:
            array = feeds.get(name)
            if array is None or array.shape != buffer.shape or array.dtype != buffer.dtype:
                raise self._refuse(feeds)
            if self._counts and np.isnan(array).any():
                raise DataError(
                    f"input {name!r}", "holds NaN, which has no sign for one-bit layers"
                )
            buffer[...] = array
        try:
            self._infer()
        except Exception as e:
            raise EngineError(ENGINE, one_line(e)) from None
        return {name: buffer.copy() for name, buffer in self._out}

    @in_turn
    def executed(self) -> dict[str, int]:
        """Compute layers by precision, from the compiled graph: {"int8": 9, "fp32": 1}."""
        found: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) in LAYERS:
                found[precision(info)] += 1
        return dict(found)

    @in_turn
    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """Time, precision and bytes of every step, from OpenVINO's own counters in compilations
        of their own. feeds: as for run. Raises EngineError.
        """
        from edgecv.backends.openvino.profile import layers

        self.run(feeds)  # wrong feeds are refused before anything is compiled
        try:
            return Profile(layers(*self._files, self._config, feeds, runs))
        except Exception as e:
            raise EngineError(ENGINE, one_line(e)) from None

    def close(self) -> None:
        """Free the engine's memory; the session cannot run after."""
        if self._turn.end():
            self._files = b"", b""
            self._in, self._out = [], []
            self._compiled = self._request = self._infer = None

    def _refuse(self, feeds: Mapping[str, np.ndarray]) -> EngineError:
        got = ", ".join(f"{k} {v.dtype}{v.shape}" for k, v in feeds.items()) or "nothing"
        want = ", ".join(f"{t.name} {t.dtype}{t.shape}" for t in self.inputs)
        return EngineError(ENGINE, f"was fed {got}", f"it takes {want}")


def precision(info: Mapping[str, Any]) -> str:
    """What a step of the compiled graph computes in, from its runtime information.

    "runtimePrecision" is that of what it reads: for weights kept in fp16 it is f16 although the
    kernel ("brgconv_avx2_f32") computes in fp32.
    """
    kind = info["runtimePrecision"].astype(str)
    if info["layerType"].astype(str) == BINARY:
        return "binary" if info["primitiveType"].astype(str).startswith(JIT) else "fp32"
    if kind in ("f16", "bf16"):
        kernel = info["primitiveType"].astype(str).rpartition("_")[2].lower()
        kind = kernel if kernel in PRECISIONS else kind
    return PRECISIONS.get(kind, str(kind))


def config(threads: int, floats: str = "f32") -> dict[str, Any]:
    """What every compilation is asked for."""
    return {
        "INFERENCE_PRECISION_HINT": floats,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # pinned threads of two engines would share a core while they are compared
        "ENABLE_CPU_PINNING": False,
    }
