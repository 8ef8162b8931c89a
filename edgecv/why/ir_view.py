"""An OpenVINO IR (model.xml, model.bin) as `edgecv why` looks at it.

    x ─ FakeQuantize ─ Convolution ─ Add (bias) ─ Relu ─ FakeQuantize ─ ...

OpenVINO's plugin turns a FakeQuantize in front of a layer and integer weights into an integer
layer (its low precision transformations); what it made of which is in the profile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.openvino.fusion_faults import BETWEEN
from edgecv.errors import EngineError, missing
from edgecv.measuring.product import Product
from edgecv.runtime.layers import layer_of
from edgecv.subnormals import count, flush
from edgecv.why.view import Transposed, View
from edgecv.why.walk import beyond

PRODUCTS = {"Convolution": "conv", "GroupConvolution": "conv", "MatMul": "dense"}
COUNTED = "BinaryConvolution"
_LAYERS = {*PRODUCTS, COUNTED}
_THROUGH = frozenset(("Convert", "Multiply", "Reshape", "Subtract", "Transpose", "FakeQuantize"))
_GRID_STAYS = frozenset(
    ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", BETWEEN)
)
_FAR = 8


class IrView(View):
    """A `View` of .xml and .bin bytes. Raises MissingExtraError, EngineError."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        try:
            import openvino as ov
        except ImportError:
            raise missing("openvino", "openvino", "edgecv why") from None
        self._ov, self.files = ov, dict(files)
        self._xml, self._weights = [*files.values(), b""][:2]
        self.model = self._read()

    @cached_property
    def products(self) -> tuple[Product, ...]:
        return tuple(
            self._product(op) for op in self.model.get_ordered_ops() if _kind(op) in PRODUCTS
        )

    @cached_property
    def counted(self) -> tuple[Product, ...]:  # type: ignore[override]  # a property of others too
        return tuple(
            replace(self._product(op), activations="binary", weights="binary")
            for op in self.model.get_ordered_ops()
            if _kind(op) == COUNTED
        )

    @cached_property
    def transposes(self) -> tuple[Transposed, ...]:
        return tuple(
            Transposed(op.get_friendly_name(), (_around(op, -1), _around(op, 1)))
            for op in self.model.get_ordered_ops()
            if _moves(op)
        )

    def floats(self) -> Iterator[tuple[str, np.ndarray]]:
        for op in _weights(self.model):
            if "f" in op.get_element_type().get_type_name():
                reader = _read_by(op)
                yield _layer(reader) or op.get_friendly_name(), np.asarray(op.data)

    def without_transposes(self) -> Mapping[str, bytes] | None:
        opset, model = self._ov.opset13, self._read()
        found = [op for op in model.get_ordered_ops() if _moves(op)]
        for op in found:
            shape = np.array(op.output(0).shape, np.int64)
            if list(op.input(0).get_shape()) == shape.tolist():
                op.output(0).replace(op.input_value(0))
                continue
            new = opset.reshape(op.input_value(0), shape, special_zero=False)
            new.set_friendly_name(op.get_friendly_name())
            op.output(0).replace(new.output(0))
        return self._written(model) if found else None

    def without_subnormals(self) -> Mapping[str, bytes] | None:
        model = self._read()
        found = [op for op in _weights(model) if count(np.asarray(op.data))]
        for op in found:
            new = self._ov.opset13.constant(flush(np.asarray(op.data)))
            new.set_friendly_name(op.get_friendly_name())
            op.output(0).replace(new.output(0))
        return self._written(model) if found else None

    def in_integers(
        self, layers: set[str], feeds: Mapping[str, np.ndarray]
    ) -> Mapping[str, bytes] | None:
        from edgecv.why.ir_int8 import in_integers

        model = self._read()
        found = [op for op in model.get_ordered_ops() if _kind(op) in PRODUCTS]
        able = [op for op in found if (_layer(op) or op.get_friendly_name()) in layers]
        able = [op for op in able if _constant(op, 1) is not None and _grid(op) == "float32"]
        return self._written(model) if in_integers(model, able, feeds) else None

    def _read(self) -> Any:
        try:
            return self._ov.Core().read_model(self._xml, self._weights)
        except Exception as e:
            hint = "are .xml and .bin whole and of one pair?"
            raise EngineError("openvino", " ".join(str(e).split())[:200], hint) from None

    def _written(self, model: Any) -> Mapping[str, bytes]:
        """A model as the engine's files, under the names that the bundle has."""
        with tempfile.TemporaryDirectory(prefix="edgecv-why-") as room:
            xml = Path(room) / "model.xml"
            self._ov.save_model(model, str(xml), compress_to_fp16=False)
            made = xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
        return dict(zip(self.files, made, strict=True))

    def _product(self, op: Any) -> Product:
        weight = _constant(op, 1)
        common: dict[str, Any] = {
            "layer": _layer(op) or op.get_friendly_name(),
            "kind": PRODUCTS.get(_kind(op), "conv"),
            "activations": _grid(op),
            "weights": "" if weight is None else _dtype(weight.get_element_type()),
            "fixed": (_reaches(op, -1), _reaches(op, 1)),
        }
        into, out = list(op.input(0).get_shape()), list(op.output(0).get_shape())
        if _kind(op) == "MatMul" or len(into) != 4:
            return Product(channels=(into[-1], out[-1]), **{**common, "kind": "dense"})
        known, dims = op.get_attributes(), list(op.input(1).get_shape())
        begin, end = known["pads_begin"], known["pads_end"]
        return Product(
            channels=(into[1], out[1]), size=(into[2], into[3]), result=(out[2], out[3]),
            kernel=(dims[-2], dims[-1]), strides=tuple(known["strides"]),
            dilations=tuple(known["dilations"]), pads=(*begin, *end),
            groups=dims[0] if _kind(op) == "GroupConvolution" else 1, **common,
        )  # fmt: skip


def _kind(op: Any) -> str:
    return str(op.get_type_name())


def _dtype(element: Any) -> str:
    kind = str(element.get_type_name())
    return {"f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8", "i4": "int4",
            "u4": "uint4"}.get(kind, kind)  # fmt: skip


def _weights(model: Any) -> list[Any]:
    """Constants that are no borders of a FakeQuantize: one just below 0 is meant so."""
    return [
        op
        for op in model.get_ordered_ops()
        if _kind(op) == "Constant" and any(_kind(r) != "FakeQuantize" for r in _readers(op))
    ]


def _source(op: Any, place: int = 0) -> Any:
    return op.input_value(place).get_node()


def _readers(op: Any) -> list[Any]:
    return [port.get_node() for out in op.outputs() for port in out.get_target_inputs()]


def _constant(op: Any, place: int) -> Any:
    """The constant behind an input, through what unpacks it; None for an activation."""
    node = _source(op, place)
    for _ in range(_FAR):
        if _kind(node) == "Constant":
            return node
        if _kind(node) not in _THROUGH:
            return None
        node = _source(node)
    return None


def _layer(op: Any) -> str:
    if op is None or _kind(op) not in _LAYERS:
        return ""
    weight = _constant(op, 1)
    names = [weight.get_friendly_name()] if weight is not None else []
    return layer_of(names, (op.get_friendly_name(),))


def _read_by(constant: Any) -> Any:
    """The product that a constant is a weight of, None where it is of none."""
    node = constant
    for _ in range(_FAR):
        near = _readers(node)
        if not near:
            return None
        node = near[0]
        if _kind(node) in PRODUCTS:
            return node
        if _kind(node) not in _THROUGH:
            return None
    return None


def _grid(op: Any) -> str:
    """ "uint8" where a FakeQuantize stands before its input, else "float32"."""
    node = _source(op)
    for _ in range(_FAR):
        if _kind(node) == "FakeQuantize":
            return "uint8"
        if _kind(node) not in _GRID_STAYS:
            break
        node = _source(node)
    return "float32"


def _moves(op: Any) -> bool:
    return _kind(op) == "Transpose" and _constant(op, 0) is None


def _beyond(op: Any, way: int) -> Iterator[Any]:
    """The nodes before (way -1) or after (1) a node up to the next products, nearest first."""

    def near(at: Any) -> list[Any]:
        return _readers(at) if way > 0 else [_source(at, i) for i in range(at.get_input_size())]

    return beyond(op, near, lambda at: at.get_name(), lambda at: _kind(at) in _LAYERS)


def _reaches(op: Any, way: int) -> bool:
    """Whether the network's input (way -1) or output (1) is next to it, no product between."""
    return any(_kind(at) in ("Parameter", "Result") for at in _beyond(op, way))


def _around(op: Any, way: int) -> str:
    """The nearest product before (-1) or after (1) a node."""
    found = next((at for at in _beyond(op, way) if _kind(at) in PRODUCTS), None)
    return (_layer(found) or str(found.get_friendly_name())) if found is not None else ""
