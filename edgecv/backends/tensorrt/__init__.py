"""TensorRT: NVIDIA GPUs. Engines are built without one, and run only on one."""

from pathlib import Path

from edgecv.backends import Facts

FACTS = Facts(
    "TensorRT",
    "running on an NVIDIA GPU",
    graphs=("onnx",),
    libraries=("tensorrt", "tensorrt-rtx"),
    extras={"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt"},
    tools={"tensorrt-rtx": ("tensorrt", "building TensorRT engines (no GPU needed)")},
    format="onnx",
    half=True,
    untimed="a TensorRT engine",
)


def environment() -> dict[str, object]:
    """What of this machine decides how far a bundle gets."""
    return {"nvidia_gpu": Path("/dev/nvidiactl").exists()}
