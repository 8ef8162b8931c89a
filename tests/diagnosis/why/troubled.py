"""Tiny networks, each with one planted trouble, in float and as a plain quantizer leaves them: a
pair behind every activation, from the smallest value to the largest that some images held."""

from __future__ import annotations

from typing import Any

import numpy as np

HW = 8
Net = tuple[Any, list[str]]  # the float model, its activations


class Build:
    """A float ONNX graph, node by node."""

    def __init__(self, channels: int) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.held: list[Any] = []
        self.channels = channels

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], f"/{output}/{op}", **attributes))
        return output

    def conv(
        self, x: str, name: str, gain: Any = 1.0, depthwise: bool = False, bias: Any = 0.0
    ) -> str:
        """1x1 of all channels, or 3x3 of each by itself; gain: of each output channel."""
        from onnx import numpy_helper

        c = self.channels
        shape = (c, 1, 3, 3) if depthwise else (c, c, 1, 1)
        weight = self.rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
        weight *= np.broadcast_to(gain, c).reshape(-1, 1, 1, 1)
        offset = np.broadcast_to(np.asarray(bias, np.float32), c).copy()
        self.held += [
            numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"),
            numpy_helper.from_array(offset, f"{name}.bias"),
        ]
        more = {"group": c, "pads": [1] * 4} if depthwise else {}
        return self.node("Conv", [x, f"{name}.weight", f"{name}.bias"], name, **more)

    def silu(self, x: str) -> str:
        return self.node("Mul", [x, self.node("Sigmoid", [x], f"{x}/sigmoid")], f"{x}/silu")

    def model(self, end: str, channels: int | None = None) -> Any:
        import onnx
        from onnx import helper

        real, shape = onnx.TensorProto.FLOAT, [1, self.channels, HW, HW]
        out = [1, channels or self.channels, HW, HW]
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", real, shape)],
            [helper.make_tensor_value_info(end, real, out)], self.held,
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made


def plain() -> Any:
    """Nothing wrong: two layers with ReLU."""
    b = Build(4)
    x = b.node("Relu", [b.conv("x", "one")], "one/relu")
    return b.model(b.conv(b.node("Relu", [b.conv(x, "two")], "two/relu"), "end"))


def wide_silu() -> Any:
    """What one SiLU reads goes from -300 up, and what it gives ends at some 6."""
    b = Build(4)
    x = b.silu(b.conv("x", "wide", gain=[1, 1, 1, 40], bias=[0, 0, 0, -250]))
    return b.model(b.conv(x, "end", gain=1.0))


def uneven() -> Any:
    """A depthwise layer reads channels of which one is 2,000 times the others."""
    b = Build(8)
    x = b.node("Relu", [b.conv("x", "scaled", gain=[2000, *[1] * 7])], "scaled/relu")
    x = b.conv(x, "depthwise", depthwise=True, gain=[1 / 2000, *[1] * 7])
    return b.model(b.conv(x, "end"))


def joined() -> Any:
    """Boxes to hundreds beside probabilities."""
    b = Build(4)
    boxes = b.conv("x", "boxes", gain=300.0)
    scores = b.node("Sigmoid", [b.conv("x", "logits")], "scores")
    return b.model(b.node("Concat", [boxes, scores], "answer", axis=1), 8)


def run(model: Any, feed: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Those tensors of one image."""
    import onnx
    import onnxruntime as ort

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {o.name for o in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(names, {"x": feed})


def quantized(model: Any, images: np.ndarray) -> Any:
    """The model with a pair behind its input and every activation (behind a ReLU in place of the
    layer in front of it), and s8 weights by channel. images: (N, C, H, W) float32"""
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    first = {n.input[0] for n in graph.node if n.op_type == "Relu"}
    names = ["x", *(o for n in graph.node for o in n.output if o not in first)]
    found = [run(model, image[None], names[1:]) for image in images]
    values = dict(zip(names[1:], zip(*found, strict=True), strict=True)) | {"x": tuple(images)}
    nodes, ends = list(graph.node), {o.name for o in graph.output}
    del graph.node[:]

    def hold(key: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
        return key

    def pair(name: str, source: str, end: str) -> None:
        low = min(0.0, *(float(v.min()) for v in values[name]))
        scale = np.float32((max(float(v.max()) for v in values[name]) - low) / 255)
        zero = np.uint8(np.rint(-low / scale))
        grid = [hold(f"{name}_scale", scale), hold(f"{name}_zero", zero)]
        graph.node.append(helper.make_node("QuantizeLinear", [source, *grid], [f"{name}_q"]))
        graph.node.append(helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [end]))

    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    pair("x", "x", "x_dq")
    for node in nodes:
        node.input[:] = [f"{n}_dq" if n in names else n for n in node.input]
        if node.op_type == "Conv":
            name, own = node.input[1], held[node.input[1]]
            scale = np.abs(own).max((1, 2, 3)).astype(np.float32) / 127
            q = np.rint(own / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
            keys = [hold(f"{name}_quantized", q), hold(f"{name}_scale", scale),
                    hold(f"{name}_zero_point", np.zeros(len(scale), np.int8))]  # fmt: skip
            node.input[1] = f"{name}_dq"
            graph.node.append(helper.make_node("DequantizeLinear", keys, [f"{name}_dq"], axis=0))
        name = node.output[0]
        source, end = (f"{name}_raw", name) if name in ends else (name, f"{name}_dq")
        node.output[0] = source
        graph.node.append(node)
        if name in names:
            pair(name, source, end)
    onnx.checker.check_model(made, full_check=True)
    return made
