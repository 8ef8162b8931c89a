"""A layer that multiplies, as far as its time is concerned.

MACs = H_out W_out C_out (C_in / groups) k_h k_w
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True)
class Product:
    """A layer that multiplies and accumulates: a convolution or a dense layer.

    layer:       its name in the model
    kind:        "conv" or "dense"
    channels:    (in, out)
    size, result: height and width of its input and of its output; (1, 1) for a dense layer
    pads:        top, left, bottom, right
    activations: dtype that its input has in the file: "float32", "uint8", "int8", ...
    weights:     dtype in which the file holds its weight; "" for a weight that is computed
    fixed:       whether (input, output) channels are the image's or the classes, not to be changed
    unfused:     why the engine cannot run it in integers as the file has it; "" when it can
    """

    layer: str
    kind: str
    channels: tuple[int, int]
    size: tuple[int, ...] = (1, 1)
    result: tuple[int, ...] = (1, 1)
    kernel: tuple[int, ...] = (1, 1)
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    groups: int = 1
    activations: str = "float32"
    weights: str = "float32"
    fixed: tuple[bool, bool] = (False, False)
    unfused: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        each = self.channels[0] // self.groups * prod(self.kernel)
        return prod(self.result) * self.channels[1] * each

    @property
    def integer(self) -> bool:
        """Whether the file has its input on an integer grid."""
        return self.activations in ("int8", "uint8")


def widened(product: Product, channels: tuple[int, int]) -> Product:
    """The same layer with other channel counts; a depthwise layer stays one."""
    depthwise = product.groups > 1 and product.groups == product.channels[0]
    groups = channels[0] if depthwise else product.groups
    return replace(product, channels=channels, groups=groups)
