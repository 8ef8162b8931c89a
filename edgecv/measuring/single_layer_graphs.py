"""A network of one layer, of any width and precision, to be measured beside its neighbours.

    x ─ conv or dense ─ y        float32, or u8 in and u8 out with s8 weights

What a width costs is found by running it: kernels work in blocks of channels, and which ones they
like is the engine's secret. Weights and inputs are noise, from a fixed seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends import compile_module, facts, has
from edgecv.errors import missing
from edgecv.measuring.clock import Trial
from edgecv.measuring.product import Product

OPSET = 18
Made = tuple[Mapping[str, bytes], Mapping[str, np.ndarray]]  # an engine's files, what they are fed
_STEP = np.float32(0.05)


def trial(product: Product, engine: str, integer: bool, threads: int, chain: int = 1) -> Trial:
    """The layer on its own, ready to be measured. Raises EdgecvError (the engine refuses it).

    chain: how often it follows itself, for layers that leave their input's shape as it is
    """
    try:
        files, feeds = _made(product, engine, integer, chain)
    except ImportError as e:
        raise missing(e.name or "onnx", "compress", "edgecv why") from None
    kind = "int8" if integer else "fp32"
    return Trial(f"{product.layer} {product.channels} {kind}", engine, files, feeds, threads)


def _made(product: Product, engine: str, integer: bool, chain: int) -> Made:
    """The engine's files and what they are fed."""
    if has(engine, "single_layer"):
        made: Made = _own(engine).twin(product, integer, chain)
        return made
    content, feeds = onnx_twin(product, integer, chain)
    return _compiled(content, engine), feeds


def _own(engine: str) -> Any:
    """What makes the engine's files without its compiler."""
    return import_module(f"edgecv.backends.{engine}.single_layer")


def row(products: Sequence[Product], engine: str, integer: bool, threads: int) -> Trial:
    """Layers one after the other, ready to be measured. Raises EdgecvError as `trial`."""
    try:
        if has(engine, "single_layer"):
            files, feeds = _own(engine).row(products, integer)
        else:
            content, feeds = joined(products, integer)
            files = _compiled(content, engine)
    except ImportError as e:
        raise missing(e.name or "onnx", "compress", "edgecv why") from None
    return Trial(products[0].layer, engine, files, feeds, threads)


def joined(products: Sequence[Product], integer: bool) -> tuple[bytes, Mapping[str, np.ndarray]]:
    """(.onnx bytes, feeds) of layers one after the other."""
    import onnx
    from onnx import compose

    (first, feeds), *rest = (onnx_twin(product, integer) for product in products)
    whole = onnx.load_model_from_string(first)
    for i, (content, _) in enumerate(rest):
        part = compose.add_prefix(onnx.load_model_from_string(content), f"p{i}_")
        joint = [(whole.graph.output[0].name, part.graph.input[0].name)]
        whole = compose.merge_models(whole, part, joint)
    return whole.SerializeToString(), feeds


def onnx_twin(
    product: Product, integer: bool, chain: int = 1
) -> tuple[bytes, Mapping[str, np.ndarray]]:
    """(.onnx bytes, feeds) of a network of that one layer, with a ReLU behind it."""
    from onnx import TensorProto, checker, helper, numpy_helper

    rng = np.random.default_rng(0)
    held: list[Any] = []
    nodes: list[Any] = []

    def hold(name: str, array: Any) -> str:
        held.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    dense = product.kind == "dense"
    source, target = product.channels
    shape = [1, source] if dense else [1, source, *product.size]
    result = [1, target] if dense else [1, target, *product.result]
    dims = [target, source] if dense else [target, source // product.groups, *product.kernel]
    attributes: dict[str, Any] = {"transB": 1}
    if not dense:
        attributes = {
            "kernel_shape": product.kernel, "strides": product.strides, "pads": product.pads,
            "dilations": product.dilations, "group": product.groups,
        }  # fmt: skip
    op = "Gemm" if dense else "Conv"
    grid: list[str] = []
    x, w, b = "x", "w", hold("b", np.zeros(target, np.float32))
    if not integer:
        hold("w", rng.normal(0, 0.05, dims).astype(np.float32))
        feed: np.ndarray = rng.normal(size=shape).astype(np.float32)
    else:
        feed = rng.integers(0, 256, shape, dtype=np.uint8)
        grid = [hold("step", _STEP), hold("zero", np.uint8(0))]
        hold("w_q", rng.integers(-127, 128, dims, dtype=np.int8))
        hold("w_s", np.full(target, _STEP, np.float32))
        hold("w_z", np.zeros(target, np.int8))
        held[0].CopyFrom(numpy_helper.from_array(np.zeros(target, np.int32), "b"))
        hold("b_s", np.full(target, _STEP * _STEP, np.float32))
        hold("b_z", np.zeros(target, np.int32))
        nodes = [
            helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w_r"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "b_s", "b_z"], ["b_r"], axis=0),
        ]
        w, b = "w_r", "b_r"
    for i in range(chain):
        last = "y" if i == chain - 1 else f"x{i}"
        if integer:
            nodes.append(helper.make_node("DequantizeLinear", [x, *grid], [f"r{i}"]))
            x = f"r{i}"
        nodes += [
            helper.make_node(op, [x, w, b], [f"c{i}"], **attributes),
            helper.make_node("Relu", [f"c{i}"], [f"a{i}" if integer else last]),
        ]
        if integer:
            nodes.append(helper.make_node("QuantizeLinear", [f"a{i}", *grid], [last]))
        x = last
    kind = TensorProto.UINT8 if integer else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "twin", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, result)], held,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    checker.check_model(model)
    return model.SerializeToString(), {"x": feed}


def _compiled(content: bytes, engine: str) -> Mapping[str, bytes]:
    """What the engine's own compiler makes of an .onnx file."""
    from edgecv.graph import Graph
    from edgecv.runtime.spec import TensorSpec
    from edgecv.target import load

    with tempfile.TemporaryDirectory(prefix="edgecv-why-") as room:
        path = Path(room) / "twin.onnx"
        path.write_bytes(content)
        x, y = TensorSpec("x", "uint8", ()), TensorSpec("y", "uint8", ())
        graph = Graph(path, "onnx", "int8", (x,), (y,))
        own = load(facts(engine).profile or engine)
        compiled = compile_module(engine).compile(graph, own, Path(room) / "out")
        return {n: (Path(room) / "out" / n).read_bytes() for n in compiled.files}
