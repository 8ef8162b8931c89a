"""A bundle: compiled, proven, packed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecv.data.images import Images
from edgecv.files import digest
from edgecv.graph import Graph
from edgecv.measuring import facts
from edgecv.measuring.jobs import PackJob
from edgecv.measuring.run import Measuring
from edgecv.plan.makers.work import Work
from edgecv.plan.node import Node

BATCH = 32  # pictures that a network which mixes them is shown together

log = logging.getLogger(__name__)


def make(work: Work) -> None:
    node, test = work.node, Images.load(work.images["test"])
    # Where nothing is compared, images without labels only calibrate.
    judged = bool(test.classes) or work.expansion.compare
    job = PackJob.of(
        work.context(), work.inputs["graph"], f"{node.step}.{work.on.name}", work.out, judged
    )
    job = replace(
        job,
        floats=work.inputs.get("float"),
        judged=work.images["test"],
        trained=_trained(work),
        test_digest=images_digest(work.expansion.nodes["data:test"]),
        made_from=work.expansion.nodes[node.inputs["graph"]].digest,
    )
    found = Measuring().pack(job, node.id.removeprefix("bundle:"))
    if work.expansion.compare:  # else the command itself tells
        told = Graph.load(work.inputs["graph"]).facts.get("warnings", [])  # when it was made
        for note in found.warnings:
            if note not in told:
                log.warning("%s on %s: %s", node.step, work.on.name, note)
    facts.write(work.out, found)


def _trained(work: Work) -> float | None:
    """Top-1 in PyTorch of the network that a float bundle holds, on data.test: as the step that
    trained it found, or of one that mixes its batch, in batches. None where it is not known."""
    folder = work.inputs.get("network")
    if folder is None or not (folder / "model.json").is_file():
        return None
    from edgecv.models.model import Model

    model = Model.read(folder)
    if "mixes" in model.facts.get("model", {}):
        return _in_batches(work, folder)
    found = model.facts.get(work.node.inputs["network"], {}).get(work.context().metric)
    return float(found) if isinstance(found, int | float) else None


def _in_batches(work: Work, folder: Path) -> float | None:
    """Top-1 of a network on data.test as its user would measure it: shuffled, many at a time."""
    from edgecv.methods.training.judging import judged
    from edgecv.models.model import Model

    test = Images.load(work.images["test"])
    if not test.classes or test.truth is not None:  # top-1 is of classes alone
        return None
    order = np.random.default_rng(work.expansion.recipe.seed).permutation(len(test))
    mixed = replace(test, pixels=test.pixels[order], labels=test.labels[order])
    return judged(Model.load(folder)[1], mixed, work.context(), BATCH)


def images_digest(node: Node) -> str:
    """Which images a data node holds, as pixels: equal for two bundles tested on the same ones."""
    pixels = ("content", "size", "channels", "crop_pct", "interpolation",
              "resize", "pad_value", "pad_at")  # fmt: skip
    return digest({key: node.key[key] for key in pixels if key in node.key})
