"""OpenVINO: Intel CPUs, and other x86-64 ones."""

from edgecv.backends import Facts

FACTS = Facts(
    "OpenVINO",
    "targets openvino and nuc",
    graphs=("onnx",),
    alone=True,
    libraries=("openvino", "nncf"),
    extras={"openvino": "openvino"},
    tools={"nncf": ("nncf", "int8 for OpenVINO by its own quantizer")},
    quantizers=("nncf",),
    format="openvino",
    reference="openvino",
    also=("openvino",),
    products=("Convolution", "Deconvolution", "FullyConnected", "MatMul"),
    # In integers only for some widths and processors; a MatMul is of two activations (of weights it
    # is FullyConnected), and in integers only where the first has no zero point and the second is
    # signed without one.
    floating=("Deconvolution", "MatMul"),
    fused=("silu", "hardswish", "mish", "gelu"),
    saturates=True,
    suppresses=True,
)

# What its Session imports: timed apart from loading a network.
IMPORTS = "openvino"
BINARY = "BinaryConvolution"
# ExecutionGraphInfo layer types that multiply (openvino: "Runtime model" serialisation).
LAYERS = {*FACTS.products, BINARY}


def environment() -> dict[str, object]:
    """What of this machine decides what a bundle holds: where counting bits is exact is tried."""
    from edgecv.benchmark.machine import cpu_features  # not at import: devices import this package

    return {"features": cpu_features()}
