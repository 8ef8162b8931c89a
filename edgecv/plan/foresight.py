"""What `plan` can tell of a network before images are read: whether it has the data's classes.

`run` finds the same at its step "model", before anything is trained.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv import data as datasets
from edgecv import tasks
from edgecv.data.images import Images
from edgecv.plan.graph import Expansion
from edgecv.plan.recipe import Recipe
from edgecv.runtime.preprocess import Preprocess
from edgecv.stages.prune import Prune

if TYPE_CHECKING:
    from torch import nn


def check_classes(recipe: Recipe) -> None:
    """Build the network that is to be trained on folders of images, and run one image of zeros.

    Raises ModelError: another class count than the data's folders, or what `check_outputs` refuses.
    """
    source = recipe.model
    found = datasets.parse(Expansion(recipe, compare=False).source("train"))
    trains = any(step.stage.produces == "model" for step in recipe.steps)
    simple = found.kind == "imagefolder" and source.kind == "module" and not source.pins.to_json()
    if not (trains and simple and tasks.of_classes(recipe.task)):
        return  # the zoo's are built with the classes of the data
    import torch

    from edgecv.models.model import Model, check_outputs

    torch.manual_seed(recipe.seed)
    module = Model(source.name, dict(source.args)).build(file=source.weights)
    image = torch.zeros(1, recipe.data.channels or 3, *recipe.data.height_width)
    pixels = Preprocess(recipe.data.height_width, recipe.data.channels or 3, (0.0,), (255.0,))
    check_pruning(recipe, module, pixels)
    check_outputs(module, source.name, [image], len(found.items("train").classes or ()) or None)


def check_pruning(recipe: Recipe, module: nn.Module, preprocess: Preprocess) -> None:
    """Raises StageError: a ratio of every layer's channels that removes none of the network as it
    comes, which training does not change."""
    import torch

    from edgecv.context import Context
    from edgecv.methods.pruning import groups
    from edgecv.methods.pruning.reach import Reach
    from edgecv.methods.pruning.rounds import by_ratio
    from edgecv.methods.pruning.shapes import example_of

    same = {"model"}
    for step in recipe.steps:
        stage = step.stage
        if stage.word == "train" and step.source in same:
            same.add(step.name)
        if not isinstance(stage, Prune) or step.source not in same or stage.scope != "layer":
            continue
        what, amount = stage.asked
        if what != "ratio":
            continue
        own = copy.deepcopy(module)
        about = Context(Path(), recipe.seed, preprocess, _none, where=step.name)
        found, stay = groups.survey(own, example_of(about), step.name, stage.keep)
        align = stage.align or recipe.alignment
        share = (1 - amount) ** (1 / stage.rounds)
        scores = [torch.zeros(group.width) for group in found]
        if by_ratio(scores, share, "layer", align) == tuple(g.width for g in found):
            raise Reach.of(own, found, stay, about).nothing(step.name, amount, align)


def _none(split: str) -> Images:
    raise AssertionError(f"no images of {split} are read")
