"""Plain C99: microcontrollers, and any device with a compiler."""

LIBRARIES = ("onnx",)
