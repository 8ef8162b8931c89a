"""An .onnx file, float or with Q/DQ pairs, opened for looking inside with ONNX Runtime.

Without the optimiser a Q/DQ pair is arithmetic in float, node by node: what the file means, which
is the *simulated* network. With it the engine's integer kernels run, which is the *compiled* one.
A tensor that a pair quantizes is read behind its DequantizeLinear, so that a float graph's tensor
and its quantized twin go by one name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.run import DTYPES, counting, register
from edgecv.diagnosis.parity.layers import INPUT, Layer, Sample, feeds, input_grid
from edgecv.diagnosis.parity.onnx_graph import PAIR, OnnxGraph
from edgecv.errors import EngineError, ModelError, missing, one_line
from edgecv.graphs.onnx.layers import outputs_first
from edgecv.runtime.spec import TensorSpec


class OnnxNetwork:
    """See `Form`. content: the file; optimised: with the engine's own optimiser and kernels.

    Raises ModelError (not an ONNX network), MissingExtraError.
    """

    format = "onnx"

    def __init__(self, content: bytes, title: str, optimised: bool = False) -> None:
        try:
            import onnx
        except ImportError:
            raise missing("onnx", "compress", "parity") from None
        self.title, self._optimised, self._onnx = title, optimised, onnx
        try:
            model = onnx.load_model_from_string(content)
            self.model: Any = onnx.shape_inference.infer_shapes(model)
        except Exception as e:
            first = one_line(e, 200)
            raise ModelError(title, f"is no .onnx file: {first}") from None
        self.graph = OnnxGraph(self.model, title)
        self.layers = self.graph.layers
        quantized = any(n.op_type in PAIR for n in self.model.graph.node)
        self.one_by_one = optimised
        halved = any(t.data_type == onnx.TensorProto.FLOAT16 for t in self.model.graph.initializer)
        self.precision = "int8" if quantized else "fp16" if halved else "fp32"
        self._sessions: dict[tuple[str, ...], Any] = {}
        self.specs = tuple(map(self._spec, self._open(()).get_inputs()))
        self.spec = self.specs[0]
        self.input_grid = self.graph.grids.get(self.spec.name) or input_grid(self.spec)

    def _spec(self, source: Any) -> TensorSpec:
        shape = tuple(d if isinstance(d, int) and d > 0 else 1 for d in source.shape)
        grid = self.graph.grids.get(source.name) if source.type != "tensor(float)" else None
        return TensorSpec(
            source.name,
            DTYPES.get(source.type, source.type),
            shape,
            scale=grid.scale if grid else None,
            zero_point=grid.zero_point if grid else None,
        )

    def answers(self, x: Sample) -> tuple[np.ndarray, ...]:
        names = [o.name for o in self.model.graph.output]
        found = self._run(feeds(x, self.specs), ())
        return tuple(self._float(n, np.asarray(v)) for n, v in zip(names, found, strict=True))

    def values(self, x: Sample, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        held = self.graph.integers if self._optimised else {}
        answer = {o.name for o in self.model.graph.output}
        places = tuple(t if t in answer else held.get(t) or self.graph.read[t] for t in tensors)
        found = self._run(feeds(x, self.specs), places)
        return {t: self._float(t, v) for t, v in zip(tensors, found, strict=True)}

    def _float(self, tensor: str, held: np.ndarray) -> np.ndarray:
        grid = self.graph.grids.get(self.spec.name if tensor == INPUT else tensor)
        if grid is None or held.dtype.kind == "f":
            return np.asarray(held, np.float32)
        return (held.astype(np.float32) - np.float32(grid.zero_point)) * np.float32(grid.scale)

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:
        node = self.graph.made_by.get(layer.tensor)
        if node is None or layer.kind not in ("conv", "dense") or len(node.input) < 2:
            return {}
        if node.output[0] in self.graph.tabled or self.graph.rearranged(node):
            return {}  # they give numbers of tables, no real ones; or read another order of them
        found: dict[str, np.ndarray] = {}
        for role, name in zip(("weight", "bias"), node.input[1:3], strict=False):
            value = self.graph.constant(name) if name else None
            if value is not None:
                found[role] = value
        if layer.kind == "dense" and "weight" in found:
            found["weight"] = outputs_first(node, found["weight"])
        return found

    def close(self) -> None:
        self._sessions.clear()

    def _run(self, feeds: dict[str, np.ndarray], places: tuple[str, ...]) -> list[Any]:
        own = [p for p in dict.fromkeys(places) if p not in feeds]
        engine = self._open(tuple(own))
        names = own or [o.name for o in self.model.graph.output]
        try:
            found = dict(zip(names, engine.run(names, feeds), strict=True))
        except Exception as e:
            raise EngineError(self.title, one_line(e)) from None
        found |= feeds
        return [found[p] for p in places or names]

    def _open(self, taps: tuple[str, ...]) -> Any:
        """A session that gives these tensors. The plain one and the last other one are kept."""
        if taps in self._sessions:
            return self._sessions[taps]
        model = self.model
        if taps:
            for old in [key for key in self._sessions if key]:
                del self._sessions[old]
            model = self._onnx.ModelProto()
            model.CopyFrom(self.model)
            known = {o.name for o in model.graph.output}
            for name in taps:
                if name not in known:
                    model.graph.output.add(name=name)
        self._sessions[taps] = session(model, self.title, self._optimised)
        return self._sessions[taps]


def session(model: Any, where: str, optimised: bool = False) -> Any:
    """An InferenceSession of one thread. Raises EngineError, MissingExtraError."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise missing("onnxruntime", "ort", where) from None
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content, kernels = counting(model.SerializeToString())
    register(options, kernels)
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise EngineError(where, one_line(e)) from None
