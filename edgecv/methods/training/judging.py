"""What a network in PyTorch is right on, and the truths that it is taught by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import StageError

if TYPE_CHECKING:
    import torch

    from edgecv.context import Context
    from edgecv.data.images import Images
    from edgecv.tasks.base import Task


def judged(module: torch.nn.Module, images: Images, context: Context, batch: int = 256) -> float:
    """The task's metric of the torch network, 0..1; of a classifier top-1, the share of images
    whose best class is the label."""
    import torch

    if not context.classifies or images.truth is not None:
        from edgecv.bundling.task_score import judge_module

        return judge_module(module, images, context)
    module.eval()
    right = 0
    with torch.inference_mode():
        for i in range(0, len(images.labels), batch):
            x = torch.from_numpy(context.preprocess.normalise(images.pixels[i : i + batch]))
            best = module(x.contiguous(memory_format=torch.channels_last)).argmax(1).numpy()
            right += int((best == images.labels[i : i + batch]).sum())
    return right / len(images.labels)


def task_of(module: torch.nn.Module, images: Images, context: Context) -> Task | None:
    """How what is true of images is learned; None where that is one class of several. Raises
    StageError: the data has other labels than the task learns from."""
    import torch

    from edgecv import tasks
    from edgecv.bundling import task_score

    name = context.task or tasks.NONE
    if tasks.of_classes(name) and images.truth is None:
        return None
    found = tasks.task(name) if name in tasks.names() else None
    if found is None or images.kind not in found.truths():
        kind = images.kind.lower() or "images without labels"
        able = " or ".join(n for n in tasks.names() if images.kind in tasks.task(n).truths())
        hint = f"say task: {able}" if found is None and able else "give data with its own labels"
        raise StageError(context.where, f"task {name} does not learn from {kind}", hint)
    pre = context.preprocess
    with torch.no_grad():
        said = module.eval()(torch.zeros(1, pre.channels, *pre.size))
    return task_score.task_of(name, said, pre.size, len(images.classes), context.decode)


def truths_of(images: Images, chosen: np.ndarray, context: Context) -> list[Any]:
    """What is true of those images, in pixels of the input."""
    from edgecv.data.annotations import Boxes, Maps, placed

    truth, pre = images.told, context.preprocess
    if not isinstance(truth, Boxes | Maps):  # it lies nowhere in the picture
        return [truth[int(i)] for i in chosen]
    sizes = (tuple(map(int, truth.sizes[i])) for i in chosen)
    return [
        placed(truth[int(i)], pre.placement(*size), pre.size)
        for i, size in zip(chosen, sizes, strict=True)
    ]
