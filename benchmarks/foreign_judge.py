"""A bundle against the file that it was made from, which edgecv does not touch here.

    python benchmarks/foreign_judge.py FILE BUNDLE MEAN STD PICTURE...

The file is run by ONNX Runtime without its optimiser, or by LiteRT's reference kernels; pictures
are resized by Pillow, put in units of (pixel - MEAN) / STD and given to both by the file's own
names. Prints JSON: per output max |a - b| / max |a|, and the SQNR in dB of what is left when the
mean over the pictures is taken out (of everything, where nothing varies); where all that the file
answers is between 0 and 1, as a sigmoid's is, max |a - b| too ("share").
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def main() -> None:
    file, bundle, mean, std, *pictures = sys.argv[1:]
    from edgecv.runtime import open_bundle

    opened = open_bundle(bundle)
    shapes = {t.name: (tuple(t.shape), t.dtype) for t in opened.inputs}
    original = onnx_runner(file) if file.endswith(".onnx") else tflite_runner(file, shapes)
    feeds = made(shapes, pictures, float(mean), float(std))
    print(json.dumps(compared([original(f) for f in feeds], [opened.run(f) for f in feeds])))


def made(
    shapes: dict[str, tuple[tuple[int, ...], str]], pictures: Sequence[str], mean: float, std: float
) -> list[dict[str, np.ndarray]]:
    """One set of inputs for each picture; what is not an image is filled with noise."""
    rng = np.random.default_rng(0)
    return [
        {name: _input(shape, kind, path, mean, std, rng) for name, (shape, kind) in shapes.items()}
        for path in pictures
    ]


def _input(
    shape: tuple[int, ...], kind: str, path: str, mean: float, std: float, rng: Any
) -> np.ndarray:
    last = len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)
    first = len(shape) == 4 and shape[1] in (1, 3)
    if not (last or first):
        return rng.normal(size=shape).astype(np.float32)
    size = (shape[2], shape[1]) if last else (shape[3], shape[2])
    channels = shape[3] if last else shape[1]
    opened = Image.open(path).convert("RGB" if channels == 3 else "L").resize(size)
    pixels = np.asarray(opened, np.float32).reshape(size[1], size[0], channels)
    pixels = pixels if kind == "uint8" else (pixels - mean) / std
    one = pixels if last else pixels.transpose(2, 0, 1)
    # rows of a batch differ, so that one that gets another's answer is seen
    rows = [np.roll(one, i, -2) for i in range(shape[0])]
    return np.ascontiguousarray(np.stack(rows).astype(np.uint8 if kind == "uint8" else np.float32))


def onnx_runner(file: str) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def tflite_runner(file: str, shapes: dict[str, Any]) -> Run:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # The reference kernels know fewer operators than the plain ones (densified sparse weights).
    # Of MediaPipe's own operators XNNPACK alone knows one.
    known = OpResolverType
    for kernels in (known.BUILTIN_REF, known.BUILTIN_WITHOUT_DEFAULT_DELEGATES, known.AUTO):
        interpreter = Interpreter(file, experimental_op_resolver_type=kernels, num_threads=1)
        try:
            interpreter.allocate_tensors()
            break
        except (RuntimeError, ValueError):
            continue
    inputs = {d["name"]: d["index"] for d in interpreter.get_input_details()}
    outputs = {d["name"]: d["index"] for d in interpreter.get_output_details()}
    if inputs.keys() != shapes.keys():
        raise SystemExit(f"the file's inputs are {sorted(inputs)}, the bundle's {sorted(shapes)}")

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, values in feeds.items():
            interpreter.set_tensor(inputs[name], values)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index).copy() for name, index in outputs.items()}

    return run


def compared(
    wanted: Sequence[dict[str, np.ndarray]], found: Sequence[dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Output name -> shape, relative error, SQNR in dB (null: other shapes, or not finite)."""
    if missing := wanted[0].keys() ^ found[0].keys():
        raise SystemExit(f"outputs differ: {sorted(missing)}")
    return {name: _one([w[name] for w in wanted], [f[name] for f in found]) for name in wanted[0]}


def _one(wanted: list[np.ndarray], found: list[np.ndarray]) -> dict[str, Any]:
    shape = list(wanted[0].shape)
    if [f.shape for f in found] != [w.shape for w in wanted]:
        return {"shape": shape, "got": list(found[0].shape), "error": None, "sqnr_db": None}
    a, b = np.stack(wanted).astype(np.float64), np.stack(found).astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return {"shape": shape, "error": None, "sqnr_db": None}
    noise = float(((a - b) ** 2).sum())
    varying = float(((a - a.mean(0)) ** 2).sum())
    signal = varying if varying > 1e-8 * float((a**2).sum()) else float((a**2).sum())
    sqnr = min(200.0, 10 * np.log10(signal / noise)) if noise and signal else 200.0 * (not noise)
    error = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    share = float(np.abs(a - b).max()) if a.min() >= 0 and a.max() <= 1 else None
    sqnr_db = round(float(sqnr), 1)
    return {"shape": shape, "error": error, "share": share, "sqnr_db": sqnr_db}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
