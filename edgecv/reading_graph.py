"""A bundle whose file reads its own outputs: the task's nodes behind the network's, compiled, and
its answers beside those of the runtime.

    network ─ engine ─▶ outputs ─ task.read ─▶ answers ─┐
    network + nodes ── engine ──────────────▶ answers ─┘ the same, image by image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends import Compiled, compile_module, every, facts, run_module
from edgecv.errors import ParityError, TargetError, UnsupportedError
from edgecv.graph import Graph
from edgecv.runtime.interface import Interface, own
from edgecv.runtime.placement import Placement
from edgecv.runtime.preprocess import Preprocess
from edgecv.samples import Feeds, Given
from edgecv.target import Target
from edgecv.tasks.base import Task

FOLDER = "reading"  # beside the engine's, while a bundle is made
NEAR = 1e-5  # of scores; of boxes NEAR_BOX pixels and as much of their place
NEAR_BOX = 1e-3
APART = 0.01  # of boxes, at a threshold: rounding puts one on either side


@dataclass(frozen=True)
class Reading:
    """graph, compiled, files, session: of the network with its nodes; task: what reads them"""

    graph: Graph
    compiled: Compiled
    files: dict[str, bytes]
    session: Any
    task: Task


def check(engine: str, asked: bool, where: str) -> None:
    """Raises TargetError: that is asked of an engine whose files cannot hold it."""
    if asked and not facts(engine).suppresses:
        able = ", ".join(said.profile or name for name, said in every().items() if said.suppresses)
        what = f"{facts(engine).label}'s files hold no suppression that is the runtime's"
        raise TargetError(where, what, f"leave it out: the runtime suppresses; or take {able}")


def put_behind(
    where: str,
    graph: Graph,
    task: Task,
    target: Target,
    session: Any,
    samples: Given,
    preprocess: Preprocess,
    out: Path,
) -> Reading:
    """The network with the nodes of the task's in_graph.py, its engine's files in out/engine.

    session: of the network as it is, on the same engine
    Raises TargetError, UnsupportedError: it cannot be; ParityError: its answers are others.
    """
    import onnx

    check(target.backend, True, f"--nms: target {target.name!r}")
    if graph.format != "onnx":
        what = f"nodes are put behind ONNX files, not .{graph.format}"
        raise UnsupportedError(where, what, "bring the network as .onnx")
    answers = _answers(session, graph, samples, preprocess)
    model = onnx.load(str(graph.path))
    read: Task = import_module(f"edgecv.tasks.{task.name}.in_graph").attached(model, answers, task)
    path = out / FOLDER / graph.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    made = run_module("onnxruntime").Session({path.name: path.read_bytes()})
    ends = tuple(replace(spec, kind="values") for spec in made.outputs)
    made.close()
    told = graph.facts.get("own")
    told = told and {**told, "outputs": [spec.to_json() for spec in ends]}
    whole = replace(graph, path=path, outputs=ends, facts={**graph.facts, "own": told})
    compiled = compile_module(target.backend).compile(whole, target, out / "engine")
    files = {name: (out / "engine" / name).read_bytes() for name in compiled.files}
    ran = run_module(target.backend).Session(files, threads=1)
    try:
        found = _answers(ran, whole, samples, preprocess)
        note = compared(where, task, answers, read, found, preprocess.size)
    except BaseException:
        ran.close()
        raise
    compiled = replace(compiled, notes=(*compiled.notes, note))
    return Reading(whole, compiled, files, ran, read)


def _answers(
    session: Any, graph: Graph, samples: Given, preprocess: Preprocess
) -> list[dict[str, np.ndarray]]:
    """What the engine answers to each call, as tasks read it."""
    interface = Interface((), own(session.outputs, graph.shown), "outputs")
    feeds = Feeds(samples, session.inputs, preprocess)
    return [interface.answer(dict(session.run(feed))) for feed in feeds]


def compared(
    where: str,
    task: Task,
    raw: Sequence[dict[str, np.ndarray]],
    read: Task,
    found: Sequence[dict[str, np.ndarray]],
    size: tuple[int, int],
) -> str:
    """A sentence of how many boxes are the same. Raises ParityError: more than APART are not."""
    lies, boxes, lost = Placement(size, (0, 0), (1.0, 1.0)), 0, 0
    for a, b in zip(raw, found, strict=True):
        runtime, file = task.read(a, lies, size), read.read(b, lies, size)
        boxes += len(runtime.scores)
        lost += max(_missing(runtime, file), _missing(file, runtime))
    if lost > APART * boxes:
        what = f"{lost} of {boxes} boxes are not the runtime's"
        raise ParityError(where, what, "leave --nms graph out: the runtime suppresses")
    if not boxes:
        return (f"the file itself suppresses: the runtime finds no box on {len(raw):,} images, so "
                "that nothing was compared; give images with objects (--calibration)")  # fmt: skip
    kept = f"of {boxes:,} boxes on {len(raw):,} images {boxes - lost:,} are the runtime's"
    least = task.described().get("confidence")
    return f"the file itself suppresses: {kept}; a metric, too, sees those above {least} alone"


def _missing(a: Any, b: Any) -> int:
    """How many boxes of a have no equal in b."""
    if not len(a.scores) or not len(b.scores):
        return len(a.scores)
    same = a.index[:, None] == b.index
    same &= np.abs(a.scores[:, None] - b.scores) <= NEAR
    room = NEAR_BOX + NEAR_BOX * np.abs(a.boxes[:, None])
    same &= (np.abs(a.boxes[:, None] - b.boxes) <= room).all(2)
    return int((~same.any(1)).sum())
