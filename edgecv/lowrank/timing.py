"""What a layer takes on a target's own engine, beside the layers that could stand for it.

    r = median over interleaved rounds of  (t_factors − t_empty) / (t_whole − t_empty)

Each is a network of its own of noise (`edgecv.measuring.single_layer_graphs`), and all of one layer
take turns on one clock. t_empty is a network that computes next to nothing: what a call costs is
paid once by a whole network, and not by each of its layers. MACs do not tell r: three small layers
are three kernels to start, and kernels like some widths.

Run by `edgecv.child`: `python -m edgecv.lowrank.timing JOB ANSWER`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecv import child
from edgecv.backends import run_module
from edgecv.bench.calibration import ONE_THREAD
from edgecv.bench.machine import machine
from edgecv.bench.statistics import interval
from edgecv.child import serve
from edgecv.errors import EdgecvError
from edgecv.lowrank.form import Shape
from edgecv.measuring.clock import Clock, Trial
from edgecv.measuring.product import Product
from edgecv.measuring.single_layer_graphs import row
from edgecv.target import Target

ENGINES = ("onnxruntime", "openvino", "tflite")  # those that a layer's twin can be made for
EMPTY = asdict(Shape("dense", (1, 1)))
LEAST = 0.02  # of a call, that a layer takes at the least: two clocks' difference may be below 0

Options = Sequence[Sequence[Shape]]  # a layer's candidates, the first is the layer as it is


@dataclass(frozen=True)
class Times:
    """Of one layer on one target.

    ms:     of the whole layer
    ratios: of every option to it; the first is 1. Empty where it could not be measured
    highs:  the upper ends of the ratios' 95% intervals
    """

    ms: float = 0.0
    ratios: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    refusal: str = ""


def measurable(targets: Sequence[Target]) -> tuple[list[Target], dict[str, str]]:
    """Targets whose engine runs here as it runs on the device; and why the others cannot tell."""
    usable, reasons = [], {}
    for target in targets:
        reason = target.not_here(machine()["features"])
        if not reason and target.backend not in ENGINES:
            reason = f"layers are not measured alone on {target.backend}"
        if not reason:
            reason = run_module(target.backend).probe().reason
        if reason:
            reasons[target.name] = reason
        else:
            usable.append(target)
    return usable, reasons


def times(
    layers: Mapping[str, Options], target: Target, integer: bool, budget_s: float, seed: int = 0,
    progress: Callable[..., None] | None = None,
) -> dict[str, Times]:  # fmt: skip
    """Measure every layer's options on the target, in a process of its own."""
    job = {
        "engine": target.backend, "threads": target.threads, "integer": integer, "seed": seed,
        "budget_s": budget_s,
        "layers": {name: [[asdict(s) for s in parts] for parts in options]
                   for name, options in layers.items()},
    }  # fmt: skip
    answer = child.call("edgecv.lowrank.timing", job, f"layers on {target.name}",
                        progress, ONE_THREAD)  # fmt: skip
    return {
        name: Times(found["ms"], tuple(found["ratios"]), tuple(found["highs"]), found["refusal"])
        for name, found in answer["layers"].items()
    }


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


def work(job: dict[str, Any]) -> dict[str, Any]:
    """The child's side. Graphs are made first; each layer may take an even share of the budget."""
    made, found = {}, {}
    for name, options in job["layers"].items():
        try:
            made[name] = [_trial(name, parts, job) for parts in [[EMPTY], *options]]
        except EdgecvError as e:
            found[name] = asdict(Times(refusal=e.what))
    clock = Clock(job["budget_s"], job["seed"])
    for i, (name, trials) in enumerate(made.items()):
        child.report(i, len(made), name)
        found[name] = asdict(_measured(trials, clock, 1.0 / (len(made) - i)))
    return {"layers": found}


def _trial(name: str, parts: Sequence[dict[str, Any]], job: dict[str, Any]) -> Trial:
    products = [product(name, _shape(part)) for part in parts]
    return row(products, job["engine"], job["integer"], job["threads"])


def _measured(trials: list[Trial], clock: Clock, share: float) -> Times:
    try:
        rounds = clock.rounds(trials, share)
    except EdgecvError as e:
        return Times(refusal=e.what)
    if rounds is None:
        return Times(refusal="the budget for measuring was spent")
    own = np.maximum(rounds.ms[:, 1:] - rounds.ms[:, :1], LEAST * rounds.ms[:, 1:])
    logs = np.log(own)
    found = [interval(logs[:, i] - logs[:, 0], sittings=rounds.sittings)
             for i in range(1, own.shape[1])]  # fmt: skip
    return Times(
        float(np.median(own[:, 0])),
        (1.0, *(float(f.ratio) for f in found)),
        (1.0, *(float(f.high) for f in found)),
    )


def _shape(data: dict[str, Any]) -> Shape:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Shape(**values)


if __name__ == "__main__":
    serve(work)
