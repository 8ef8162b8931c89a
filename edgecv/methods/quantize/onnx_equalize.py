"""Equalizing the channels of a float ONNX graph (`equalization.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import layer_inputs
from edgecv.graphs.onnx.geometry import groups
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import outputs_first, plain
from edgecv.methods.quantize import equalization
from edgecv.methods.quantize.equalization import Layer, Ties
from edgecv.samples import CalibrationData

# Operators that commute with a positive scale per channel.
_PASS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")


def equalized(model: Any, samples: CalibrationData) -> Any:
    """A copy of the model that computes the same with evener channels.

    model: onnx.ModelProto with inferred shapes. samples: float32 (N, C, H, W).
    """
    import onnx
    from onnx import numpy_helper

    layers, ties = _read(model)
    free = equalization.groups(layers, ties)
    names = sorted({n for g in free for n in g.tensors})

    def runs() -> Iterator[Callable[[str], np.ndarray]]:
        yield from (partial(_by_channel, v) for v in layer_inputs(model, names, samples))

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {t.name: t for t in copy.graph.initializer}
    nodes = {n.output[0]: n for n in copy.graph.node if n.output}
    for layer in equalization.solve(layers, ties, runs()):
        node = nodes[layer.name]
        weight = outputs_first(node, layer.weight)
        tensor = held[node.input[1]]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight), tensor.name))
        if layer.bias is not None:
            tensor = held[node.input[2]]
            tensor.CopyFrom(numpy_helper.from_array(layer.bias, tensor.name))
    return copy


def _by_channel(values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return values[name].reshape(values[name].shape[1], -1)


def _read(model: Any) -> tuple[list[Layer], Ties]:
    from onnx import numpy_helper

    held, uses = Index(model.graph).held, Index(model.graph).uses
    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    layers: list[Layer] = []
    ties = Ties(fixed={v.name for v in (*model.graph.input, *model.graph.output)})
    for node in model.graph.node:
        flows = [n for n in node.input if n and n not in held]
        own = [n for n in node.input[1:] if n in held]
        if (
            node.op_type in ("Conv", "Gemm")
            and len(flows) == 1
            and len(own) == len(node.input) - 1
            and all(uses[n] == 1 for n in own)
            and (node.op_type == "Conv" or plain(node))
        ):
            weight, *rest = (numpy_helper.to_array(held[n]) for n in own)
            weight = outputs_first(node, weight)
            bias = rest[0] if rest else None
            layers.append(
                Layer(node.output[0], weight, bias, groups(node), flows[0], node.output[0])
            )
        elif node.op_type in _PASS or _passes(node, known, held):
            ties.pairs.append((flows[0], node.output[0]))
            if node.op_type == "Relu":
                ties.hidden.add(flows[0])
        elif node.op_type == "Add" and len(flows) == 2 and _alike(flows, known):
            ties.pairs += [(name, node.output[0]) for name in flows]
        else:
            ties.fixed |= {*flows, *node.output}
    ties.fixed |= {t for t, n in Counter(x.result for x in layers).items() if n > 1}
    return layers, ties


def _passes(node: Any, known: dict[str, Any], held: dict[str, Any]) -> bool:
    """Zero padding of an image, and Flatten of one that has one place."""
    from onnx import numpy_helper

    if node.op_type == "Flatten":
        shape = _shape(known.get(node.input[0]))
        return len(shape) == 4 and shape[2:] == (1, 1)
    if node.op_type == "Pad":
        mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
        value = node.input[2] if len(node.input) > 2 else ""
        zero = not value or (value in held and not numpy_helper.to_array(held[value]).any())
        pads = held.get(node.input[1])
        return bool(
            mode == b"constant"
            and zero
            and pads is not None
            and not numpy_helper.to_array(pads).reshape(2, -1)[:, :2].any()
        )
    return False


def _alike(names: Sequence[str], known: dict[str, Any]) -> bool:
    shapes = {_shape(known.get(n)) for n in names}
    return len(shapes) == 1 and len(shapes.pop()) == 4


def _shape(value: Any) -> tuple[int, ...]:
    return () if value is None else tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
