"""TensorRT on an NVIDIA GPU, device side. Imports with numpy alone.

Not run here: no NVIDIA GPU in CI. What CI proves is that a machine without one gets a clear
NoCudaDevice. The driver is asked first, through ctypes: without a GPU some TensorRT builds end
the process instead of raising.

TensorRT for RTX (`tensorrt_rtx`) and full TensorRT 10/11 (`tensorrt`, on a Jetson JetPack's) share
one Python API; an engine runs on the one that built it.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from edgecv.errors import EngineError, NoCudaDevice, missing
from edgecv.runtime.layers import WARMUP, layer_of, typical_ms
from edgecv.runtime.spec import Layer, Probe, Profile, TensorSpec
from edgecv.runtime.turn import Turn, in_turn

ENGINE = "tensorrt"
EXTRA = "tensorrt"
MODULES = ("tensorrt_rtx", "tensorrt")
_NODE = re.compile(r"/[\w./]+")  # the ONNX nodes in a layer's name and metadata
HOW = "trtexec --onnx={onnx} --saveEngine=model.engine --stronglyTyped"


def probe() -> Probe:
    """Whether TensorRT and a GPU are here, and which TensorRT."""
    version = None
    for name in MODULES:
        try:
            version = f"{name} {import_module(name).__version__}"
            break
        except Exception:  # absent, or its libraries do not load: the next one
            continue
    if version is None:
        return Probe(ENGINE, False, None, "neither tensorrt_rtx nor tensorrt is installed", EXTRA)
    try:
        Cuda()
    except NoCudaDevice as e:
        return Probe(ENGINE, False, version, f"{e.what}: engines are built, not run")
    return Probe(ENGINE, True, version)


class Cuda:
    """The CUDA driver, by ctypes: a dozen calls, no package (CUDA Driver API reference).

    Raises NoCudaDevice (no driver, no device), EngineError (a call failed).
    """

    def __init__(self) -> None:
        library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        hint = "run the bundle on the NVIDIA machine it was built for"
        try:
            self._lib = ctypes.CDLL(library)
        except OSError:
            raise NoCudaDevice(ENGINE, f"no NVIDIA driver ({library} is not here)", hint) from None
        count = ctypes.c_int()
        code = self._lib.cuInit(0) or self._lib.cuDeviceGetCount(ctypes.byref(count))
        if code or not count.value:
            raise NoCudaDevice(ENGINE, f"no NVIDIA GPU (CUDA error {code})", hint)

    def call(self, name: str, *args: Any) -> None:
        code = getattr(self._lib, name)(*args)
        if code:
            raise EngineError(ENGINE, f"{name} failed with CUDA error {code}", "is memory left?")

    def use_device(self) -> int:
        """Make GPU 0 current (its primary context, the one TensorRT uses); the device handle."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        return device.value

    def capability(self) -> str:
        """The compute capability of GPU 0, "8.9"."""
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        self.call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
        return f"{major.value}.{minor.value}"

    def allocate(self, size_bytes: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
        return pointer

    def stream(self) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(handle), 1)  # CU_STREAM_NON_BLOCKING
        return handle


class Session:
    """A model.engine, loaded on GPU 0.

    files:   the engine's bytes first
    threads: ignored; the GPU computes
    Raises NoCudaDevice, MissingExtraError, EngineError (not an engine of this TensorRT or GPU).
    """

    def __init__(self, files: Mapping[str, bytes], threads: int = 1) -> None:  # noqa: ARG002
        self._cuda, self._turn = Cuda(), Turn(ENGINE)
        name, blob = next(iter(files.items()))
        if name.endswith(".onnx"):
            raise EngineError(
                ENGINE,
                "this bundle holds the network, not an engine",
                f"build it on the device: {HOW.format(onnx=name)}",
            )
        self._device = self._cuda.use_device()
        self._engine = self._load(blob)
        self._context = self._engine.create_execution_context()
        self._stream = self._cuda.stream()
        self._buffers: dict[str, tuple[ctypes.c_uint64, TensorSpec]] = {}
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for i in range(self._engine.num_io_tensors):
            spec = self._spec(self._engine.get_tensor_name(i))
            size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
            pointer = self._cuda.allocate(size)
            self._buffers[spec.name] = pointer, spec
            self._context.set_tensor_address(spec.name, pointer.value)
            mode = self._engine.get_tensor_mode(spec.name)
            (inputs if mode == self._trt.TensorIOMode.INPUT else outputs).append(spec)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in, arrays by output name out; returns when the GPU is done.

        Raises EngineError: a wrong name, shape or dtype; a CUDA call failed.
        """
        kept = []
        for spec in self.inputs:
            array = feeds.get(spec.name)
            if array is None or array.shape != spec.shape or array.dtype != spec.dtype:
                want = f"{spec.name} {spec.dtype}{spec.shape}"
                raise EngineError(ENGINE, f"was not fed {want}", "feed what .inputs says")
            kept.append(np.ascontiguousarray(array))
            self._copy("cuMemcpyHtoDAsync_v2", self._buffers[spec.name][0], kept[-1])
        if not self._context.execute_async_v3(self._stream.value):
            raise EngineError(ENGINE, "the engine refused to run", "see TensorRT's log above")
        results = {t.name: np.empty(t.shape, t.dtype) for t in self.outputs}
        for name, array in results.items():
            self._copy("cuMemcpyDtoHAsync_v2", self._buffers[name][0], array)
        self._cuda.call("cuStreamSynchronize", self._stream)
        return results

    def executed(self) -> dict[str, int]:
        """Compute layers by precision, from TensorRT's engine inspector.

        Empty where the engine was not built with detailed layer information.
        """
        return count_layers(self._information())

    @in_turn
    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """Time, precision and bytes of every layer, from TensorRT's IProfiler on a context of its
        own (it makes layers wait for each other) and from the engine inspector. Not run here.

        feeds: as for run. Raises EngineError.
        """
        times: dict[str, list[float]] = {}
        kind = self._trt.IProfiler
        methods = {
            "__init__": lambda clock: kind.__init__(clock),  # its C++ half, which it must have
            "report_layer_time": lambda _, name, ms: times.setdefault(name, []).append(ms),
        }
        clock = type("Clock", (kind,), methods)()
        usual, self._context = self._context, self._engine.create_execution_context()
        try:
            for name, (pointer, _) in self._buffers.items():
                self._context.set_tensor_address(name, pointer.value)
            self._context.profiler = clock
            for _ in range(WARMUP + runs):
                self.run(feeds)
        finally:
            self._context = usual
        return Profile(profiled_layers(self._information(), times, WARMUP))

    @in_turn
    def _information(self) -> dict[str, Any]:
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return dict(json.loads(text))

    def close(self) -> None:
        """Free the GPU's memory; the session cannot run after."""
        if not self._turn.end():
            return
        for pointer, _ in self._buffers.values():
            self._cuda.call("cuMemFree_v2", pointer)
        self._buffers = {}
        self._context = self._engine = None
        self._cuda.call("cuStreamDestroy_v2", self._stream)
        self._cuda.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _load(self, blob: bytes) -> Any:
        found = []
        for name in MODULES:
            try:
                self._trt = import_module(name)
            except Exception:  # absent, or its libraries do not load: the next one
                continue
            found.append(name)
            self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
            engine = self._runtime.deserialize_cuda_engine(blob)
            if engine is not None:
                return engine
        if not found:
            raise missing("tensorrt", EXTRA, ENGINE)
        raise EngineError(
            ENGINE,
            f"{' and '.join(found)} cannot load the engine",
            f"it must be built for this GPU ({self._cuda.capability()}) by the same version",
        )

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(int(d) for d in self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name
        return TensorSpec(name, dtype, shape, "NCHW" if len(shape) == 4 else "NC")

    def _copy(self, call: str, pointer: ctypes.c_uint64, array: np.ndarray) -> None:
        host, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        order = (host, pointer) if "DtoH" in call else (pointer, host)
        self._cuda.call(call, *order, size, self._stream)


def count_layers(information: dict[str, Any]) -> dict[str, int]:
    """Convolutions and matrix products by input precision, from the inspector's JSON."""
    counts: dict[str, int] = {}
    for layer in information.get("Layers", []):
        if not isinstance(layer, dict):
            continue  # names only: the engine was built without details
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
        if not any(word in kind for word in ("conv", "gemm", "matrix", "matmul", "fully")):
            continue
        first = (layer.get("Inputs") or [{}])[0]
        precision = _precision(str(first.get("Format/Datatype", "")).lower())
        counts[precision] = counts.get(precision, 0) + 1
    return counts


def profiled_layers(
    information: Mapping[str, Any], times_ms: Mapping[str, Sequence[float]], warmup: int
) -> tuple[Layer, ...]:
    """The inspector's layers with what the profiler measured of each call, in their order.

    An engine that was built without details has names and times alone.
    """
    details = {d["Name"]: d for d in information.get("Layers", []) if isinstance(d, dict)}
    made = []
    for name, calls in times_ms.items():
        about = details.get(name, {})
        op = str(about.get("LayerType", ""))
        first = (about.get("Inputs") or [{}])[0].get("Format/Datatype", "")
        computes = first and op not in ("Reformat", "NoOp", "Constant")
        made.append(
            Layer(
                name=name,
                layer=layer_of((), _NODE.findall(f"{about.get('Metadata', '')} {name}")),
                op=op,
                precision=_precision(str(first).lower()) if computes else "",
                time_ms=typical_ms([ms * 1e3 for ms in calls[warmup:]]),
                bytes=_moved(about),
            )
        )
    return tuple(made)


def _moved(about: Mapping[str, Any]) -> int | None:
    """Bytes of a layer's inputs, outputs, weights and bias; None where it has no details."""
    if not about:
        return None
    tensors = [*(about.get("Inputs") or ()), *(about.get("Outputs") or ())]
    found = [(prod(t.get("Dimensions", ())), str(t.get("Format/Datatype", ""))) for t in tensors]
    held = [about[key] for key in ("Weights", "Bias") if isinstance(about.get(key), dict)]
    found += [(int(h.get("Count", 0)), str(h.get("Type", ""))) for h in held]
    size = {"int8": 1, "fp16": 2, "fp32": 4}
    return sum(count * size[_precision(kind.lower())] for count, kind in found)


def _precision(datatype: str) -> str:
    """The precision in the inspector's words: "Row major Int8 format", "half", "fp32"."""
    if "int8" in datatype:
        return "int8"
    return "fp16" if "half" in datatype or "fp16" in datatype else "fp32"
