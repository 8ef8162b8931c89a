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

from edgecv.diagnosis.why.view import Transposed, View
from edgecv.diagnosis.why.walk import beyond
from edgecv.graphs.openvino.constants import constant, dtype
from edgecv.graphs.openvino.files import read
from edgecv.graphs.openvino.layers import COUNTED, FORWARD, layer_name, quantized, reader_of
from edgecv.graphs.openvino.nodes import kind, name, readers, source, sources
from edgecv.measuring.product import Product
from edgecv.subnormals import count, flush

_STOPS = (*FORWARD, COUNTED)


class IrView(View):
    """A `View` of .xml and .bin bytes. Raises MissingExtraError, EngineError."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.model = self._read()

    @cached_property
    def products(self) -> tuple[Product, ...]:
        return tuple(
            self._product(op) for op in self.model.get_ordered_ops() if kind(op) in FORWARD
        )

    @cached_property
    def counted(self) -> tuple[Product, ...]:  # type: ignore[override]  # a property of others too
        return tuple(
            replace(self._product(op), activations="binary", weights="binary")
            for op in self.model.get_ordered_ops()
            if kind(op) == COUNTED
        )

    @cached_property
    def transposes(self) -> tuple[Transposed, ...]:
        return tuple(
            Transposed(name(op), (_around(op, -1), _around(op, 1)))
            for op in self.model.get_ordered_ops()
            if _moves(op)
        )

    def floats(self) -> Iterator[tuple[str, np.ndarray]]:
        for op in _weights(self.model):
            if "f" in op.get_element_type().get_type_name():
                reader = reader_of(op)
                yield layer_name(reader) or name(op), np.asarray(op.data)

    def without_transposes(self) -> Mapping[str, bytes] | None:
        from openvino import opset13 as opset

        model = self._read()
        found = [op for op in model.get_ordered_ops() if _moves(op)]
        for op in found:
            shape = np.array(op.output(0).shape, np.int64)
            if list(op.input(0).get_shape()) == shape.tolist():
                op.output(0).replace(op.input_value(0))
                continue
            new = opset.reshape(op.input_value(0), shape, special_zero=False)
            new.set_friendly_name(name(op))
            op.output(0).replace(new.output(0))
        return self._written(model) if found else None

    def without_subnormals(self) -> Mapping[str, bytes] | None:
        from openvino import opset13 as opset

        model = self._read()
        found = [op for op in _weights(model) if count(np.asarray(op.data))]
        for op in found:
            new = opset.constant(flush(np.asarray(op.data)))
            new.set_friendly_name(name(op))
            op.output(0).replace(new.output(0))
        return self._written(model) if found else None

    def in_integers(
        self, layers: set[str], feeds: Mapping[str, np.ndarray]
    ) -> Mapping[str, bytes] | None:
        from edgecv.diagnosis.why.ir_int8 import in_integers

        model = self._read()
        found = [op for op in model.get_ordered_ops() if kind(op) in FORWARD]
        able = [op for op in found if (layer_name(op) or name(op)) in layers]
        able = [op for op in able if constant(op, 1) is not None and _activations(op) == "float32"]
        return self._written(model) if in_integers(model, able, feeds) else None

    def _read(self) -> Any:
        return read(list(self.files.values()), next(iter(self.files)))

    def _written(self, model: Any) -> Mapping[str, bytes]:
        """A model as the engine's files, under the names that the bundle has."""
        import openvino as ov

        with tempfile.TemporaryDirectory(prefix="edgecv-why-") as room:
            xml = Path(room) / "model.xml"
            ov.save_model(model, str(xml), compress_to_fp16=False)
            made = xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
        return dict(zip(self.files, made, strict=True))

    def _product(self, op: Any) -> Product:
        weight = constant(op, 1)
        common: dict[str, Any] = {
            "layer": layer_name(op) or name(op),
            "kind": FORWARD.get(kind(op), "conv"),
            "activations": _activations(op),
            "weights": "" if weight is None else dtype(weight),
            "fixed": (_reaches(op, -1), _reaches(op, 1)),
        }
        into, out = list(op.input(0).get_shape()), list(op.output(0).get_shape())
        if kind(op) == "MatMul" or len(into) != 4:
            return Product(channels=(into[-1], out[-1]), **{**common, "kind": "dense"})
        known, dims = op.get_attributes(), list(op.input(1).get_shape())
        begin, end = known["pads_begin"], known["pads_end"]
        return Product(
            channels=(into[1], out[1]), size=(into[2], into[3]), result=(out[2], out[3]),
            kernel=(dims[-2], dims[-1]), strides=tuple(known["strides"]),
            dilations=tuple(known["dilations"]), pads=(*begin, *end),
            groups=dims[0] if kind(op) == "GroupConvolution" else 1, **common,
        )  # fmt: skip


def _weights(model: Any) -> list[Any]:
    """Constants that are no borders of a FakeQuantize: one just below 0 is meant so."""
    return [
        op
        for op in model.get_ordered_ops()
        if kind(op) == "Constant" and any(kind(r) != "FakeQuantize" for r in readers(op))
    ]


def _activations(op: Any) -> str:
    """What a layer reads."""
    return "uint8" if quantized(source(op)) else "float32"


def _moves(op: Any) -> bool:
    return kind(op) == "Transpose" and constant(op, 0) is None


def _beyond(op: Any, way: int) -> Iterator[Any]:
    """The nodes before (way -1) or after (1) a node up to the next products, nearest first."""

    def near(at: Any) -> list[Any]:
        return readers(at) if way > 0 else sources(at)

    return beyond(op, near, lambda at: at.get_name(), lambda at: kind(at) in _STOPS)


def _reaches(op: Any, way: int) -> bool:
    """Whether the network's input (way -1) or output (1) is next to it, no product between."""
    return any(kind(at) in ("Parameter", "Result") for at in _beyond(op, way))


def _around(op: Any, way: int) -> str:
    """The nearest product before (-1) or after (1) a node."""
    found = next((at for at in _beyond(op, way) if kind(at) in FORWARD), None)
    return (layer_name(found) or name(found)) if found is not None else ""
