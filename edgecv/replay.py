"""Running real images through a network in any of its forms, for comparison and for measuring.

Every form gets the same pixels through the one preprocessing (`edgecv.runtime.preprocess`) and
gives float logits of shape (N, classes), so that torch, ONNX, TFLite and a compiled engine compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.backends import Session, run_module
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec

if TYPE_CHECKING:
    import torch

    from edgecv.graph import Graph

# The engine that replays a graph file for comparison, whatever the target compiles it with.
REFERENCE = {"onnx": "onnxruntime", "tflite": "tflite"}


def sample(pixels: np.ndarray, count: int) -> np.ndarray:
    """`count` images spread evenly over the set; all of them when there are fewer."""
    return pixels[_spread(len(pixels), count)]


def held_back(pixels: np.ndarray, used: int, count: int) -> np.ndarray:
    """Images that `calibration_sample(pixels, used)` left out; all where it could leave none."""
    rest = np.setdiff1d(np.arange(len(pixels)), _calibrating(len(pixels), used))
    return pixels[rest[_spread(len(rest), count)]] if len(rest) else sample(pixels, count)


def calibration_sample(pixels: np.ndarray, count: int) -> np.ndarray:
    """`count` images to calibrate on; of a small set, a tenth is held back for checking."""
    return pixels[_calibrating(len(pixels), count)]


def _calibrating(total: int, count: int) -> np.ndarray:
    if total < 40 or count <= total - total // 10:
        return _spread(total, count)
    return np.setdiff1d(np.arange(total), np.arange(5, total, 10))


def _spread(total: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def adapted(preprocess: Preprocess, spec: TensorSpec) -> Preprocess:
    """The same preprocessing, ending in the dtype, layout and grid of an engine's input."""
    return replace(
        preprocess,
        layout=spec.layout,
        dtype=spec.dtype,
        scale=spec.scale,
        zero_point=spec.zero_point,
    )


def real(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Engine output as real numbers: scale * (q - zero_point) for integers."""
    if spec.scale is None:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(spec.zero_point or 0)) * np.float32(spec.scale)


def session_outputs(session: Session, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Logits (N, classes) float32 of uint8 (N,H,W,C) images, one call per image as on a device."""
    (source, *_), (result, *_) = session.inputs, session.outputs
    into = adapted(preprocess, source)
    rows: list[np.ndarray] = []
    for image in pixels:
        outputs = session.run({source.name: into.normalise(image[None])})
        rows.append(real(outputs[result.name], result)[0])
    return np.stack(rows)


def graph_outputs(
    graph: Graph, pixels: np.ndarray, preprocess: Preprocess, exact: bool = True
) -> np.ndarray:
    """Logits of a graph file, by the reference engine of its format.

    exact: as the device computes them, where this processor's integers would saturate
    """
    session = graph_session(graph, exact)
    try:
        return session_outputs(session, pixels, preprocess)
    finally:
        session.close()


def graph_session(graph: Graph, exact: bool = True) -> Any:
    """The reference engine's session of a graph file; exact as for `graph_outputs`."""
    files: Mapping[str, bytes] = {graph.path.name: graph.path.read_bytes()}
    how = {"fused": False} if exact and saturated_here(graph) else {}
    return run_module(REFERENCE[graph.format]).Session(files, **how)


def saturated_here(graph: Graph) -> bool:
    """Whether an integer graph was made for processors that add in 32 bits, and this one does not:
    ONNX Runtime's and OpenVINO's answers of it are this processor's own.
    """
    if graph.format != "onnx" or graph.precision != "int8":
        return False
    from edgecv.target import saturates

    return saturates() and not graph.facts.get("grid", {}).get("reduce_range")


def torch_outputs(
    module: torch.nn.Module, pixels: np.ndarray, preprocess: Preprocess
) -> np.ndarray:
    """Logits of a torch network, one image at a time."""
    import torch

    into = replace(preprocess, layout="NCHW", dtype="float32")
    module.eval()
    with torch.inference_mode():
        rows = [module(torch.from_numpy(into.normalise(p[None]))).numpy()[0] for p in pixels]
    return np.stack(rows)
