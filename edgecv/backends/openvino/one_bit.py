"""Where(x >= β, 1, −1) → Convolution of ±s_f   becomes   FakeQuantize → BinaryConvolution → s_f.

    FakeQuantize(x; β⁻, β⁻, 0, 1, 2 levels),  β⁻ the next float below β: x > β⁻ where x >= β

OpenVINO's BinaryConvolution counts bits on x86 (jit kernels; its maintainers call it obsolete, and
it is absent on ARM and GPU). Facts that cost time, OpenVINO 2026.4: u1 constants are packed from
the highest bit and read from the lowest; channels that are no multiple of 8 (of 16 with AVX-512)
give wrong sums without a word; kernels beyond 5x5, some channel counts and groups are refused.
So only shapes that can be right are taken, and each of them is run beside the float convolution of
the same weights, whose sums of ±1 are exact: what differs stays float. Scale and bias behind it are
fused, and round as two operations do. A bias and the shift of an RPReLU right behind it would be
made one constant, which rounds otherwise: a clamp that changes nothing parts them (`parted`).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from edgecv.graphs.openvino.nodes import kind, name, source

log = logging.getLogger(__name__)
BLOCK = 16  # channels in and out are multiples of it
LARGEST = 5  # kernel
LOW, HIGH = "edgecv.least", "edgecv.most"


def lower(model: Any) -> int:
    """Rewrite an ov.Model in place where that is exact here; how many layers count bits now."""
    done, proven = 0, dict[tuple[Any, ...], str]()
    for node in list(model.get_ordered_ops()):
        found = _match(node)
        if found is None:
            continue
        x, least, weight, how = found
        key = (tuple(x.shape), weight.shape, *(tuple(v) for v in how.values()))
        if key not in proven:
            proven[key] = _refusal(x.shape, weight, how)
        if why := proven[key]:
            log.warning("%s %s: stays float on OpenVINO", name(node), why)
            continue
        names = name(node), name(source(node, 1))
        made = _binary(x, least, weight, how, names)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(made.output(0))
        done += 1
    if done:
        model.validate_nodes_and_infer_types()
    return done


def parted(model: Any) -> Any:
    """An onnx.ModelProto with a Clip between a one-bit layer's bias and a constant behind it."""
    from onnx import helper, numpy_helper

    from edgecv.binary.countable import countable

    counted, graph = countable(model), model.graph
    constants = {t.name for t in graph.initializer}
    most = float(np.finfo(np.float32).max)
    for border, value in ((LOW, -most), (HIGH, most)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), border))
    nodes = []
    for node in list(graph.node):
        nodes.append(node)
        if node.output[0] not in counted or len(node.input) < 3:
            continue
        readers = [n for n in graph.node if node.output[0] in n.input]
        if len(readers) != 1:
            continue
        (reader,) = readers
        if reader.op_type not in ("Add", "Sub") or not constants & set(reader.input):
            continue
        out = node.output[0]
        node.output[0] = f"{out}.sums"
        nodes.append(helper.make_node("Clip", [node.output[0], LOW, HIGH], [out]))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _match(node: Any) -> tuple[Any, np.ndarray, np.ndarray, dict[str, list[int]]] | None:
    """(x's output, β, weights, strides and the like) of a convolution of signs by ±s_f, or None."""
    if kind(node) != "Convolution":
        return None
    select, weight = source(node, 0), _constant(node, 1)
    if kind(select) != "Select" or weight is None or weight.ndim != 4:
        return None
    compare, one, minus = source(select, 0), _constant(select, 1), _constant(select, 2)
    if kind(compare) != "GreaterEqual" or one is None or minus is None:
        return None
    least = _constant(compare, 1)
    if not (np.all(one == 1) and np.all(minus == -1)) or least is None:
        return None
    size = np.abs(weight)
    if np.any(size != size.reshape(len(size), -1).max(1).reshape(-1, 1, 1, 1)) or not size.all():
        return None
    x = compare.input_value(0)
    if x.partial_shape.is_dynamic or len(x.shape) != 4 or not np.all(np.isfinite(least)):
        return None
    held = node.get_attributes()
    if held["auto_pad"] != "explicit":
        return None
    how = {n: list(held[n]) for n in ("strides", "pads_begin", "pads_end", "dilations")}
    return x, least.astype(np.float32), weight.astype(np.float32), how


def _constant(node: Any, index: int) -> np.ndarray | None:
    found = source(node, index)
    return np.array(found.data) if kind(found) == "Constant" else None


def _binary(
    x: Any,
    least: np.ndarray,
    weight: np.ndarray,
    how: dict[str, list[int]],
    names: tuple[str, str],
) -> Any:
    """FakeQuantize, BinaryConvolution and the filters' sizes, of x (an output).

    names: of the convolution and of its weights, which profiles tell the layer by
    """
    from openvino import Shape, Type, op, opset8

    channels = weight.shape[1]
    below = np.nextafter(np.broadcast_to(least, (1, channels, 1, 1)), np.float32(-np.inf))
    border = opset8.constant(np.ascontiguousarray(below, np.float32))
    low, high = (opset8.constant(np.full((1, 1, 1, 1), v, np.float32)) for v in (0, 1))
    signs = opset8.fake_quantize(x, border, border, low, high, 2)
    signs.set_friendly_name(f"{names[0]}/signs")
    bits = np.packbits(weight.reshape(-1) > 0, bitorder="little")
    backwards = np.unpackbits(bits)[: weight.size]  # op.Constant packs from the highest bit
    held = op.Constant(Type.u1, Shape(weight.shape), backwards.tolist())
    held.set_friendly_name(names[1])
    sums = opset8.binary_convolution(
        signs, held, how["strides"], how["pads_begin"], how["pads_end"], how["dilations"],
        "xnor-popcount", 0.0,
    )  # fmt: skip
    sums.set_friendly_name(names[0])
    size = np.abs(weight).reshape(len(weight), -1).max(1).reshape(1, -1, 1, 1)
    return opset8.multiply(sums, opset8.constant(np.ascontiguousarray(size)))


def _refusal(shape: Any, weight: np.ndarray, how: dict[str, list[int]]) -> str:
    """Why a shape cannot be counted, or "": run beside a float convolution of the same signs."""
    if max(weight.shape[2:]) > LARGEST:
        return f"has a {weight.shape[2]}x{weight.shape[3]} kernel"
    if weight.shape[0] % BLOCK or weight.shape[1] % BLOCK:
        return f"has {weight.shape[1]} and {weight.shape[0]} channels, no multiples of {BLOCK}"
    import openvino as ov
    from openvino import opset8

    rng = np.random.default_rng(0)
    x = opset8.parameter(list(shape), np.float32)
    least = rng.normal(size=(1, shape[1], 1, 1)).astype(np.float32)
    ones = np.where(rng.random(weight.shape) < 0.5, -1, 1).astype(np.float32)
    above = opset8.greater_equal(x, opset8.constant(least))
    one, minus = (opset8.constant(np.array(v, np.float32)) for v in (1, -1))
    signs = opset8.select(above, one, minus)
    real = opset8.convolution(
        signs, opset8.constant(ones), how["strides"], how["pads_begin"], how["pads_end"],
        how["dilations"],
    )  # fmt: skip
    counted = _binary(x.output(0), least, ones, how, ("", ""))
    values = np.broadcast_to(least, tuple(shape)) + rng.integers(-1, 2, tuple(shape))
    try:
        compiled = ov.Core().compile_model(
            ov.Model([real, counted], [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        wanted, got = compiled([values.astype(np.float32)]).values()
    except Exception as e:  # what a plugin of another processor or version may raise
        return f"is refused ({' '.join(str(e).split())[-80:]})"
    return "" if np.array_equal(wanted, got) else "comes out wrong"
