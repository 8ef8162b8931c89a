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

from edgecv.pruning.groups import Group, Member
from edgecv.stages.base import Context

BATCH = 128


@dataclass(frozen=True)
class Probe:
    """module in eval mode; batches of (images, labels) from the training images."""

    module: nn.Module
    context: Context
    batches: tuple[tuple[Tensor, Tensor], ...]

    @property
    def images(self) -> int:
        return sum(len(y) for _, y in self.batches)


def probe(module: nn.Module, context: Context, samples: int) -> Probe:
    """A fixed sample of the training images, the same for every criterion."""
    torch.set_num_threads(context.threads)
    images = context.images("train")
    rng = np.random.default_rng(context.seed)
    count = min(samples, len(images.labels))
    chosen = np.sort(rng.choice(len(images.labels), count, replace=False))
    parts = np.array_split(chosen, max(1, count // BATCH))
    return Probe(
        module.eval(),
        context,
        tuple(
            (
                torch.from_numpy(context.preprocess.normalise(images.pixels[part])),
                torch.from_numpy(images.labels[part]),
            )
            for part in parts
        ),
    )


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


def loss(probe: Probe, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy summed over a batch, in eval mode: batch-norm statistics stay as they are."""
    return nn.functional.cross_entropy(probe.module(x), y, reduction="sum")
