"""A float .tflite file as an ONNX graph, for engines that read ONNX: `tflite_to_onnx(content)`.

One table (`operators.py`) says which builtin operator becomes which nodes (semantics: the reference
kernels of TensorFlow Lite); what is not in it is refused by name. Images stay channels-first
between operators. Inputs keep the file's names and shapes, outputs its names; those of four axes
come channels first, as the outputs of every ONNX graph are taken. fp16 weights become float32,
sparse ones dense.

Nothing here is believed: `prove` runs both files on random inputs, LiteRT's reference kernels
against ONNX Runtime without its optimiser.
"""

from __future__ import annotations

from typing import Any

from edgecv.models.importing.tflite.operators import OPERATORS
from edgecv.models.importing.tflite.proof import prove
from edgecv.models.importing.tflite.reader import Reader

__all__ = ["tflite_to_onnx"]


def tflite_to_onnx(content: bytes, where: str) -> Any:
    """An onnx.ModelProto of opset 18 that answers as the file does.

    where: what errors call the file
    Raises ModelError (damaged, control flow, answers otherwise), UnsupportedError naming the
    operator that has no form there or the tensor that holds quantized numbers.
    """
    model = Reader(content, where).read(OPERATORS)
    prove(content, model, where)
    return model
