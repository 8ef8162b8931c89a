"""Operators that are not TensorFlow Lite's builtin ones: which of them LiteRT itself runs.

The packages for Python register a few beside the builtin ones; whether another build of LiteRT on
a device does is its maker's choice. "Flex" operators are TensorFlow's own and need its kernels;
anything else is code of whoever made the file.
"""

from __future__ import annotations

from typing import Any

from edgecv.errors import UnsupportedError
from edgecv.graphs.tflite import flatbuffer

KNOWN = frozenset(("TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc"))
EDGETPU = "edgetpu-custom-op"


def of(model: Any) -> list[str]:
    """The custom operators of a ModelT by name, once each, in the file's order."""
    names = [
        flatbuffer.op_name(model, op)
        for op in flatbuffer.graph_of(model).operators
        if model.operatorCodes[op.opcodeIndex].customCode
    ]
    return list(dict.fromkeys(names))


def refuse_unknown(model: Any, where: str) -> None:
    """Raises UnsupportedError naming a custom operator that LiteRT has no kernel of."""
    for name in of(model):
        if name == EDGETPU:
            what = "is compiled for the Edge TPU already, and nothing here can say what it computes"
            raise UnsupportedError(where, what, "bring the .tflite file that it was compiled from")
        if name.startswith("Flex"):
            what = f"{name.removeprefix('Flex')} is an operator of TensorFlow, not of LiteRT"
            raise UnsupportedError(where, what, "convert it with builtin operators alone")
        if name not in KNOWN:
            what = f"{name} is not a builtin operator of TensorFlow Lite"
            hint = "its maker's code runs it: cut the network before it, or say it with others"
            raise UnsupportedError(where, what, hint)


def notes(model: Any) -> tuple[str, ...]:
    """What the user should know of those that LiteRT runs."""
    return tuple(
        f"{name} is no builtin operator: LiteRT for Python has it, another build may not"
        for name in of(model)
    )
