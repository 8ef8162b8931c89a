"""`build(seed, side)`: a random ONNX file as tools of opsets 7 to 22 wrote them, by onnx.helper.

Each node is computed for a few pictures as soon as it is added (ONNX Runtime, unoptimised), so that
batch norms and the last layer are settled on what really arrives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from benchmarks.random_nets.onnx_blocks import BLOCKS, HEADS
from benchmarks.random_nets.pictures import CLASSES, extras, inputs, pictures

TWO_INPUTS, BATCHES = 0.12, 0.08  # shares of the files: a second input, two pictures a call

# Opset -> the file format's version of its day.
IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9,
      20: 9, 21: 10, 22: 10}  # fmt: skip


class Writer:
    """A graph that grows by one node at a time, with the value of every tensor beside it.

    x: the tensor that the next block reads; values: arrays of all pictures by tensor
    """

    def __init__(self, seed: int, side: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.rng.integers(7, 23))
        pixels, self.kinds = pictures(36, side, 0)
        self.x, self.values = "input", {"input": inputs(pixels)}
        self.side_in, self.nodes, self.held = side, list[Any](), list[onnx.TensorProto]()
        pick = self.rng.random()
        self.batch = 2 if pick > 1 - BATCHES else 1
        self.extras: dict[str, np.ndarray] = {}
        if pick < TWO_INPUTS:
            name = str(self.rng.choice(["numbers", "mask"]))
            self.extras = extras(name, len(pixels), side, 0)
            self.values |= self.extras

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values[self.x].shape[1:])

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """An initializer, or now and then a Constant node."""
        name = f"c{len(self.held)}_{len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(array, dtype), name)
        self.values[name] = np.asarray(array, dtype)
        if self.rng.random() < 0.15:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.held.append(tensor)
        return name

    def weight(self, *shape: int, fan: int | None = None) -> str:
        """He weights."""
        fan = fan or int(np.prod(shape[1:]))
        return self.constant(self.rng.normal(0, (2 / fan) ** 0.5, shape))

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(self, op: str, *given: str, outputs: int = 1, **attributes: Any) -> str:
        """A node and its value; the name of its first output ("n3", "n3_1", ...)."""
        name = f"n{len(self.nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        node = helper.make_node(
            op, list(given), names, name=f"{op}_{len(self.nodes)}", **attributes
        )
        for out, value in zip(names, self._run(node), strict=True):
            self.values[out] = value
        self.nodes.append(node)
        return name

    def _run(self, node: Any) -> list[np.ndarray]:
        read = [n for n in dict.fromkeys(node.input) if n]
        kinds = {n: helper.np_dtype_to_tensor_dtype(self.values[n].dtype) for n in read}
        taken = [helper.make_tensor_value_info(n, kinds[n], self.values[n].shape) for n in read]
        given = [helper.make_value_info(n, onnx.TypeProto()) for n in node.output]
        model = self._model([node], taken, given, [])
        session = session_of(model)
        return session.run(None, {n: self.values[n] for n in read})

    def _model(self, nodes: Any, taken: Any, given: Any, held: Any) -> onnx.ModelProto:
        graph = helper.make_graph(nodes, "net", taken, given, held)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR[self.opset])

    def _float(self, name: str) -> onnx.ValueInfoProto:
        shape = [self.batch, *self.values[name].shape[1:]]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def finished(self, outputs: list[str]) -> onnx.ModelProto:
        """The file: pictures in, and what goes with them; of old opsets (and now and then) weights
        listed as inputs."""
        taken = [self._float(n) for n in ("input", *self.extras)]
        if self.opset < 9 or self.rng.random() < 0.1:
            taken += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.held]
        given = [
            helper.make_tensor_value_info(
                n, TensorProto.FLOAT, [self.batch, *self.values[n].shape[1:]]
            )
            for n in outputs
        ]
        model = self._model(self.nodes, taken, given, self.held)
        onnx.checker.check_model(model)
        return model


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    """ONNX Runtime with nothing optimised: the reference."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def build(seed: int, side: int = 24) -> onnx.ModelProto:
    """The ONNX file of a seed; the same each time."""
    while True:
        model = _drawn(seed, side)
        try:
            session_of(model)
        except Fail:  # its shape inference and its kernels disagree on a pool that rounds up
            seed += 1_000_000_007
        else:
            return model


def _drawn(seed: int, side: int) -> onnx.ModelProto:
    from benchmarks.random_nets import onnx_tensors  # its heads join HEADS

    w = Writer(seed, side)
    if "mask" in w.extras:
        w.x = w.add("Mul", w.x, w.add("Sigmoid", "mask"))
    BLOCKS["conv"](w)
    if "numbers" in w.extras:
        onnx_tensors.conditioned(w)
    names = list(BLOCKS)
    share = np.array([BLOCKS[n].share for n in names])  # type: ignore[attr-defined]
    for _ in range(int(w.rng.integers(2, 6))):
        block = BLOCKS[str(w.rng.choice(names, p=share / share.sum()))]
        if w.shape[-1] > 32:
            w.x = w.add("MaxPool", w.x, kernel_shape=[2, 2], strides=[2, 2])
        block(w)
        spread = float(w.values[w.x].std())
        if not 0.05 < spread < 20:  # keep what flows of a size that a sound int8 form exists
            w.x = w.add("Mul", w.x, w.constant(1 / max(spread, 1e-3)))
    names = list(HEADS)
    return w.finished(HEADS[names[int(w.rng.integers(len(names)))]](w))


def pointing(w: Any, f: np.ndarray, outputs: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Weights (outputs, F) and bias of a dense layer that tells the classes of features apart."""
    y = w.kinds
    mu = np.stack([f[y == k].mean(0) for k in range(CLASSES)])
    within = np.stack([f[y == k].var(0) for k in range(CLASSES)]).mean(0)
    weight = ((mu - f.mean(0)) / (within + 0.1 * f.var() + 1e-9))[:outputs]
    weight *= 2.5 / ((f @ weight.T).std() + 1e-9)
    return weight, -(f @ weight.T).mean(0)
