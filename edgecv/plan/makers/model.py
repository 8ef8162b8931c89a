"""The network as it comes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecv import tasks
from edgecv.behaviour import MIXES
from edgecv.data.images import Images
from edgecv.errors import ModelError
from edgecv.models import layer_selection
from edgecv.models.model_source import TORCH
from edgecv.plan.makers.graph_file import from_graph, from_torch
from edgecv.plan.makers.work import Work
from edgecv.plan.recipe import Recipe
from edgecv.runtime.preprocess import Preprocess

log = logging.getLogger(__name__)

RANDOM = "random"  # the fact: which weights another build has otherwise


def make(work: Work) -> None:
    """The network as it comes: built with the seed, or copied from where the user has it."""
    source = work.node.facts["model"]
    if source.kind in TORCH:
        from_torch(work, source)
        return
    if source.is_graph:
        from_graph(work, source)
        return
    import torch

    from edgecv.examples import TAKES, examples
    from edgecv.models.model import Model, check_finite, check_outputs

    preprocess, images = work.preprocess(), Images.load(work.images["train"])
    labels = work.expansion.recipe.labels or images.classes
    classes = len(labels) or None
    torch.set_num_threads(work.expansion.recipe.threads)
    torch.manual_seed(work.expansion.recipe.seed)
    if source.kind == "folder":
        model, module = Model.load(Path(source.name))
    else:
        builder, args = source.name, dict(source.args)
        if source.kind == "zoo":
            builder = f"zoo:{source.name}"
            args = {"channels": preprocess.channels, **args}
            wide = tasks.width(work.expansion.recipe.task, classes) if classes else None
            args = {"classes": wide, **args} if wide else args
        model = Model(builder, args)
        module = model.build(file=source.weights)
    check_finite(module, model.builder)
    trains = any(step.stage.produces == "model" for step in work.expansion.recipe.steps)
    about = {}
    if source.kind == "module" and source.weights is None and not trains:
        with torch.random.fork_rng(devices=[]):  # what is drawn later is as if it were not built
            torch.manual_seed(work.expansion.recipe.seed + 1)
            drawn = _drawn(module, model.build())
        if drawn:
            about[RANDOM] = drawn
    if taken := source.pins.to_json():  # of several inputs, or of a batch
        if trains:
            what = "says what its inputs are: networks of one image are trained and changed"
            raise ModelError(model.builder, what, "only quantize and export it")
        model = model.with_facts(TAKES, taken)
    example = tuple(examples(module, taken, preprocess, model.builder).values())
    check_outputs(
        module, model.builder, example, classes, trains, _reads(work, preprocess, classes)
    )
    mixes = ""
    if len(example) == 1 and example[0].ndim == 4:
        mixes = _check_behaviour(work.expansion.recipe, model.builder, module, preprocess)
    if mixes:
        about["mixes"] = mixes
    if about:
        model = model.with_facts("model", about)
    check_layer_names(work.expansion.recipe, module)
    for name in _timed_in_float(work.expansion.recipe):
        log.warning("%s: is timed in fp32 and ships in int8: `precision: int8` times that", name)
    described = Model(
        model.builder, model.args, model.edits, preprocess.to_json(), labels or None, model.facts
    )
    described.save(work.out, module)


def _drawn(module: Any, again: Any) -> str:
    """Which weights another build has otherwise; "" where the builder loads them."""
    import torch

    other = again.state_dict()
    found = [
        name
        for name, value in module.state_dict().items()
        if name in other and value.is_floating_point() and not torch.equal(value, other[name])
    ]
    return "" if not found else found[0] + (f" and {len(found) - 1} more" if found[1:] else "")


def _reads(work: Work, preprocess: Preprocess, classes: int | None) -> Any:
    """How another task than classification reads what the network returns; None of a classifier."""
    from edgecv.bundling.task_score import task_of

    recipe = work.expansion.recipe
    if tasks.of_classes(recipe.task):
        return None
    return lambda result: task_of(str(recipe.task), result, preprocess.size, classes, recipe.decode)


def _check_behaviour(recipe: Recipe, where: str, module: Any, preprocess: Preprocess) -> str:
    """How a network mixes its batch; "" where it does not, or takes no batch.

    Raises ModelError for one that is random, or that mixes its batch and is to be trained or judged
    in batches; where it is exported alone it answers as devices ask, and that is said.
    """
    from edgecv.behaviour import check_random, mixing

    shape = (preprocess.channels, *preprocess.size)
    check_random(module, where, shape)
    if not (why := mixing(module, shape)):
        return ""
    if any(step.stage.produces == "model" for step in recipe.steps):
        raise ModelError(
            where,
            why,
            "use a BatchNorm with running statistics, in eval mode, or `export` it alone",
        )
    log.warning("%s: %s; what is exported takes one picture at a time", where, why)
    return why if MIXES in why else ""


def check_layer_names(recipe: Recipe, module: Any) -> None:
    """Raises RecipeError now for a name that a step would look for in vain, hours later."""
    every, same = layer_selection.layers(module), {"model"}
    for step in recipe.steps:
        if step.source in same:
            layer_selection.named(step.stage.layer_names(), every, step.name)
            if not step.stage.renames and step.student is None:
                same.add(step.name)


def _timed_in_float(recipe: Recipe) -> Iterator[str]:
    """Steps that measure a float network of which int8 alone ships: other widths are fast there."""
    for step in recipe.steps:
        readers = [s.stage for s in recipe.steps if s.source == step.name]
        integers = [getattr(s, "precision", "") == "int8" and s.per_target for s in readers]
        floats = getattr(step.stage, "precision", "") == "fp32" and not step.stage.ship
        if floats and integers and all(integers) and step.stage.measures(recipe.targets):
            yield step.name
