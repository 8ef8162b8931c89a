"""Milliseconds of each layer by its widths, measured on the engine and kept.

    t(i, o) ≈ t(i, O) t(I, o) / t(I, O)        I, O: the layer's full widths

Every layer is measured along its two axes and not over their product: kernels' times are about
products of a function of each. What that leaves out, and additions, poolings and copies between
layers, is corrected by measuring whole networks (`fit.py`). A narrower layer never counts as slower
than a wider one: that would be noise.

Kept as JSON for each engine, thread count and processor, by geometry: two layers of one shape, in
any network, are measured once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgecv.context import Context
from edgecv.files import write_atomic
from edgecv.measuring.jobs import LayersJob
from edgecv.measuring.product import Product, widened
from edgecv.methods.pruning.shapes import Shapes, Widths
from edgecv.target import Target

Lines = Sequence[Sequence[Product]]
Measure = Callable[[Lines], list[list[float]]]


class Table:
    """Milliseconds by geometry. measure: of lines of layers; path: where they are kept, or None."""

    def __init__(self, measure: Measure, path: Path | None = None) -> None:
        self.measure, self.path = measure, path
        self.known: dict[str, float] = _read(path)

    def fill(self, shapes: Shapes, options: Sequence[Sequence[int]]) -> None:
        """Measure what is not known of any layer at those widths of the groups."""
        lines: dict[tuple[str, ...], list[Product]] = {}
        for layer in shapes.layers:
            for line in _axes(layer.product, *_channels(shapes, layer, options)):
                if not all(_key(p) in self.known for p in line):
                    lines.setdefault(tuple(map(_key, line)), line)
        if not lines:
            return
        for line, times in zip(lines.values(), self.measure(list(lines.values())), strict=True):
            self.known |= {_key(p): ms for p, ms in zip(line, times, strict=True)}
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(self.known, indent=0, sort_keys=True))

    def ms(self, full: Product, now: Product) -> float:
        """Of a layer at other widths; both axes have to be known."""
        most = self.known[_key(full)]
        if now.channels == full.channels:
            return most
        by_out = self._least(full, 1, now.channels[1])
        if full.groups > 1:
            return by_out
        return by_out * self._least(full, 0, now.channels[0]) / most

    def total_ms(self, shapes: Shapes) -> Callable[[Widths], float]:
        """The sum over layers, of widths."""
        return shapes.summed(lambda layer, now: self.ms(layer.product, now))

    def _least(self, full: Product, axis: int, width: int) -> float:
        """Of the least wide layer that is at least so wide and no slower."""
        wide = range(width, full.channels[axis] + 1)
        keys = (_key(_along(full, axis, w)) for w in wide)
        return min(self.known[k] for k in keys if k in self.known)

    def to_json(self, shapes: Shapes) -> list[dict[str, Any]]:
        """What was measured of each layer: its full widths, and milliseconds along each axis."""
        return [
            {
                "layer": layer.product.layer,
                "channels": list(layer.product.channels),
                "ms": round(self.known[_key(layer.product)], 6),
            }
            for layer in shapes.layers
        ]


def on_target(target: Target, context: Context, store: Path | None, integer: bool = False) -> Table:
    """A table that is measured on a target's engine here.

    store: the run's own, or None; integer: layers in int8 on the target's grid, not in float
    """
    measuring, engine, threads = context.measuring, target.backend, target.threads

    def measure(lines: Lines) -> list[list[float]]:
        products = tuple(tuple(line) for line in lines)
        job = LayersJob(engine, threads, integer, context.seed, products)
        return measuring.layers(job, context.where)

    key = measuring.layers_digest(engine, threads, integer)
    return Table(measure, store / "latencies" / f"{key}.json" if store else None)


def _channels(
    shapes: Shapes, layer: Any, options: Sequence[Sequence[int]]
) -> tuple[list[int], list[int]]:
    """The input and the output channels that a layer may have."""
    found: list[set[int]] = [set(), set()]
    touched = {g for g, _ in (*layer.reads, *layer.writes)}
    for group in touched:
        for width in options[group]:
            widths = tuple(width if g == group else w for g, w in enumerate(shapes.full))
            now = layer.at(widths, shapes.full).channels
            for axis in (0, 1):
                found[axis].add(now[axis])
    return sorted(found[0]), sorted(found[1])


def _axes(full: Product, ins: Sequence[int], outs: Sequence[int]) -> list[list[Product]]:
    """Lines of layers to measure, each with the full one first."""
    lines = []
    for axis, widths in ((0, ins), (1, outs)):
        if full.groups > 1 and axis == 0:
            continue
        others = [w for w in widths if w != full.channels[axis]]
        if others:
            lines.append([full, *(_along(full, axis, w) for w in others)])
    return lines or [[full]]


def _along(full: Product, axis: int, width: int) -> Product:
    """The layer with another width on one axis; a depthwise layer has only one."""
    channels = (width, full.channels[1]) if axis == 0 else (full.channels[0], width)
    depthwise = full.groups > 1 and full.groups == full.channels[0]
    return widened(full, (width, width) if depthwise else channels)


def _key(product: Product) -> str:
    """What makes two layers take the same time."""
    data: Mapping[str, Any] = asdict(replace(product, layer="", unfused=""))
    return ":".join(str(v).replace(" ", "") for v in data.values() if v not in ("", "float32"))


def _read(path: Path | None) -> dict[str, float]:
    try:
        data = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return {str(k): float(v) for k, v in data.items()} if isinstance(data, dict) else {}
