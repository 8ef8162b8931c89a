"""ONNX Runtime: CPUs, everywhere."""

LIBRARIES = ("onnxruntime",)
