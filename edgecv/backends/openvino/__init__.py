"""OpenVINO: Intel CPUs, and other x86-64 ones."""

LIBRARIES = ("openvino",)
