"""LiteRT (TensorFlow Lite): phones and small boards."""

LIBRARIES = ("ai-edge-litert",)
