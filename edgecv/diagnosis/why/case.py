"""What the checks look at: one bundle, its graph, its profile, a clock to measure mended graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.backends import Facts, facts
from edgecv.diagnosis.why.view import View
from edgecv.errors import EdgecvError
from edgecv.measuring.clock import Clock, Files, Saving, Trial
from edgecv.measuring.product import Product
from edgecv.runtime.spec import Layer

if TYPE_CHECKING:  # profiles take pydantic, which a device has not
    from edgecv.target import Target

X86 = ("x86_64", "amd64")


@dataclass(frozen=True)
class Case:
    """One bundle.

    view:      its graph; None where the file cannot be read (a TensorRT engine)
    target:    the profile it was made for; None when there is none of that name here
    layers:    the engine's profile, in order of execution; empty where it does not run here
    call_ms:   a call without the profiler; None where it does not run here
    machine:   `edgecv.benchmark.machine.machine()`
    providers: what the engine says that it runs on
    """

    manifest: Mapping[str, Any]
    view: View | None
    target: Target | None
    machine: Mapping[str, Any]
    threads: int = 1
    layers: tuple[Layer, ...] = ()
    call_ms: float | None = None
    feeds: Mapping[str, np.ndarray] = field(default_factory=dict)
    clock: Clock | None = None
    providers: tuple[str, ...] = ()

    @property
    def engine(self) -> str:
        return str(self.manifest["engine"])

    @property
    def says(self) -> Facts:
        """What the engine says of itself."""
        return facts(self.engine)

    @property
    def precision(self) -> str:
        return str(self.manifest["precision"])

    @property
    def x86(self) -> bool:
        return str(self.machine["architecture"]).lower() in X86

    @property
    def features(self) -> Collection[str]:
        return list(self.machine["features"])

    @property
    def products(self) -> tuple[Product, ...]:
        return self.view.products if self.view else ()

    @property
    def counted(self) -> tuple[Product, ...]:
        return self.view.counted if self.view else ()

    def ran(self, product: Product) -> Layer | None:
        """The profile's row of a product, None where it has none.

        A pooling that belongs to a one-bit layer has a row of that layer too: the row that counted.
        """
        rows = [r for r in self.layers if r.layer == product.layer and r.precision]
        counted = [r for r in rows if product.weights == "binary" and r.precision == "binary"]
        return next(iter([*counted, *rows]), None)

    def time_ms(self, product: Product) -> float:
        """What a product takes of a call, by the profile; 0 where that says nothing.

        A profiler takes time too: where its layers add up to more than a call, they are scaled.
        """
        row = self.ran(product)
        total = sum(r.time_ms or 0.0 for r in self.layers)
        scale = min(1.0, self.call_ms / total) if self.call_ms and total else 1.0
        return scale * (row.time_ms or 0.0) if row else 0.0

    def dearest(self, products: Iterable[Product]) -> tuple[str, ...]:
        """Their layers, the dearest first, each once."""
        ordered = sorted(products, key=lambda p: -self.time_ms(p))
        return tuple(dict.fromkeys(p.layer for p in ordered))

    def saving(self, mend: Callable[[View], Files | None], flush: bool = False) -> Saving | None:
        """What a mended graph wins in turns with the shipped one.

        mend: makes its files. None where it makes none, the engine does not run here or refuses
        the mended graph, or the budget is spent.
        """
        if self.clock is None or self.view is None:
            return None
        try:
            files = mend(self.view)
            if files is None:
                return None
            shipped = self.trial("shipped", self.view.files)
            return self.clock.saving(shipped, self.trial("mended", files, flush))
        except EdgecvError:
            return None

    def trial(self, name: str, files: Files, flush: bool = False) -> Trial:
        """A graph of this bundle's engine, fed what the bundle is fed."""
        return Trial(name, self.engine, files, self.feeds, self.threads, flush)
