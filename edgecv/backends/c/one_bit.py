"""The operators of `edgecv.binary.lowering`: bits in words of 32, sums in integers."""

from __future__ import annotations

from typing import Any

from edgecv.backends.c.graph_builder import Held
from edgecv.backends.c.network import words
from edgecv.backends.c.window import outputs


class OneBit(Held):
    """Binarize, BinaryBits, BinaryConv, BinaryBoth, Halve."""

    def _binarize(self, node: Any) -> None:
        x = self._at(node.input[0])
        constants = {"least": self._ordered(x, self.values[node.input[1]]),
                     "flip": self._ordered(x, self.values[node.input[2]])}  # fmt: skip
        self._step(node, "binarize", [self._float(node.input[0])], x.shape, "bits",
                   constants=constants, order=x.order)  # fmt: skip

    def _binarybits(self, node: Any) -> None:
        self._bits(node)

    def _binaryconv(self, node: Any) -> None:
        self._bits(node)

    def _binaryboth(self, node: Any) -> None:
        self._bits(node)

    def _bits(self, node: Any) -> None:
        from edgecv.binary.reference import unpacked

        names = [*node.input, *[""] * 12][:12]
        x = self._at(names[0])
        numbers = next(list(a.ints) for a in node.attribute if a.name == "shape")
        _, _, channels, filters, *rest = numbers
        about = {"kernel": tuple(rest[0:2]), "stride": tuple(rest[2:4]),
                 "dilation": tuple(rest[4:6]), "pads": tuple(rest[6:10]),
                 "groups": rest[10]}  # fmt: skip
        own = channels // rest[10]
        constants = {}
        for role, name in (("w", names[1]), ("mask", names[2])):
            if name:
                ones = unpacked(self.values[name], own)
                if x.order and own > 1:  # a dense layer behind a flattened image
                    high, wide, deep = x.order
                    ones = ones.reshape(filters, deep, high, wide).transpose(0, 2, 3, 1)
                    ones = ones.reshape(filters, 1, 1, own)
                constants[role] = words(ones)
        shape = outputs(x, about, filters)
        if node.op_type == "BinaryBits":
            constants |= {"least": self.values[names[3]], "flip": self.values[names[4]]}
            self._step(node, "conv_bits", [x.name], shape, "bits", constants=constants, about=about)
            return
        roles = ("scale", "bias", "", "", "before", "slope", "after", "border", "flip")
        for role, name in zip(roles, names[3:], strict=True):
            if role and name:
                constants[role] = self.values[name]
        added = [self._float(n) for n in names[5:7] if n]
        about["real"] = True
        made = self._step(
            node, "conv_bits", [x.name, *added], shape, constants=constants, about=about
        )
        if node.op_type == "BinaryBoth":
            made.outputs.append(self._new(node.output[1], shape, "bits"))

    def _halve(self, node: Any) -> None:
        high, wide, own, filters = next(list(a.ints) for a in node.attribute if a.name == "size")
        self._step(node, "halve", [self._float(node.input[0])],
                   (-(-high // 2), -(-wide // 2), filters),
                   about={"times": filters // own})  # fmt: skip
