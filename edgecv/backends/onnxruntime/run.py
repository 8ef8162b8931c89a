"""ONNX Runtime on a CPU, device side. Imports with numpy alone.

Precision is read back from a profile of one real run (ONNX Runtime's own JSON): the optimised
graph decides what executes, and Q/DQ nodes in the file promise nothing.

A network of one-bit layers needs the kernels of `edgecv.binary`; without them it runs in floats,
with the same answers, and says so. Activations that are looked up in tables (`tables.py`) do
likewise: the file itself holds what takes the kernel's place.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import EngineError, missing, one_line
from edgecv.runtime.spec import Probe, Profile, TensorSpec
from edgecv.runtime.turn import Turn, in_turn

log = logging.getLogger(__name__)

ENGINE = "onnxruntime"
EXTRA = "ort"

# Operators that edgecv adds; Binarize and Halve never come without one of them.
COUNTED = ("BinaryConv", "BinaryBits", "BinaryBoth")
# A node of that operator, as a file spells it: its fields op_type (4) and domain (7).
LOOKUP = b'"\x06Lookup:\x06edgecv'

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def probe() -> Probe:
    """Whether ONNX Runtime is here, and which."""
    try:
        import onnxruntime as ort
    except ImportError as e:
        return Probe(ENGINE, False, None, f"onnxruntime is not installed ({e})", EXTRA)
    return Probe(ENGINE, True, ort.__version__)


def plain(files: Mapping[str, bytes]) -> Session:
    """A session that computes every node by itself, without the optimiser."""
    return Session(files, fused=False)


class Session:
    """An .onnx file, loaded.

    files:   the model's bytes first; there is no second file
    threads: computing threads, 1 is the caller's own
    fused:   False computes every node of the file by itself, quantized layers in float between
             their Q/DQ nodes: slow, and what the file says, whatever this processor's integers do
    Raises MissingExtraError, EngineError (the bytes are no model that ONNX Runtime can run).
    """

    def __init__(self, files: Mapping[str, bytes], threads: int = 1, fused: bool = True) -> None:
        try:
            import onnxruntime as ort

            ort.disable_telemetry_events()  # what a user runs is nobody else's business
        except ImportError:
            raise missing("onnxruntime", EXTRA, ENGINE) from None
        self._ort, self._model, self._threads = ort, next(iter(files.values())), threads
        self._fused, self._turn = fused, Turn(ENGINE)
        self._model, self._kernels = counting(self._model)
        self._session: Any = self._open(self._options())
        self.inputs = tuple(map(_spec, self._session.get_inputs()))
        self.outputs = tuple(map(_spec, self._session.get_outputs()))
        self._names = [t.name for t in self.outputs]
        self._run: Any = self._session.run

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in (shape and dtype of `inputs`), arrays by output name out.

        Raises EngineError: a missing or unknown name, a wrong shape or dtype.
        """
        try:
            return dict(zip(self._names, self._run(self._names, feeds), strict=True))
        except Exception as e:
            raise EngineError(
                ENGINE, one_line(e), "feed the shapes and dtypes of .inputs"
            ) from None

    @in_turn
    def executed(self) -> dict[str, int]:
        """Compute layers by precision, from the profile of one run on zeros: {"int8": 9}."""
        from edgecv.backends.onnxruntime.profile import counts

        zeros = {t.name: np.zeros(t.shape, t.dtype) for t in self.inputs}
        return counts(self._profiled(zeros, 1))

    @in_turn
    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """Time, precision and bytes of every kernel, from ONNX Runtime's profile of a session of
        its own. feeds: as for run. Raises EngineError.
        """
        from edgecv.backends.onnxruntime.profile import layers
        from edgecv.graphs.onnx import wire
        from edgecv.runtime.layers import WARMUP

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            events = self._profiled(feeds, WARMUP + runs, path)
            optimised = wire.read(path.read_bytes())
        return Profile(layers(events, optimised, wire.read(self._model), WARMUP))

    def _profiled(
        self, feeds: Mapping[str, np.ndarray], calls: int, optimised: Path | None = None
    ) -> list[dict[str, Any]]:
        """The events of the profile of so many calls; optimised: where the graph that the
        optimiser made of the network is to be written."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            if optimised:
                options.optimized_model_filepath = str(optimised)
            session = self._open(options)
            try:
                for _ in range(calls):
                    session.run(self._names, feeds)
            except Exception as e:
                raise EngineError(
                    ENGINE, one_line(e), "feed the shapes and dtypes of .inputs"
                ) from None
            finally:
                profile = Path(session.end_profiling())
            return list(json.loads(profile.read_text()))

    def close(self) -> None:
        """Free the engine's memory; the session cannot run after."""
        if self._turn.end():
            self._session = self._run = None

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        # Idle workers that spin would take CPU time from whatever is measured next to this.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        register(options, self._kernels)
        if not self._fused:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # errors are raised, not printed as well
        return options

    def _open(self, options: Any) -> Any:
        try:
            return self._ort.InferenceSession(
                self._model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:
            raise EngineError(ENGINE, one_line(e), "is this a whole .onnx file?") from None


def prepare(files: Mapping[str, bytes]) -> None:
    """What is made once, and not at every load: a device builds the binary kernels."""
    if any(_counts(model) or LOOKUP in model for model in files.values()):
        from edgecv.binary import library

        library.found()


def _counts(model: bytes) -> bool:
    """Whether a file has layers of one bit."""
    return any(op.encode() in model for op in COUNTED)


def counting(model: bytes) -> tuple[bytes, str | None]:
    """(the file as it runs here, the library that its one-bit layers need); floats in their place
    where the library was not built. Raises MissingExtraError: neither is possible."""
    counts = _counts(model)
    if not counts and LOOKUP not in model:
        return model, None
    from edgecv.binary import library

    path = library.found()
    if path is not None:
        return model, str(path)
    if not counts:
        said = "activations are looked up slowly: the kernels are not built (%s)"
        log.warning(said, library.cure())
        return model, None
    from edgecv.binary.float_fallback import plain

    said = "one-bit layers run in floats, slowly: the binary kernels are not built (%s)"
    log.warning(said, library.cure())
    return plain(model), None


def register(options: Any, kernels: str | None) -> None:
    """Give a session's options the library of `counting`. Raises MissingExtraError."""
    if kernels is None:
        return
    try:
        options.register_custom_ops_library(kernels)
    except Exception as e:
        from edgecv.binary.library import unloadable

        raise unloadable(kernels, one_line(e)) from None


def _spec(arg: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else 1 for d in arg.shape)
    layout = "NCHW" if len(shape) == 4 else "NC"
    return TensorSpec(arg.name, DTYPES.get(arg.type, arg.type), shape, layout)
