"""An ONNX graph as steps in C.

    float    Conv, Gemm, Add, pooling, activations: as they are
    int8     Q/DQ around them: `products.py`
    one bit  the operators of `edgecv.binary.lowering`: `one_bit.py`

What has no integer form here runs in float between its own conversions.
"""

from __future__ import annotations

from typing import Any

from edgecv.backends.c.maps import Maps
from edgecv.backends.c.network import Network
from edgecv.backends.c.one_bit import OneBit
from edgecv.backends.c.transposed import Transposed


def read(model: Any, where: str) -> Network:
    """The steps of an onnx.ModelProto, lowered already. Raises UnsupportedError with the node."""
    return _Reader(model, where).run()


class _Reader(Transposed, Maps, OneBit):
    def run(self) -> Network:
        (source,) = [i for i in self.graph.input if i.name not in self.values]
        _, channels, high, wide = [d.dim_value for d in source.type.tensor_type.shape.dim]
        self._new(source.name, (high, wide, channels))
        for node in self.graph.node:
            if node.op_type == "Constant" or node.output[0] in self.done:
                continue
            handler = getattr(self, f"_{node.op_type.lower()}", None)
            if handler is None:
                raise self._refused(node, f"{node.op_type} has no C kernel")
            handler(node)
        (result,) = (o.name for o in self.graph.output)
        if self._at(result).order:  # a flattened map lies otherwise here
            self.views[result] = self._view(self.makers[result], result)
            self._written_out(result)
        return Network(self.steps, self.tensors, source.name, self._float(result))
