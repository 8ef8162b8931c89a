"""What criteria look at: a fixed sample of training images, and what consumers read of a group.

    gate view: y = f(..., g_c x_c, ...), g_c = 1;  removing channel c is g_c = 0 at every consumer

A channel that no consumer reads any more is gone, whatever stands between producer and consumer
(batch norm, activation, depthwise convolution): criteria that look at activations hang there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.behaviour import as_trained
from edgecv.context import Context
from edgecv.data.images import Images
from edgecv.methods.pruning.groups import Group, Member
from edgecv.methods.training.judging import task_of, truths_of
from edgecv.tasks.base import Task

BATCH = 128
PIXELS = BATCH * 64 * 64  # of a batch of a task's images: they are large, and slopes keep them all


@dataclass(frozen=True)
class Batches(Sequence[tuple[Tensor, Any]]):
    """(images, what is true of them) from the training images, each made when it is asked for.

    parts: the numbers of the images of each batch
    task:  None: labels are classes (N,); else what is true of each image, in pixels of the input
    """

    parts: tuple[np.ndarray, ...]
    images: Images
    context: Context
    task: Task | None

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: Any) -> Any:
        part = self.parts[index]
        x = torch.from_numpy(self.context.preprocess.normalise(self.images.pixels[part]))
        if self.task is not None:
            return x, truths_of(self.images, part, self.context)
        return x, torch.from_numpy(self.images.labels[part])


@dataclass(frozen=True)
class Probe:
    """module in eval mode; batches of the training images.

    task: how boxes or maps are learned; None where labels are classes
    """

    module: nn.Module
    context: Context
    batches: Batches

    @property
    def images(self) -> int:
        return sum(map(len, self.batches.parts))

    @property
    def task(self) -> Task | None:
        return self.batches.task


def probe(module: nn.Module, context: Context, samples: int) -> Probe:
    """A fixed sample of the training images, the same for every criterion."""
    torch.set_num_threads(context.threads)
    images = context.images("train")
    task = task_of(module, images, context)
    rng = np.random.default_rng(context.seed)
    count = min(samples, len(images.labels))
    chosen = np.sort(rng.choice(len(images.labels), count, replace=False))
    height, width = context.preprocess.size
    batch = BATCH if task is None else max(2, min(BATCH, PIXELS // (height * width)))
    parts = np.array_split(chosen, max(1, count // batch))
    return Probe(module.eval(), context, Batches(tuple(parts), images, context, task))


Seen = Callable[[int, Member, Tensor], Any]


@contextmanager
def reading(groups: Sequence[Group], seen: Seen) -> Iterator[None]:
    """Call seen(group index, consumer, its input) before every consumer runs.

    What `seen` returns takes the input's place, unless it is None.
    """
    hooks = []
    for index, group in enumerate(groups):
        for member in group.consumers():

            def hook(
                _: nn.Module, inputs: tuple[Tensor, ...], i: int = index, m: Member = member
            ) -> Any:
                new = seen(i, m, inputs[0])
                return None if new is None else (new, *inputs[1:])

            hooks.append(member.layer.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def by_channel(group: Group, member: Member, values: Tensor) -> Tensor:
    """Of values shaped as a consumer's input, the sum by image and channel: (images, width)."""
    if isinstance(member.layer, nn.Conv2d):
        flat = values.flatten(2).sum(2)
    else:
        flat = values.reshape(len(values), -1, values.shape[-1]).sum(1)
    return torch.zeros(len(flat), group.width).index_add_(1, member.of, flat[:, member.at])


def loss(probe: Probe, x: Tensor, y: Any) -> Tensor:
    """Cross-entropy, or the task's loss, summed over a batch, with layers in eval mode: batch-norm
    statistics stay as they are."""
    if probe.task is None:
        return nn.functional.cross_entropy(probe.module(x), y, reduction="sum")
    return probe.task.loss(trained_form(probe.module, x), y) * len(x)


def trained_form(module: nn.Module, x: Tensor) -> Any:
    """What a network of a task returns in the form that its loss takes."""
    with as_trained(module):
        return module(x)
