"""The door for a user's own .onnx file (`onnx.py` holds it)."""

from edgecv.stages.export.onnx import load_onnx as load

__all__ = ["load"]
