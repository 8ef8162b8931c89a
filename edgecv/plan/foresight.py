"""What `plan` can tell of a network before images are read: whether it has the data's classes.

`run` finds the same at its step "model", before anything is trained.
"""

from __future__ import annotations

from edgecv import data as datasets
from edgecv import tasks
from edgecv.plan.graph import Expansion
from edgecv.plan.recipe import Recipe


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
    check_outputs(module, source.name, [image], len(found.items("train").classes or ()) or None)
