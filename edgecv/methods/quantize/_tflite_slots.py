"""Where a quantized .tflite keeps one layer's integers, scales and bias: reading and writing."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import OPERANDS, as_in_file, operand, outputs_first, own


class Place:
    """One layer, output channel first.

    scale: (O,) or (1,). input_scale: its input's, None for a layer without a bias.
    """

    def __init__(self, model: Any, name: str, op: Any) -> None:
        self._model, self._name, self._op = model, name, op
        self._weight = own(model, op, OPERANDS[name][1])
        self.scale = np.array(self._weight.quantization.scale, np.float64)
        source, bias = operand(model, name, op, 0), operand(model, name, op, 2)
        self.input_scale: float | None = None
        if source is not None and bias is not None and bias.quantization is not None:
            self.input_scale = float(source.quantization.scale[0])
            self._bias = own(model, op, OPERANDS[name][2])

    def integers(self) -> np.ndarray:
        """The weight's integers."""
        held = flatbuffer.constant(self._model, self._weight)
        assert held is not None
        return outputs_first(self._name, held)

    def bias(self) -> np.ndarray:
        """The bias as real numbers, float64 (O,); zeros where the layer has none."""
        if self.input_scale is None:
            return np.zeros(len(self.integers()))
        held = flatbuffer.constant(self._model, self._bias)
        assert held is not None
        return held.astype(np.float64) * np.array(self._bias.quantization.scale, np.float64)

    def write(self, q: np.ndarray, s: np.ndarray, bias: np.ndarray) -> None:
        flatbuffer.set_constant(
            self._model, self._weight, as_in_file(self._name, q).astype(np.int8)
        )
        self._weight.quantization.scale = s.astype(np.float32).tolist()
        if self.input_scale is None:
            return
        steps = (np.float32(self.input_scale) * s.astype(np.float32)).astype(np.float32)
        self._bias.quantization.scale = steps.tolist()
        integers = np.rint(bias / steps.astype(np.float64)).astype(np.int32)
        flatbuffer.set_constant(self._model, self._bias, integers)
