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

from edgecv.errors import EngineError, ModelError, missing
from edgecv.ladder.layers import INPUT, Grid, Layer, input_grid, module_path, placed
from edgecv.runtime.spec import TensorSpec

KINDS = {
    "Conv": "conv", "ConvInteger": "conv", "Gemm": "dense", "MatMul": "dense", "Add": "add",
    "GlobalAveragePool": "mean", "ReduceMean": "mean", "Flatten": "reshape", "Reshape": "reshape",
    "Squeeze": "reshape", "Unsqueeze": "reshape",
}  # fmt: skip
PAIR = ("QuantizeLinear", "DequantizeLinear")
COMPARED = ("strides", "pads", "dilations", "group", "kernel_shape", "auto_pad")


class OnnxForm:
    """See `Form`. content: the file; optimised: with the engine's own optimiser and kernels.

    Raises ModelError (not an ONNX network of one input), MissingExtraError.
    """

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
            first = " ".join(str(e).split())[:200]
            raise ModelError(title, f"is no .onnx file: {first}") from None
        self._graph = _Graph(self.model, title)
        self.layers = self._graph.layers
        quantized = any(n.op_type in PAIR for n in self.model.graph.node)
        self.one_by_one = optimised
        self.precision = "int8" if quantized else "fp32"
        self._sessions: dict[tuple[str, ...], Any] = {}
        (source,) = self._open(()).get_inputs()
        kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
        shape = tuple(d if isinstance(d, int) and d > 0 else 1 for d in source.shape)
        grid = self._graph.grids.get(source.name) if source.type != "tensor(float)" else None
        self.spec = TensorSpec(
            source.name,
            kind.get(source.type, source.type),
            shape,
            scale=grid.scale if grid else None,
            zero_point=grid.zero_point if grid else None,
        )
        self.input_grid = self._graph.grids.get(source.name) or input_grid(self.spec)

    def logits(self, x: np.ndarray) -> np.ndarray:
        out = np.asarray(self._run({self.spec.name: placed(x, self.spec)}, ())[0])
        return self._float(self.model.graph.output[0].name, out).reshape(-1)

    def values(self, x: np.ndarray, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        held = self._graph.integers if self._optimised else {}
        answer = {o.name for o in self.model.graph.output}
        places = tuple(t if t in answer else held.get(t) or self._graph.read[t] for t in tensors)
        found = self._run({self.spec.name: placed(x, self.spec)}, places)
        return {t: self._float(t, v) for t, v in zip(tensors, found, strict=True)}

    def _float(self, tensor: str, held: np.ndarray) -> np.ndarray:
        grid = self._graph.grids.get(self.spec.name if tensor == INPUT else tensor)
        if grid is None or held.dtype.kind == "f":
            return np.asarray(held, np.float32)
        return (held.astype(np.float32) - np.float32(grid.zero_point)) * np.float32(grid.scale)

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:
        node = self._graph.made_by.get(layer.tensor)
        if node is None or layer.kind not in ("conv", "dense") or len(node.input) < 2:
            return {}
        found: dict[str, np.ndarray] = {}
        for role, name in zip(("weight", "bias"), node.input[1:3], strict=False):
            value = self._graph.constant(name) if name else None
            if value is not None:
                found[role] = value
        if layer.kind == "dense" and "weight" in found:
            turned = node.op_type == "Gemm" and _attribute(node, "transB", 0)
            found["weight"] = found["weight"] if turned else found["weight"].T
        return found

    def close(self) -> None:
        self._sessions.clear()

    def _run(self, feeds: dict[str, np.ndarray], places: tuple[str, ...]) -> list[Any]:
        own = [p for p in dict.fromkeys(places) if p != self.spec.name]
        engine = self._open(tuple(own))
        names = own or [self.model.graph.output[0].name]
        try:
            found = dict(zip(names, engine.run(names, feeds), strict=True))
        except Exception as e:
            raise EngineError(self.title, " ".join(str(e).split())[:300]) from None
        found |= feeds
        return [found[p] for p in places] if places else [found[names[0]]]

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
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:
        raise EngineError(where, " ".join(str(e).split())[:300]) from None


class _Graph:
    """Who makes what, seen through Q/DQ pairs.

    read:     tensor -> the tensor that holds it in real numbers, behind its pair if it has one
    integers: tensor -> the tensor in its pair, which an optimised graph keeps where the other
              would take a fused kernel apart
    grids:    tensor -> the grid of its pair
    """

    def __init__(self, model: Any, title: str) -> None:
        import onnx

        self.nodes = list(model.graph.node)
        self.held = {t.name: t for t in model.graph.initializer}
        inputs = [i.name for i in model.graph.input if i.name not in self.held]
        if len(inputs) != 1:
            raise ModelError(title, f"has {len(inputs)} inputs, one is compared")
        self.input = inputs[0]
        self._array = onnx.numpy_helper.to_array
        self.shapes = {
            i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim)
            for i in (*model.graph.value_info, *model.graph.output)
        }
        self._outputs = {o.name for o in model.graph.output}
        self._producer = {out: node for node in self.nodes for out in node.output}
        self._fixed = self._constant_names()
        self.grids: dict[str, Grid] = {}
        self.integers: dict[str, str] = {}
        self.read: dict[str, str] = {INPUT: self.input, self.input: self.input}
        self._names: dict[str, str] = {self.input: INPUT}
        self.made_by: dict[str, Any] = {}
        self._pairs()
        self.layers = tuple(self._layers())

    def constant(self, name: str) -> np.ndarray | None:
        """A weight in real numbers: what is held, or a DequantizeLinear of what is."""
        if name in self.held:
            return np.asarray(self._array(self.held[name]))
        node = self._producer.get(name)
        if node is None or name not in self._fixed:
            return None
        if node.op_type == "Constant":
            return np.asarray(self._array(next(a.t for a in node.attribute if a.name == "value")))
        if node.op_type != "DequantizeLinear":
            return None
        parts = [self.constant(n) for n in node.input]
        q, scale = parts[0], parts[1]
        if q is None or scale is None:
            return None
        zero = parts[2] if len(parts) > 2 and parts[2] is not None else np.zeros((), np.int8)
        side = [1] * q.ndim
        if scale.size > 1:
            side[_attribute(node, "axis", 1)] = -1
        scale, zero = (v.reshape(side) if v.size > 1 else v.reshape(()) for v in (scale, zero))
        return (q.astype(np.float32) - zero.astype(np.float32)) * scale

    def _constant_names(self) -> set[str]:
        known = set(self.held)
        for node in self.nodes:
            if all(name in known for name in node.input if name):
                known |= set(node.output)
        return known

    def _root(self, name: str) -> str:
        """The tensor that a chain of Q, DQ and Identity repeats."""
        node = self._producer.get(name)
        while node is not None and node.op_type in (*PAIR, "Identity") and node.input:
            name = node.input[0]
            node = self._producer.get(name)
        return name

    def _pairs(self) -> None:
        for node in self.nodes:
            if node.op_type not in PAIR or node.output[0] in self._fixed:
                continue
            root = self._root(node.input[0])
            scale, zero = self.constant(node.input[1]), None
            if len(node.input) > 2:
                zero = self.constant(node.input[2])
            if scale is not None and scale.size == 1:
                zero = np.zeros((), np.uint8) if zero is None else zero
                limits = np.iinfo(zero.dtype)
                self.grids.setdefault(
                    root,
                    Grid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), int(limits.min),
                         int(limits.max)),
                )  # fmt: skip
            if node.op_type == "QuantizeLinear":
                self.integers.setdefault(root, node.output[0])
            else:
                self.read[root] = node.output[0]
                if root == self.input:
                    self.read[INPUT] = node.output[0]
            # the float graph calls its answer by the graph's own output's name
            if node.output[0] in self._outputs:
                self._names[root] = node.output[0]

    def _layers(self) -> list[Layer]:
        found = []
        for node in self.nodes:
            if node.op_type in (*PAIR, "Identity") or node.output[0] in self._fixed:
                continue
            root = node.output[0]
            name = self._names.get(root, root)
            self.read[name] = self.read.get(root, root)
            self.made_by[name] = node
            if root in self.integers:
                self.integers[name] = self.integers[root]
            if root in self.grids:
                self.grids[name] = self.grids[root]
            grid = self.grids.get(root)
            roots = [self._root(n) for n in node.input if n and n not in self._fixed]
            kind = KINDS.get(node.op_type, node.op_type.lower())
            weight = self._root(node.input[1]) if kind in ("conv", "dense") else ""
            path = module_path(node.name) or module_path(weight)
            found.append(
                Layer(
                    name=node.name or root,
                    kind=kind,
                    tensor=name,
                    inputs=tuple(self._names.get(r, r) for r in roots),
                    shape=self.shapes.get(root, ()),
                    path=path,
                    clip=(0.0, np.inf) if grid and grid.zero_point == grid.low else None,
                    grid=grid,
                    attributes=_attributes(node),
                )
            )
        return found


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found = {
        a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name in COMPARED
    }
    return {k: list(v) if isinstance(v, list | tuple) else v for k, v in found.items()}


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
