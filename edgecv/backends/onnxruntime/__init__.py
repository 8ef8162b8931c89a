"""ONNX Runtime: CPUs, everywhere."""

from edgecv.backends import Facts

FACTS = Facts(
    "ONNX Runtime",
    "targets cpu and x86-*, quantization and checks of ONNX graphs",
    graphs=("onnx",),
    alone=True,
    libraries=("onnxruntime",),
    extras={"onnxruntime": "ort"},
    format="onnx",
    reference="onnx",
    unfused=True,
    profile="cpu",
    products=("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
    floating=("ConvTranspose",),
    tables=("silu", "hardswish", "mish", "gelu"),
    saturates=True,
    unsigned=True,
    counts=True,
    suppresses=True,
)

# What its Session imports: timed apart from loading a network.
IMPORTS = "onnxruntime"


def environment() -> dict[str, object]:
    """What of this machine decides what a bundle holds: the kernels that count bits."""
    from edgecv.binary import library  # not at import: devices import this package

    return {"binary kernels": library.told().digest}
