"""A network's answers judged by its task, as a device gives them: the engine's own outputs, decoded
by the code that the runtime runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv import tasks
from edgecv.backends import Session
from edgecv.bundling.inference import graph_session, parted
from edgecv.data.images import Images
from edgecv.errors import DataError
from edgecv.graph import Graph
from edgecv.runtime.interface import Interface, own
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, batch_of, plain
from edgecv.samples import Feeds
from edgecv.tasks.base import NotNumbers, Score, Task

if TYPE_CHECKING:
    from torch import nn

    from edgecv.context import Context

NOTHING = 0.01  # of a metric: below it something is set wrong, or nothing was learned
ASK = "are labels in the outputs' order, and resize, color, mean and std as in training?"


def judge(
    task: Task,
    session: Session,
    outputs: Sequence[TensorSpec],
    images: Images,
    preprocess: Preprocess,
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """(the metric as a manifest holds it, what two networks of the same images are compared by,
    what makes it say less than it seems to, a sentence each).

    outputs: as the user's file calls them (`Graph.shown`). images: with what is true of them
    """
    lost = NotNumbers()
    check_kind(task.name, images, "data.test")
    said = lost.watch(reads(task, session, outputs, images, preprocess))
    score = task.score(said, images.told, images.classes)
    doubts = [sentence] if (sentence := lost.sentence()) else []
    doubts += task.doubts(score)
    if score.value < NOTHING:
        what = f"{task.points} {100 * score.value:.2f}: next to nothing is found where it is"
        doubts.append(f"{what}: {ASK}")
    return metric_of(task, score), dict(score.parts), doubts


def check_kind(name: str, images: Images, where: str) -> None:
    """Raises DataError: what is true of those images is not what the task is judged by."""
    kinds = tasks.task(name).truths()
    if images.kind not in kinds:
        said = {"index": "classes", "": "no labels"}.get(images.kind, images.kind.lower())
        wanted = " or ".join({"index": "classes"}.get(kind, kind.lower()) for kind in kinds)
        raise DataError(where, f"has {said}, and {name} is judged by {wanted}",
                        "give data with the task's own labels, or name another task")  # fmt: skip


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
    shown = [plain(spec) for spec in outputs]  # maps channels first, as tasks read them
    interface = Interface((), own(session.outputs, shown), task.name)
    batch, asked = batch_of(session.inputs), task.judging() if asked is None else asked
    sizes = iter(images.sizes(preprocess.size))
    for feed in Feeds(images.samples, session.inputs, preprocess):
        found = interface.answer(dict(session.run(feed)))
        rows = {name: parted(values, batch) for name, values in found.items()}
        for i in range(batch):
            if (size := next(sizes, None)) is None:  # the last call of a batch repeats samples
                return
            one = {name: row[i if len(row) > 1 else 0] for name, row in rows.items()}
            one = {name: v[None] if batch > 1 else found[name] for name, v in one.items()}
            lies = preprocess.placement(*size)
            yield task.read(one, lies, size, **asked)


def task_of(
    name: str, result: Any, size: tuple[int, int], classes: int | None, said: Mapping[str, Any]
) -> Task:
    """How the task reads what a torch network returned for one image. Raises UnsupportedError: it
    cannot; ModelError: it holds what is no tensor."""
    from edgecv.outputs import outputs_of

    tensors = outputs_of(result).tensors
    kinds = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()}
    specs = [TensorSpec(n, kinds[n], tuple(t.shape)) for n, t in tensors.items()]
    return tasks.task(name).of_graph(specs, size, classes, said)


def graph_task(
    name: str,
    graph: Graph,
    preprocess: Preprocess,
    labels: Sequence[str] | None,
    said: Mapping[str, Any],
) -> Task:
    """How the task reads a graph's outputs, by the names of the user's file. Raises
    UnsupportedError."""
    task, classes = tasks.task(name), len(labels or ()) or None
    known = task.of_ends(list(map(plain, graph.outputs)), graph.facts.get("sigmoid", ()))
    return task.of_graph(graph.shown, preprocess.size, classes, {**known, **said})


def judge_graph(name: str, graph: Graph, images: Images, context: Context) -> float:
    """The task's metric of a graph file on its format's reference engine, 0..1."""
    task = graph_task(name, graph, context.preprocess, context.labels, context.decode)
    session = graph_session(graph)
    try:
        return float(judge(task, session, graph.shown, images, context.preprocess)[0]["value"])
    finally:
        session.close()


def judge_module(module: nn.Module, images: Images, context: Context) -> float:
    """The task's metric of a torch network, 0..1, one image a call as devices answer."""
    import torch

    from edgecv.outputs import outputs_of

    preprocess, name = context.preprocess, str(context.task)
    check_kind(name, images, "data.test")
    module.eval()
    sizes, classes = images.sizes(preprocess.size), len(images.classes)

    def run(i: int) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(preprocess.normalise(images.pixels[i])))

    task = task_of(name, run(0), preprocess.size, classes, context.decode)

    def read(i: int) -> Any:
        values = {name: tensor.numpy() for name, tensor in outputs_of(run(i)).tensors.items()}
        lies = preprocess.placement(*sizes[i])
        return task.read(values, lies, sizes[i], **task.judging())

    return task.score(map(read, range(len(images))), images.told, images.classes).value
