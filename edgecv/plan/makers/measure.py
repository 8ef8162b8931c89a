"""Latencies of a target's bundles."""

from __future__ import annotations

from typing import Any

from edgecv.benchmark.machine import cpu_features
from edgecv.measuring import facts
from edgecv.measuring.jobs import MeasureJob, ProfileJob
from edgecv.measuring.run import Measuring
from edgecv.plan.makers.work import Work


def make(work: Work) -> None:
    """Latencies of the bundles that run here, against the first (the fp32 reference).

    Where this machine is not the target's and its profile names a device, they are measured there.
    """
    from edgecv.measuring.away import Away

    recipe, target = work.expansion.recipe, work.on
    runnable = []
    for role in sorted(work.inputs, key=int):
        found = facts.read(work.inputs[role])
        if found.executed and found.compiled:
            runnable.append(work.inputs[role] / found.bundle)
    answer: dict[str, Any] = {"bundles": []}
    away = target.not_here(cpu_features())
    if runnable and (target.device or not away):
        measuring = Away(target, 3600.0 + recipe.bench.budget_s) if away else Measuring()
        plan = {"threads": target.threads, "seed": recipe.seed, **recipe.bench.model_dump()}
        where, bundles = work.node.id, tuple(runnable)
        answer = measuring.measure(MeasureJob(bundles, plan), where, work.progress)
        profiled = ProfileJob(bundles, target.threads)
        profiles = measuring.profile(profiled, where, work.progress)
        for row, profile in zip(answer["bundles"], profiles, strict=True):
            row["layers"], row["no_times"] = profile["layers"], profile["reason"]
    facts.write(work.out, answer)
