"""Whole pruned networks on the engine, beside the dense one, in the same interleaved run.

    ratio = median over rounds of (pruned / dense)

Made into bundles and measured as what ships is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgecv.context import Context
from edgecv.errors import BudgetError, MissingExtraError
from edgecv.measuring.jobs import TRIAL_PLAN, MeasureJob, PackJob
from edgecv.methods.quantize.options import Options
from edgecv.target import Target

QUICK, SAMPLES = Options(calibration="minmax", rounding="nearest", bias_correction=False), 32


@dataclass(frozen=True)
class Measured:
    """Of one network. ratio: to the dense one; ms: of both, medians; interval of the ratio."""

    ratio: float
    ms: float
    dense_ms: float
    interval: tuple[float, float]


class Whole:
    """Measures networks against the dense one. room: a folder for what is made on the way.

    integer: both in int8, quantized in the quickest way: answers are not looked at
    """

    def __init__(
        self, dense: nn.Module, context: Context, target: Target, room: Path, integer: bool = False
    ) -> None:
        self.context, self.target, self.room, self.integer = context, target, room, integer
        self._count = 0
        self._dense = self._packed(dense)

    def measure(self, module: nn.Module) -> Measured:
        """Raises EdgecvError where the engine refuses the network."""
        plan = {**TRIAL_PLAN, "threads": self.target.threads, "seed": self.context.seed}
        job = MeasureJob((self._dense, self._packed(module)), plan, starts=False)
        found = self.context.measuring.measure(job, self.context.where)
        dense, own = found["bundles"]
        low, high = own["latency_ratio_interval"]
        return Measured(
            own["latency_ratio"], own["latency_ms"]["p50"], dense["latency_ms"]["p50"], (low, high)
        )

    def _packed(self, module: nn.Module) -> Path:
        from edgecv.graph import Graph
        from edgecv.methods.export.network import export_network
        from edgecv.methods.quantize.quantizer import Quantizer
        from edgecv.models.model import Model

        self._count += 1
        kinds = ("float", "int8", "bundle")
        graph, quantized, out = (self.room / f"{kind}-{self._count}" for kind in kinds)
        for folder in (graph, quantized, out):
            folder.mkdir()
        context = replace(self.context, out=graph, target=self.target)
        export_network((Model("pruned"), module), context)
        if self.integer:
            source = Graph.load(graph)
            Quantizer(source, context, SAMPLES, judged=1).make(QUICK, quantized, tell=False)
            graph = quantized
        job = PackJob.of(context, graph, f"pruned-{self._count}", out, test=False)
        facts = context.measuring.pack(job, context.where)
        if not facts.executed:
            raise MissingExtraError(context.where, facts.reason, "prune by macs or ratio")
        return out / facts.bundle


def unattainable(where: str, asked: str, nearest: str) -> BudgetError:
    """The error for a request below what the smallest allowed network reaches."""
    hint = "ask for that, set `align` lower, or start from a shallower network"
    return BudgetError(where, f"{asked} is not reached; the nearest: {nearest}", hint)
