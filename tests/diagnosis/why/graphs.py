"""Small ONNX graphs with one thing wrong each, made in milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

HW = 8


class Build:
    """An ONNX graph, node by node: x (1, 4, HW, HW) first, what `model` is given last."""

    def __init__(self, channels: int = 4) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.channels, self.nodes, self.held = channels, [], []
        self.rng = np.random.default_rng(0)

    def hold(self, name: str, array: Any) -> str:
        self.held.append(self._numpy.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = f"/{output}/{op}"
        self.nodes.append(self._helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def grid(self, tensor: str, dtype: type = np.uint8, positive: bool = False) -> str:
        """Quantized and dequantized; positive: on a grid that begins at 0."""
        scale, info = 0.05, np.iinfo(dtype)
        zero = info.min if positive else (info.min + info.max + 1) // 2
        grid = [self.hold(f"{tensor}_s", np.float32(scale)), self.hold(f"{tensor}_z", dtype(zero))]
        self.node("QuantizeLinear", [tensor, *grid], f"{tensor}_q")
        return self.node("DequantizeLinear", [f"{tensor}_q", *grid], f"{tensor}_dq")

    def conv(self, source: str, layer: str, integer: bool = True, out: int | None = None) -> str:
        """A 3x3 convolution with the weight "<layer>.weight", packed in int8 or float."""
        out = out or self.channels
        shape = (out, self.channels, 3, 3)
        self.channels = out
        if not integer:
            weight = self.hold(f"{layer}.weight", self.rng.normal(0, 0.2, shape).astype("f"))
        else:
            q = self.rng.integers(-127, 128, shape, dtype=np.int8)
            grid = [
                self.hold(f"{layer}.weight_quantized", q),
                self.hold(f"{layer}.weight_scale", np.full(out, 0.002, np.float32)),
                self.hold(f"{layer}.weight_zero_point", np.zeros(out, np.int8)),
            ]
            weight = self.node("DequantizeLinear", grid, f"{layer}_w", axis=0)
        return self.node("Conv", [source, weight], layer, kernel_shape=[3, 3], pads=[1] * 4)

    def model(self, output: str, shape: tuple[int, ...] | None = None) -> bytes:
        import onnx

        kind, ends = onnx.TensorProto.FLOAT, []
        for name, dims in (("x", (1, 4, HW, HW)), (output, shape or (1, self.channels, HW, HW))):
            ends.append(self._helper.make_tensor_value_info(name, kind, dims))
        graph = self._helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.held)
        opset = [self._helper.make_opsetid("", 18)]
        model = self._helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(1, 4, HW, HW)).astype(np.float32)}


def run(files: Any, plain: bool = True) -> np.ndarray:
    """The output of an .onnx file; plain: with ONNX Runtime's optimiser off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (content,) = files.values()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds())[0])
