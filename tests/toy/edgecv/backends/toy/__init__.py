"""A toy engine: ONNX's own reference evaluator, on files of its own kind."""

from edgecv.backends import Facts

FACTS = Facts(
    "Toy",
    "target toy",
    graphs=("onnx", "toy"),
    libraries=("onnx",),
    extras={"onnx": "compress"},
    reference="toy",
    products=("Conv", "Gemm"),
)

# What its Session imports: timed apart from loading a network.
IMPORTS = "onnx.reference"
