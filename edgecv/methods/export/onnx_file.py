"""The door for a user's own .onnx file (`onnx.py` holds it)."""

from edgecv.methods.export.onnx import load_onnx as load

__all__ = ["load"]
