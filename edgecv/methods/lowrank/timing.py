"""Layers of a network as measuring knows them, and the targets that can measure them.

MACs do not tell what factors win: three small layers are three kernels to start, and kernels like
some widths. How they are measured: `edgecv.measuring.row_times`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgecv.backends import facts, run_module
from edgecv.benchmark.machine import cpu_features
from edgecv.context import Context
from edgecv.measuring.jobs import RowsJob, Times
from edgecv.measuring.product import Product
from edgecv.methods.lowrank.form import Shape
from edgecv.target import Target

Options = Sequence[Sequence[Shape]]  # a layer's candidates, the first is the layer as it is


def measurable(targets: Sequence[Target]) -> tuple[list[Target], dict[str, str]]:
    """Targets whose engine runs here as it runs on the device; and why the others cannot tell."""
    usable, reasons = [], {}
    for target in targets:
        reason = target.not_here(cpu_features())
        if not reason and not facts(target.backend).alone:
            reason = f"layers are not measured alone on {target.backend}"
        if not reason:
            reason = run_module(target.backend).probe().reason
        if reason:
            reasons[target.name] = reason
        else:
            usable.append(target)
    return usable, reasons


def times(
    layers: Mapping[str, Options], target: Target, integer: bool, budget_s: float, seed: int,
    context: Context,
) -> dict[str, Times]:  # fmt: skip
    """Measure every layer's options on the target, in a process of its own."""
    rows = {
        name: tuple(tuple(product(name, shape) for shape in parts) for parts in options)
        for name, options in layers.items()
    }
    job = RowsJob(target.backend, target.threads, integer, seed, budget_s, rows)
    return context.measuring.rows(job, f"layers on {target.name}", context.progress)


def product(name: str, shape: Shape) -> Product:
    """The layer as `edgecv why` describes one."""
    pads = [_pads(shape, axis) for axis in (0, 1)]
    dense = shape.kind == "dense"
    one = (1, 1)
    return Product(
        name, shape.kind, shape.channels, one if dense else shape.size,
        one if dense else shape.result, shape.kernel, shape.stride, shape.dilation,
        (pads[0][0], pads[1][0], pads[0][1], pads[1][1]), shape.groups,
    )  # fmt: skip


def _pads(shape: Shape, axis: int) -> tuple[int, int]:
    """Pixels before and after along an axis, as torch pads."""
    if shape.padding == "valid":
        return 0, 0
    if isinstance(shape.padding, str):
        total = shape.dilation[axis] * (shape.kernel[axis] - 1)
        return total // 2, total - total // 2
    return shape.padding[axis], shape.padding[axis]
