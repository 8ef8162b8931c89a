"""Where a search looks for layers to keep float: what each loses, and each rounded tensor."""

from __future__ import annotations

from collections.abc import Callable

from edgecv.backends import facts
from edgecv.bundling.inference import held_back
from edgecv.context import Context
from edgecv.graph import Graph
from edgecv.methods.quantize.mixed import Problem
from edgecv.methods.quantize.options import Sensitivity
from edgecv.methods.quantize.quantizer import Quantizer
from edgecv.methods.quantize.roads import road
from edgecv.samples import calibration_data

SENSITIVITY_IMAGES, TASK_IMAGES = 48, 8

Sensitivities = Callable[[Graph], Problem]


def loss_by_layer(
    source: Graph, context: Context, samples: int, how: Sensitivity, quantizer: Quantizer,
    asked: bool,
) -> Sensitivities | None:  # fmt: skip
    """None where the noise is not known by layer (TFLite), but where the task is asked, and noise
    is what it loses."""
    assert context.target is not None
    own, tell = road(source.format), context.progress
    known = getattr(own, "sensitivities", None)

    def looking(done: int, of: int) -> None:
        tell(done, of, "where it loses")

    if known is None:
        apart = asked and getattr(own, "APART", True)
        floats = apart and facts(context.target.backend).floats
        return (lambda graph: quantizer.losses(graph, looking)) if floats else None

    def measure(graph: Graph) -> Problem:
        few = TASK_IMAGES if asked and how == "noise" else SENSITIVITY_IMAGES
        images = held_back(context.images("train").samples, samples, few)
        data = calibration_data(images, source.inputs, context.preprocess)
        task = quantizer.asked if asked else None
        found: Problem = known(source, graph, data, how, task, looking)
        return found

    return measure
