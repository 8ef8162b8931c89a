"""Coral Edge TPU: a full-integer .tflite, compiled by the edgetpu_compiler that the user has."""

import os
import shutil

from edgecv.backends import Facts

FACTS = Facts(
    "Edge TPU",
    "running on an Edge TPU; bundles hold the full-integer .tflite, not compiled",
    graphs=("tflite",),
    format="tflite",
    floats=False,
    sealed=True,
    untimed="an Edge TPU model",
)


def environment() -> dict[str, object]:
    """What of this machine decides how far a bundle gets."""
    found = os.environ.get("EDGETPU_COMPILER") or shutil.which("edgetpu_compiler")
    return {"edgetpu_compiler": bool(found)}
