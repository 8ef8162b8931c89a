"""LiteRT (TensorFlow Lite): phones and small boards."""

from edgecv.backends import Facts

FACTS = Facts(
    "LiteRT",
    "targets tflite and rpi*, checks of TFLite graphs",
    graphs=("tflite",),
    alone=True,
    libraries=("ai-edge-litert", "ai-edge-quantizer", "litert-torch", "litert-converter"),
    extras={"ai_edge_litert": "tflite"},
    format="tflite",
    reference="tflite",
    unfused=True,
    products=(
        "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL",
    ),
)  # fmt: skip

# What its Session imports: timed apart from loading a network.
IMPORTS = "ai_edge_litert.interpreter"
