"""LiteRT (TensorFlow Lite): phones and small boards."""

# What its Session imports: timed apart from loading a network.
IMPORTS = "ai_edge_litert.interpreter"
