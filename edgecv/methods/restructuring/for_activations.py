"""A network with cheaper activations: matched, its layers fitted again, distilled without labels.

The network comes as an .onnx file, or as a PyTorch one that is exported first, and goes on as an
.onnx file in the form in which users' files lie in the store. What it answers is compared with what
it answered, on images held back, after each of the three.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.bundling.inference import calibration_sample
from edgecv.context import Context
from edgecv.errors import UnsupportedError
from edgecv.graph import OWN, Graph
from edgecv.graph_files import SOURCE
from edgecv.methods.restructuring import Activation
from edgecv.methods.restructuring.activations import Answers, Place, chosen, places, replaced
from edgecv.methods.restructuring.harms import harms
from edgecv.methods.restructuring.matching import Match, folded, matched, matches
from edgecv.samples import calibration_data

log = logging.getLogger(__name__)

FEW = 4  # images on which each replacement is tried by itself


@dataclass(frozen=True)
class Choice:
    """The parameters of the step `restructure` that are read here."""

    into: Activation
    layers: tuple[str, ...] = ()
    share: float = 1.0
    passes: int = 20
    samples: int = 256


def cheaper(source: Any, choice: Choice, context: Context) -> None:
    """Write context.out/source.onnx. source: the Path of an .onnx file, or (Model, module)

    Raises UnsupportedError: several inputs, nothing to replace, an operator that torch cannot
    simulate; RecipeError: a layer that is not there; DataError: too few images.
    """
    import onnx

    from edgecv.methods.export.onnx import write_clean

    with tempfile.TemporaryDirectory(prefix="edgecv-activations-") as room:
        graph = _graph(source, context, Path(room))
        model = onnx.load_model(str(graph.path))
        images = _images(graph, choice.samples, context)
        found = places(model, choice.into)
        few = images[np.linspace(0, len(images) - 1, min(FEW, len(images))).astype(int)]
        meant = chosen(found, choice.layers, 1.0, {}, context.where)
        known = matches(model, meant, choice.into, images, context.seed)
        harm = harms(model, meant, choice.into, known, few) if choice.share < 1 else {}
        taken = chosen(meant, (), choice.share, harm, context.where)
        made, facts = _taught(model, taken, choice, known, images, context)
        facts = {**_said(found, taken, choice.into), **facts}
        clean = write_clean(made, Path(room) / "made", context.network)
        kept = clean.copied(context.out, SOURCE)
        kept.facts["restructured"] = facts
        kept.save_facts()
        own = source.parent / OWN if isinstance(source, Path) else None
        if own is not None and own.is_file():
            (context.out / OWN).write_bytes(own.read_bytes())
    log.warning("%s: %s", context.where, _sentence(facts))


def _graph(source: Any, context: Context, room: Path) -> Graph:
    from edgecv.methods.export.onnx import export_onnx, load_onnx

    if isinstance(source, Path):
        graph = load_onnx(source, room / "float")
    else:
        import torch

        from edgecv.methods.lowrank.structured import materialised

        pixels = context.preprocess
        example = torch.zeros(1, pixels.channels, *pixels.size)
        graph = export_onnx(materialised(source[1]).eval(), example, room / "float")
    if graph.precision != "fp32" or len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        what = "activations are replaced in float networks of one image alone"
        raise UnsupportedError(context.where, what, "leave the step out")
    return graph


def _images(graph: Graph, samples: int, context: Context) -> np.ndarray:
    """float32 (N, C, H, W)"""
    some = calibration_sample(context.images("train").samples, samples)
    return np.ascontiguousarray(calibration_data(some, graph.inputs, context.preprocess))


def _taught(
    model: Any,
    taken: Sequence[Place],
    choice: Choice,
    known: Mapping[str, Match],
    images: np.ndarray,
    context: Context,
) -> tuple[Any, dict[str, Any]]:
    """The network with those activations replaced, and how far off it was on the way."""
    from edgecv.methods.distillation.unlabelled import Plan, distilled, parted
    from edgecv.methods.restructuring.refitting import refitted

    images, few = parted(images, context.where)
    answers = Answers(model, few)
    plain = replaced(model, [place.tensor for place in taken], choice.into)
    made, aims = matched(model, taken, choice.into, known)
    facts: dict[str, Any] = {
        "error_replaced": answers.error(plain),
        "error_matched": answers.error(made),
    }
    fitted = refitted(model, made, images, context.seed, context.progress, aims)
    facts["error_fitted"] = answers.error(fitted)
    if facts["error_fitted"] < facts["error_matched"]:
        made = fitted
    if choice.passes:
        plan = Plan(choice.passes, seed=context.seed)
        made, outcome = distilled(model, made, images, few, plan, context.where, context.progress)
        facts["distilled"] = outcome.to_json()
    made = folded(made)
    facts["error"] = answers.error(made)
    return made, {k: round(v, 6) if isinstance(v, float) else v for k, v in facts.items()}


def _said(found: Sequence[Place], taken: Sequence[Place], into: str) -> dict[str, Any]:
    numbers = sum(place.elements for place in found)
    return {
        "into": into,
        "activations": len(found),
        "replaced": [place.tensor for place in taken],
        "share": round(sum(place.elements for place in taken) / max(numbers, 1), 4),
    }


def _sentence(facts: dict[str, Any]) -> str:
    return (
        f"{len(facts['replaced'])} of {facts['activations']} activations, "
        f"{100 * facts['share']:.0f}% of their numbers, are {facts['into']} now; the answers' "
        f"squared error is {100 * facts['error']:.3g}% of their own square, and "
        f"{100 * facts['error_replaced']:.3g}% if they were only replaced"
    )
