"""What runs on the CPU, LiteRT runs."""

from edgecv.backends.tflite.fallbacks import found

__all__ = ["found"]
