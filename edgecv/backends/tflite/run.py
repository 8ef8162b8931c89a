"""LiteRT (TensorFlow Lite) on the device: a .tflite file in memory, numpy in, numpy out.

The engine is `ai_edge_litert`, else `tflite_runtime` (armv7). On x86-64 and aarch64 its XNNPACK
delegate runs the layers; `Session.executed` reads back on what dtype, `Session.delegated` how
many of them. Both read the interpreter's own node list, so they need no other package.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import numpy as np

from edgecv.backends.tflite import FACTS
from edgecv.errors import DataError, EngineError, UnsupportedError, missing
from edgecv.runtime.spec import Probe, Profile, TensorSpec
from edgecv.runtime.turn import Turn, in_turn

# Layers that multiply and accumulate; the rest (ADD, PAD, MEAN) follows their dtype.
COMPUTE = frozenset(FACTS.products)
ONES = "/ones"  # behind the name of weights that average: that is no layer
PRECISIONS = {"uint8": "int8", "float32": "fp32", "float16": "fp16"}
_PACKAGES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))


def probe() -> Probe:
    """What LiteRT says of itself here; never raises."""
    for module, package in _PACKAGES:
        try:
            import_module(f"{module}.interpreter")
        except Exception as e:
            reason = f"{package}: {' '.join(str(e).split())}"
            if isinstance(e, ModuleNotFoundError) and e.name == module:
                continue
            return Probe("tflite", False, None, reason, "tflite")
        return Probe("tflite", True, f"{package} {metadata.version(package)}", "", "tflite")
    return Probe("tflite", False, None, "ai-edge-litert is not installed", "tflite")


def engine() -> ModuleType:
    """The interpreter module of whichever LiteRT package is installed.

    Raises MissingExtraError when neither is.
    """
    for module, _ in _PACKAGES:
        try:
            return import_module(f"{module}.interpreter")
        except ModuleNotFoundError as e:
            if e.name != module:
                raise EngineError(module, f"does not import: {e}") from e
    raise missing("ai-edge-litert", "tflite", "LiteRT")


def plain(files: Mapping[str, bytes]) -> Session:
    """A session that computes every node by itself, without XNNPACK."""
    kernels = engine().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Session(files, experimental_op_resolver_type=kernels)


class Session:
    """A .tflite network, loaded.

    files: bytes by name, the .tflite first. threads: of the engine's own pool.
    options: passed to the engine's Interpreter (a delegate, for instance).
    places:  indices of the inputs' tensors in the file
    Raises EngineError when the engine refuses the file.
    """

    def __init__(self, files: Mapping[str, bytes], threads: int = 1, **options: Any) -> None:
        name, content = next(iter(files.items()))
        self._content, self._threads = bytes(content), threads
        self._turn = Turn("LiteRT")
        make = engine().Interpreter
        try:
            with quiet():
                self._engine = make(model_content=self._content, num_threads=threads, **options)
                self._engine.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            raise EngineError(name, f"LiteRT refuses it: {' '.join(str(e).split())}") from e
        inputs, outputs = self._engine.get_input_details(), self._engine.get_output_details()
        names = _signature_names(self._engine)
        self.inputs = tuple(_spec(t, names) for t in inputs)
        self.outputs = tuple(_spec(t, names) for t in outputs)
        self.places = tuple(int(t["index"]) for t in inputs)
        self._in = list(zip((s.name for s in self.inputs), self.places, strict=True))
        self._out = [(s.name, t["index"]) for s, t in zip(self.outputs, outputs, strict=True)]

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in, in the spec's shape and dtype; fresh arrays out, no casts.

        Raises DataError for a missing name, a wrong shape or a wrong dtype; UnsupportedError where
        integers divide by 0.
        """
        net = self._engine
        try:
            for name, index in self._in:
                net.set_tensor(index, feeds[name])
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise self._refusal(feeds) from e
        try:
            net.invoke()
        except RuntimeError as e:
            said = " ".join(str(e).split())
            if "!= zero_point was not true" in said:  # of DIV
                what = "a division's divisor is 0 on its integer grid"
                hint = "keep it in float (--keep-float), which the Edge TPU cannot, or ship fp32"
                raise UnsupportedError("LiteRT", what, hint) from e
            raise EngineError("LiteRT", f"run failed: {said}") from e
        return {name: net.get_tensor(index) for name, index in self._out}

    def executed(self) -> dict[str, int]:
        """Compute layers by the dtype that the engine's kernels work on: {"int8": 9, "fp32": 1}.

        It is the dtype of a layer's result as the interpreter holds it: a hybrid kernel (int8
        weights, float activations) accumulates in float and counts as fp32.
        """
        count: dict[str, int] = {}
        for op in self._compute():
            kind = np.dtype(op["result_types"][0]).name
            precision = PRECISIONS.get(kind, kind)
            count[precision] = count.get(precision, 0) + 1
        return count

    @in_turn
    def delegated(self) -> int:
        """How many compute layers a delegate (XNNPACK, Edge TPU) took over.

        A delegate node lists the constants of the layers that it replaced among its inputs.
        """
        ops = self._engine._get_ops_details()
        taken = {int(t) for op in ops if op["op_name"] == "DELEGATE" for t in op["inputs"]}
        held = {int(op["outputs"][0]): int(op["inputs"][0])
                for op in ops if op["op_name"] == "DEQUANTIZE"}  # fmt: skip
        weights = [int(op["inputs"][1]) for op in self._compute()]
        return sum(held.get(t, t) in taken for t in weights)

    @in_turn
    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """Time, precision and bytes of every operator, from LiteRT's profiler on a compilation of
        its own; without times, and with the reason, where no profiler can be reached.

        feeds: as for run. Raises DataError, EngineError.
        """
        from edgecv.backends.tflite.profile import layers, operators

        self.run(feeds)  # wrong feeds are refused
        held = operators(self._engine)
        try:
            return Profile(layers(self._content, self._threads, held, feeds, runs))
        except (UnsupportedError, EngineError) as e:
            return Profile(tuple(operator.layer() for operator in held), str(e))

    def close(self) -> None:
        """Give the memory back; the session cannot run afterwards."""
        if self._turn.end():
            self._engine, self._content = None, b""

    @in_turn
    def _compute(self) -> list[dict[str, Any]]:
        names = {int(t["index"]): str(t["name"]) for t in self._engine.get_tensor_details()}
        found = [op for op in self._engine._get_ops_details() if op["op_name"] in COMPUTE]
        return [op for op in found if not names.get(int(op["inputs"][1]), "").endswith(ONES)]

    def _refusal(self, feeds: Mapping[str, np.ndarray]) -> DataError:
        want = ", ".join(f"{s.name}: {s.dtype} {s.shape}" for s in self.inputs)
        got = ", ".join(f"{k}: {_describe(v)}" for k, v in feeds.items())
        return DataError("input", f"the network takes {want}, got {got or 'nothing'}")


# Descriptor 2 is the whole process's: two threads that put it aside at once could lose it.
_silence = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence file descriptor 2: the engine's C++ writes "INFO: Created ..." straight to it.

    Errors are not lost: the engine raises them with their text as well.
    """
    with _silence:
        try:
            saved = os.dup(2)
        except OSError:  # a daemon without stderr
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def _signature_names(net: Any) -> dict[int, str]:
    """Tensor index -> the name in the file's signature, which is what its maker called it."""
    signatures = net._get_full_signature_list() if hasattr(net, "_get_full_signature_list") else {}
    if len(signatures) != 1:
        return {}
    (only,) = signatures.values()
    return {int(i): name for side in ("inputs", "outputs") for name, i in only[side].items()}


def _spec(tensor: Mapping[str, Any], names: Mapping[int, str]) -> TensorSpec:
    grid = tensor["quantization_parameters"]
    integer = len(grid["scales"]) == 1 and grid["scales"][0] > 0
    kind = np.dtype(tensor["dtype"]).name
    scale = float(grid["scales"][0]) if integer else None
    zero_point = int(grid["zero_points"][0]) if integer else None
    if not integer and kind in ("uint8", "int8"):  # numbers as they are: pixels, classes
        scale, zero_point = 1.0, 0
    shape = tuple(int(n) for n in tensor["shape"])
    return TensorSpec(
        name=names.get(int(tensor["index"]), tensor["name"]),
        dtype=kind,
        shape=shape,
        layout=_layout(shape),
        scale=scale,
        zero_point=zero_point,
    )


def _layout(shape: tuple[int, ...]) -> str:
    """Channels are last, as LiteRT's kernels want them, but where the shape says otherwise: files
    of tools that keep PyTorch's order."""
    if len(shape) != 4:
        return "NC"
    first = shape[1] in (1, 3) and shape[3] > 4 and shape[2] > 4
    return "NCHW" if first else "NHWC"
