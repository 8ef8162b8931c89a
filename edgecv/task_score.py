"""A network's answers judged by its task, as a device gives them: the engine's own outputs, decoded
by the code that the runtime runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv import tasks
from edgecv.backends import Session
from edgecv.data.images import Images
from edgecv.replay import parted
from edgecv.runtime.interface import Interface, own
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, batch_of
from edgecv.samples import Feeds
from edgecv.tasks.base import Score, Task

if TYPE_CHECKING:
    from torch import nn

    from edgecv.stages.base import Context


def judge(
    task: Task,
    session: Session,
    outputs: Sequence[TensorSpec],
    images: Images,
    preprocess: Preprocess,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(the metric as a manifest holds it, what two networks of the same images are compared by).

    outputs: as the graph calls and shapes them. images: with what is true of them
    """
    score = task.score(
        reads(task, session, outputs, images, preprocess), images.truth, images.classes
    )
    return metric_of(task, score), dict(score.parts)


def metric_of(task: Task, score: Score) -> dict[str, Any]:
    """As a manifest and results.json hold it."""
    return {
        "name": task.metric,
        "value": score.value,
        "samples": score.samples,
        "per_class": dict(score.per_class),
        "more": dict(score.more),
    }


def reads(
    task: Task,
    session: Session,
    outputs: Sequence[TensorSpec],
    images: Images,
    preprocess: Preprocess,
    asked: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """What the task reads of each image, in pixels of the picture as it was.

    asked: of it; None: as it is judged, {}: as it is deployed
    """
    interface = Interface((), own(session.outputs, outputs), task.name)
    assert images.truth is not None
    batch, asked = batch_of(session.inputs), task.judging() if asked is None else asked
    sizes = iter(images.truth.sizes.tolist())
    for feed in Feeds(images.samples, session.inputs, preprocess):
        found = interface.answer(dict(session.run(feed)))
        rows = {name: parted(values, batch) for name, values in found.items()}
        for i in range(batch):
            if (size := next(sizes, None)) is None:  # the last call of a batch repeats samples
                return
            one = {name: row[i if len(row) > 1 else 0] for name, row in rows.items()}
            one = {name: v[None] if batch > 1 else found[name] for name, v in one.items()}
            lies = preprocess.placement(*size)
            yield task.read(one, lies, tuple(size), **asked)


def judge_module(module: nn.Module, images: Images, context: Context) -> float:
    """The task's metric of a torch network, 0..1, one image a call as devices answer."""
    import torch

    from edgecv.outputs import outputs_of

    preprocess, truth = context.preprocess, images.truth
    assert truth is not None
    module.eval()
    found: list[Task] = []

    def read() -> Iterator[Any]:
        with torch.inference_mode():
            for i, size in enumerate(map(tuple, truth.sizes.tolist())):
                x = torch.from_numpy(preprocess.normalise(images.pixels[i]))
                out = outputs_of(module(x))
                values = {name: tensor.numpy() for name, tensor in out.tensors.items()}
                if not found:
                    specs = [TensorSpec(n, str(v.dtype), v.shape) for n, v in values.items()]
                    found.append(
                        tasks.task(str(context.task)).of_graph(
                            specs, preprocess.size, len(images.classes), context.decode
                        )
                    )
                task = found[0]
                yield task.read(values, preprocess.placement(*size), size, **task.judging())

    reads = iter(read())
    first = next(reads)
    return found[0].score(chain([first], reads), truth, images.classes).value
