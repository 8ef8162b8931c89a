"""A `Case` by hand, for checks that need no engine."""

from __future__ import annotations

from typing import Any

from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.view import View
from edgecv.measuring.product import Product
from edgecv.runtime.spec import Layer
from edgecv.target import load


class Held(View):
    """A view that holds what it is given."""

    files = {}

    def __init__(self, *products: Product) -> None:
        self._products = products

    @property
    def products(self) -> tuple[Product, ...]:
        return self._products

    @property
    def transposes(self) -> tuple:
        return ()

    def floats(self) -> Any:
        return iter(())


def case(*rows: Layer, products: tuple[Product, ...] = (), **options: Any) -> Case:
    """rows: the profile. engine, precision, features, architecture and Case's own fields."""
    facts = {"engine": "onnxruntime", "precision": "int8", "target": "cpu", "grid": None,
             "keep_float": []}  # fmt: skip
    manifest = {k: options.pop(k, v) for k, v in facts.items()}
    machine = {
        "architecture": options.pop("architecture", "x86_64"),
        "features": options.pop("features", ["avx2", "avx512_vnni"]),
    }
    total = sum(r.time_ms or 0.0 for r in rows) or None
    return Case(
        manifest, Held(*products), load(manifest["target"]), machine, layers=rows,
        call_ms=options.pop("call_ms", total), **options,
    )  # fmt: skip


def row(layer: str, op: str = "Conv", precision: str = "fp32", ms: float = 0.1, size: int = 1000):
    return Layer(layer or op, layer, op, precision, ms, size)
