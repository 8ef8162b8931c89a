"""Running real images through a network in any of its forms, for comparison and for measuring.

Every form gets the same pixels through the one preprocessing (`edgecv.runtime.preprocess`) and
gives its answers: for each output a float32 array (N, ...), channels first, so that torch, ONNX,
TFLite and a compiled engine compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.backends import Session, reference, run_module
from edgecv.bundling import kept_answers
from edgecv.cores import ahead, shares
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec, batch_of, channels_first
from edgecv.samples import Feeds, Given, Some

if TYPE_CHECKING:
    import torch

    from edgecv.graph import Graph

JUDGED = 128  # images that a comparison is made on, where there are as many

Answers = tuple[np.ndarray, ...]


def sample(pixels: Some, count: int) -> Some:
    """`count` images spread evenly over the set; all of them when there are fewer."""
    return pixels[_spread(len(pixels), count)]


def judged(pixels: Some) -> Some:
    """The images that a comparison is made on: all that there are up to JUDGED."""
    return sample(pixels, JUDGED)


def seen(pixels: Given, calibrated: int) -> bool:
    """Whether some of what `judged` gives was calibrated on."""
    return len(pixels) - calibrated < JUDGED


def held_back(pixels: Some, used: int, count: int) -> Some:
    """Images that `calibration_sample(pixels, used)` left out, and `judged` too where there are
    enough; all where calibration could leave none."""
    rest = np.setdiff1d(np.arange(len(pixels)), _calibrating(len(pixels), used))
    others = np.setdiff1d(rest, _spread(len(pixels), JUDGED))
    rest = others if len(others) >= count else rest
    return pixels[rest[_spread(len(rest), count)]] if len(rest) else sample(pixels, count)


def calibration_sample(pixels: Some, count: int) -> Some:
    """`count` images to calibrate on: others than those that are judged on where there are enough
    of both. Of a small set, a tenth is held back for checking."""
    return pixels[_calibrating(len(pixels), count)]


def _calibrating(total: int, count: int) -> np.ndarray:
    if total - JUDGED >= count:
        rest = np.setdiff1d(np.arange(total), _spread(total, JUDGED))
        return rest[_spread(len(rest), count)]
    if total < 40 or count <= total - total // 10:
        return _spread(total, count)
    return np.setdiff1d(np.arange(total), np.arange(5, total, 10))


def _spread(total: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def real(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Engine output as real numbers: scale * (q - zero_point) for integers."""
    if spec.scale is None:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(spec.zero_point or 0)) * np.float32(spec.scale)


def session_answers(session: Session, samples: Given, preprocess: Preprocess) -> Answers:
    """Answers to samples (uint8 (N, H, W, C) images alone, or with other inputs' arrays), one call
    at a time as on a device."""
    feeds, batch = Feeds(samples, session.inputs, preprocess), batch_of(session.inputs)
    rows: list[list[np.ndarray]] = [[] for _ in session.outputs]
    for feed in feeds:
        found = session.run(feed)
        for row, spec in zip(rows, session.outputs, strict=True):
            row += parted(channels_first(real(found[spec.name], spec), spec), batch)
    return stacked(rows, len(samples), batch)


def parted(values: np.ndarray, batch: int) -> list[np.ndarray]:
    """What a call answers, by sample; whole, where its first axis is not the batch."""
    return list(values) if values.ndim and len(values) == batch else [values]


def stacked(rows: list[list[np.ndarray]], count: int, batch: int) -> Answers:
    """Each output's rows as one array. The last call of a batch may have repeated samples."""
    calls = -(-count // batch)
    return tuple(np.stack(row if len(row) == calls else row[:count]) for row in rows)


def session_outputs(session: Session, pixels: Given, preprocess: Preprocess) -> np.ndarray:
    """The first output alone, a row for each image: logits (N, classes) float32."""
    return as_rows(session_answers(session, pixels, preprocess)[0])


def as_rows(values: np.ndarray) -> np.ndarray:
    """(N, ...) as (N, numbers)."""
    return values.reshape(len(values), -1)


def plain_answers(
    graph: Graph, pixels: Given, preprocess: Preprocess, keep: bool = False
) -> Answers:
    """Answers of a graph file by the reference engine of its format, node by node, without its
    optimiser and fused kernels: what the file says.

    keep: beside the graph, for the steps after (the step that writes its folder alone may)
    """
    version = run_module(reference(graph.format)).probe().version
    asked = kept_answers.question(graph, pixels, preprocess, version)
    known = kept_answers.kept(graph, asked)
    if known is not None:
        return known
    found = _answers_of_all(graph, pixels, preprocess)
    if keep:
        kept_answers.keep(graph, asked, found)
    return found


def _answers_of_all(graph: Graph, pixels: Given, preprocess: Preprocess) -> Answers:
    """Node by node, on every core that is free, each with a session of its own."""
    every = shares(len(pixels)) if batch_of(graph.inputs) == 1 else [slice(None)]
    found = ahead(lambda some: last_answers(plain_session(graph), pixels[some], preprocess), every)
    return tuple(np.concatenate(rows) for rows in zip(*found, strict=True))


def last_answers(session: Any, pixels: Given, preprocess: Preprocess) -> Answers:
    """`session_answers` of a session that is closed then."""
    try:
        return session_answers(session, pixels, preprocess)
    finally:
        session.close()


def graph_outputs(graph: Graph, pixels: Given, preprocess: Preprocess) -> np.ndarray:
    """The first output as the device computes it, by the reference engine of the format: logits
    (N, classes) float32."""
    return as_rows(last_answers(graph_session(graph), pixels, preprocess)[0])


def graph_session(graph: Graph) -> Any:
    """The reference engine's session of a graph file, as the device computes it."""
    return plain_session(graph) if saturated_here(graph) else fused_session(graph)


def fused_session(graph: Graph) -> Any:
    """The same with the engine's own kernels, whatever this processor's integers do."""
    return run_module(reference(graph.format)).Session(graph.files())


def plain_session(graph: Graph) -> Any:
    """A session that computes every node by itself: ONNX Runtime without its optimiser, LiteRT
    without XNNPACK, OpenVINO with each node compiled alone."""
    return run_module(reference(graph.format)).plain(graph.files())


def saturated_here(graph: Graph) -> bool:
    """Whether an integer graph was made for processors that add in 32 bits, and this one does not:
    ONNX Runtime's and OpenVINO's answers of it are this processor's own.
    """
    if graph.format != "onnx" or graph.precision != "int8":
        return False
    from edgecv.target import saturates

    return saturates() and not graph.facts.get("grid", {}).get("reduce_range")


def torch_answers(
    module: torch.nn.Module,
    samples: Given,
    preprocess: Preprocess,
    inputs: Sequence[TensorSpec] | None = None,
) -> Answers:
    """Answers of a torch network, one call at a time, in eval mode.

    inputs: of its graph, in the order of its arguments; None is one image
    """
    import torch

    from edgecv.outputs import outputs_of

    if inputs is None:
        shape = (1, preprocess.channels, *preprocess.size)
        inputs = (TensorSpec("input", "float32", shape, "NCHW"),)
    batch = batch_of(inputs)
    module.eval()
    rows: list[list[np.ndarray]] = []
    with torch.inference_mode():
        for feed in Feeds(samples, inputs, preprocess, first=True):
            found = module(*map(torch.from_numpy, feed.values()))
            many = outputs_of(found).values
            rows = rows or [[] for _ in many]
            for row, tensor in zip(rows, many, strict=True):
                row += parted(tensor.numpy(), batch)
    return stacked(rows, len(samples), batch)


def torch_outputs(
    module: torch.nn.Module, pixels: np.ndarray, preprocess: Preprocess
) -> np.ndarray:
    """The first of `torch_answers`, a row for each image: logits (N, classes)."""
    return as_rows(torch_answers(module, pixels, preprocess)[0])
