"""LiteRT's own profiler, which its Python package does not reach: through the C API, by ctypes.

`ai_edge_litert` ships libLiteRt.so, whose exported functions compile and run the same file with
the same XNNPACK and hand out what each operator took (litert/c/litert_compiled_model.h and
litert_profiler.h of LiteRT). Nothing tells a caller how a function's arguments changed from one
version to the next, so only versions that were tried are called; with any other, `Profiler`
raises UnsupportedError.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from edgecv.backends.tflite.run import quiet
from edgecv.errors import EngineError, UnsupportedError

PACKAGE, MODULE, LIBRARY = "ai-edge-litert", "ai_edge_litert", "libLiteRt.so"
WHERE = "LiteRT's profiler"
TRIED = ("2.3.",)  # versions whose functions take what is passed here

_CPU, _WRITE = 1, 1  # kLiteRtHwAcceleratorCpu, kLiteRtTensorBufferLockModeWrite
_TYPE_BYTES = 512  # more than a LiteRtRankedTensorType, which is passed on and never looked into
_Handle: TypeAlias = ctypes.c_void_p
_Size: TypeAlias = ctypes.c_size_t
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_keep = _Free(lambda _: None)  # Python owns what it handed over


class _Event(ctypes.Structure):
    """ProfiledEventData of litert_profiler_event.h, in C++'s layout."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("took_us", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("operator", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class Event(NamedTuple):
    """What one operator took in one call: "Convolution (NHWC, QC8) IGEMM", 31.

    operator: the operator's place in the file where LiteRT ran it itself; None for one of a
    delegate's, which have numbers of their own
    """

    tag: str
    took_us: int
    operator: int | None


class Profiler:
    """A .tflite file, compiled for the CPU with its profiler on. Close it, or use `with`.

    Raises UnsupportedError (no LiteRT whose C API is known) and EngineError (a call failed).
    """

    def __init__(self, content: bytes, threads: int) -> None:
        self._library = _library()
        self._content = ctypes.create_string_buffer(content, len(content))
        self._opened: list[tuple[str, _Handle]] = []
        try:
            with quiet():
                self._open(threads)
        except BaseException:
            self.close()
            raise

    def _open(self, threads: int) -> None:
        self._environment = self._make("LiteRtCreateEnvironment", 0, None)
        content, size = self._content, _Size(len(self._content))
        self._model = self._make("LiteRtCreateModelFromBuffer", self._environment, content, size)
        options = self._make("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        # The texts that LiteRT's own builders of these options write (TOML).
        texts = {
            b"runtime_options_string": b"enable_profiling = true\n",
            b"xnnpack": b"num_threads = %d\n" % threads,
        }
        self._texts = [ctypes.create_string_buffer(text) for text in texts.values()]
        for name, text in zip(texts, self._texts, strict=True):
            option = _Handle()
            self._call("LiteRtCreateOpaqueOptions", name, text, _keep, ctypes.byref(option))
            self._call("LiteRtAddOpaqueOptions", options, option)
        args = self._environment, self._model, options
        self._compiled = self._make("LiteRtCreateCompiledModel", *args)
        self._profiler = _Handle()
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, ctypes.byref(self._profiler))
        self._signature = _Handle()
        self._call("LiteRtGetModelSignature", self._model, _Size(0), ctypes.byref(self._signature))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Fill the inputs, by the names in the file's signature. Raises EngineError."""
        for name, buffer in self._inputs.items():
            array, size = np.ascontiguousarray(feeds.get(name, ())), _Size()
            self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
            if array.nbytes != size.value:
                what = f"input {name!r} takes {size.value} bytes, {array.nbytes} given"
                raise EngineError(WHERE, what)
            place = _Handle()
            self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(place), _WRITE)
            ctypes.memmove(place, array.ctypes.data, array.nbytes)
            self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """One call, unprofiled."""
        inputs, outputs = list(self._inputs.values()), list(self._outputs.values())
        ins, outs = (_Handle * len(inputs))(*inputs), (_Handle * len(outputs))(*outputs)
        args = _Size(len(inputs)), ins, _Size(len(outputs)), outs
        self._call("LiteRtRunCompiledModel", self._compiled, _Size(0), *args)

    def events(self) -> list[Event]:
        """One call, and what its operators took, as they ran."""
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(1, count.value))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        # LiteRtProfilerEventType: an operator's, a delegate's, a delegate's reported as one
        return [
            Event(e.tag.decode(), e.took_us, e.operator if e.kind == 2 else None)
            for e in events[: count.value]
            if e.kind in (2, 4, 8)
        ]

    def close(self) -> None:
        """Free everything, the last made first."""
        with quiet():
            while self._opened:
                name, handle = self._opened.pop()
                getattr(self._library, name)(handle)

    def _buffers(self, side: str) -> dict[str, _Handle]:
        """Name -> tensor buffer of the inputs or outputs, in the signature's order."""
        count, made = _Size(), {}
        self._call(f"LiteRtGetNumSignature{side}s", self._signature, ctypes.byref(count))
        for i in range(count.value):
            name, tensor, needs = ctypes.c_char_p(), _Handle(), _Handle()
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            at = self._signature, _Size(i)
            self._call(f"LiteRtGetSignature{side}Name", *at, ctypes.byref(name))
            self._call(f"LiteRtGetSignature{side}TensorByIndex", *at, ctypes.byref(tensor))
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            place = self._compiled, _Size(0), _Size(i), ctypes.byref(needs)
            self._call(f"LiteRtGetCompiledModel{side}BufferRequirements", *place)
            create = "LiteRtCreateManagedTensorBufferFromRequirements"
            made[(name.value or b"").decode()] = self._make(create, self._environment, kind, needs)
        return made

    def _make(self, name: str, *args: Any) -> _Handle:
        """What a LiteRtCreate... function makes, to be destroyed by its LiteRtDestroy..."""
        handle = _Handle()
        self._call(name, *args, ctypes.byref(handle))
        kind = name.removeprefix("LiteRtCreate").removeprefix("Managed").partition("From")[0]
        self._opened.append((f"LiteRtDestroy{kind}", handle))
        return handle

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise EngineError(WHERE, f"{name} failed with status {status}")


def _library() -> ctypes.CDLL:
    """libLiteRt.so of the installed package. Raises UnsupportedError."""
    hint = f"profile with {PACKAGE} {TRIED[-1]}x"
    try:
        version = metadata.version(PACKAGE)
        folder = Path(str(import_module(MODULE).__file__)).parent
    except (ImportError, metadata.PackageNotFoundError):
        raise UnsupportedError(WHERE, f"{PACKAGE} is not installed", hint) from None
    if not version.startswith(TRIED):
        raise UnsupportedError(WHERE, f"not tried with {PACKAGE} {version}", hint)
    try:
        return ctypes.CDLL(str(folder / LIBRARY))
    except OSError:
        raise UnsupportedError(WHERE, f"{PACKAGE} has no {LIBRARY} for this machine") from None
