"""A model.toy, evaluated by `onnx.reference`. Imports with numpy alone."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecv.errors import EngineError, missing
from edgecv.runtime.layers import layer_of
from edgecv.runtime.spec import Layer, Probe, Profile, TensorSpec
from edgecv.runtime.turn import Turn, in_turn

ENGINE = "toy"
FILE, MAGIC = "model.toy", b"TOY1"


def probe() -> Probe:
    try:
        import onnx
    except ImportError:
        return Probe(ENGINE, False, None, "onnx is not installed", "compress")
    return Probe(ENGINE, True, onnx.__version__)


def plain(files: Mapping[str, bytes]) -> Session:
    """A session that computes node by node, as every one of the evaluator's does."""
    return Session(files)


class Session:
    """See `edgecv.backends.Session`."""

    def __init__(self, files: Mapping[str, bytes], threads: int = 1) -> None:
        del threads
        try:
            import onnx
            from onnx.reference import ReferenceEvaluator
        except ImportError:
            raise missing("onnx", "compress", ENGINE) from None
        content = next(iter(files.values()))
        if not content.startswith(MAGIC):
            raise EngineError(ENGINE, "is no .toy file")
        try:
            model = onnx.load_model_from_string(zlib.decompress(content[len(MAGIC) :]))
        except zlib.error as e:
            raise EngineError(ENGINE, f"damaged: {e}") from None
        self._graph, self._evaluator = model.graph, ReferenceEvaluator(model)
        held = {t.name for t in model.graph.initializer}
        self.inputs = tuple(_spec(v) for v in model.graph.input if v.name not in held)
        self.outputs = tuple(map(_spec, model.graph.output))
        self._turn = Turn(ENGINE)

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [t.name for t in self.outputs]
        for spec in self.inputs:
            given = feeds.get(spec.name)
            if given is None or given.shape != spec.shape or str(given.dtype) != spec.dtype:
                raise EngineError(ENGINE, f"{spec.name} is {spec.shape} {spec.dtype}")
        return dict(zip(names, self._evaluator.run(names, dict(feeds)), strict=True))

    def executed(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for layer in self._layers():
            found[layer.precision] = found.get(layer.precision, 0) + 1
        return found

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        del feeds, runs
        return Profile(tuple(self._layers()), "the reference evaluator has no profiler")

    def close(self) -> None:
        self._turn.end()

    def _layers(self) -> list[Layer]:
        unpacked = {n.output[0] for n in self._graph.node if n.op_type == "DequantizeLinear"}
        return [
            Layer(n.name or n.output[0], layer_of(n.input[1:2], (n.name,)), n.op_type,
                  "int8" if unpacked.issuperset(n.input[:2]) else "fp32")
            for n in self._graph.node if n.op_type in ("Conv", "Gemm")
        ]  # fmt: skip


def _spec(value: Any) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(d.dim_value for d in tensor.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return TensorSpec(value.name, dtype, shape, "NCHW" if len(shape) == 4 else "NC")
