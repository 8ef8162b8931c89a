"""A .tflite file and the ONNX graph that was made of it, on the same random inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.errors import EdgecvError, ModelError, UnsupportedError
from edgecv.graphs.onnx.bounded import KERNEL, bounded
from edgecv.models.importing.tflite.reader import FIRST

NEAR = 1e-4  # |a - b| / |a|: sums in another order, and approximate kernels of a few roundings
RUNS = 2


def first(values: np.ndarray) -> np.ndarray:
    """An output of four axes channels first, as the ONNX graph has it."""
    return values.transpose(FIRST) if values.ndim == 4 else values


def prove(content: bytes, model: Any, where: str) -> None:
    """Raises ModelError unless both answer the same; UnsupportedError where LiteRT cannot run the
    file at all."""
    from edgecv.backends.onnxruntime.run import plain as plain_onnx
    from edgecv.backends.tflite.run import plain as plain_tflite

    try:
        before = plain_tflite({"model.tflite": content})
    except EdgecvError as e:
        raise UnsupportedError(where, f"LiteRT does not run it: {e.what}", e.hint) from None
    after = plain_onnx({"model.onnx": model.SerializeToString()})
    rng = np.random.default_rng(0)
    names = [o.name for o in model.graph.output]
    bounds = bounded(model.graph)
    try:
        for _ in range(RUNS):
            values = [_made(rng, spec.shape, spec.dtype) for spec in before.inputs]
            a = before.run({t.name: v for t, v in zip(before.inputs, values, strict=True)})
            b = after.run({t.name: v for t, v in zip(after.inputs, values, strict=True)})
            for spec, name in zip(before.outputs, names, strict=True):
                _same(where, name, first(a[spec.name]), b[name], bounds.get(name, 0.0))
    finally:
        before.close()
        after.close()


def _made(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    if np.dtype(kind).kind == "f":
        return rng.uniform(0, 1, shape).astype(kind)
    return rng.integers(0, 2, shape).astype(kind)


def _same(where: str, name: str, a: np.ndarray, b: np.ndarray, bound: float) -> None:
    """bound: what the output's numbers are at most, where that is known."""
    hint = "run it with --target tflite, and report this"
    if a.shape != b.shape:
        raise ModelError(
            where, f"output {name!r} is {a.shape} in the file, {b.shape} in ONNX", hint
        )
    x, y = a.astype(np.float64), b.astype(np.float64)
    rounding = bound * KERNEL * x.size**0.5
    distance = float(np.linalg.norm(x - y))
    far = distance / max(float(np.linalg.norm(x)), 1e-30)
    if not (far <= NEAR or distance <= rounding):
        raise ModelError(
            where, f"output {name!r} would answer otherwise in ONNX: by {far:.1e}", hint
        )
