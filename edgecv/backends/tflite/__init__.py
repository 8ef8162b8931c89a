"""LiteRT (TensorFlow Lite): phones and small boards."""

from edgecv.backends import Facts

FACTS = Facts("LiteRT", "targets tflite and rpi*, checks of TFLite graphs", alone=True)

# What its Session imports: timed apart from loading a network.
IMPORTS = "ai_edge_litert.interpreter"
