"""A user's .tflite file as a graph for engines that read ONNX."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.methods.export.onnx import load_onnx
from edgecv.models.importing.tflite import tflite_to_onnx


def load(source: Path, out: Path, where: str, target: str) -> Graph:
    """Write out/model.onnx and out/graph.json.

    source: the clean copy of the file, beside its graph.json; where: what errors call it
    Raises UnsupportedError: integers, or an operator that has no form in ONNX.
    """
    import onnx

    if Graph.load(source.parent).precision != "fp32":
        what = f"comes quantized, and {target} does not compute on TFLite's integers"
        hint = "take a target of LiteRT (tflite, rpi5, edgetpu), or bring the float file"
        raise UnsupportedError(where, what, hint)
    with TemporaryDirectory(prefix="edgecv-tflite-") as room:
        path = Path(room) / where
        onnx.save(tflite_to_onnx(source.read_bytes(), where), str(path))
        return load_onnx(path, out)
