"""What a pickle would import, read from its opcodes. Nothing is unpickled.

A pickle is a program: GLOBAL names a function, REDUCE calls it. Tensors need a handful of names
(torch's own rebuilders and storages); any other name is somebody's code.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO

LEGACY = 5  # pickles one behind the other, in torch's format before zip archives
TENSORS = ("torch._utils", "torch.storage", "torch.serialization", "torch.nn.parameter")


def names(file: IO[bytes]) -> Iterator[str]:
    """ "module.name" of everything that the pickles at the file's place would import, in order.

    A name that is put together while it runs is "?". Raises ValueError: no pickle, or cut off.
    """
    for _ in range(LEGACY):
        before: list[str] = []  # strings that STACK_GLOBAL may take
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".", 1)
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(before[-2:]) if len(before) > 1 else "?"
                elif opcode.name.startswith("EXT"):
                    yield "?"
                elif isinstance(argument, str):
                    before.append(argument)
        except (ValueError, UnicodeDecodeError, OverflowError, MemoryError) as e:
            raise ValueError(f"no pickle, or cut off: {e}") from None
        place = file.tell()
        following = file.read(1)
        if following != b"\x80":
            return
        file.seek(place)


def foreign(found: Iterator[str]) -> list[str]:
    """Those that no tensor needs, once each."""
    return [name for name in dict.fromkeys(found) if not _of_tensors(name)]


def _of_tensors(name: str) -> bool:
    import torch

    module, _, leaf = name.rpartition(".")
    if name in ("collections.OrderedDict", "torch.Size", "torch.device", "torch.Tensor"):
        return True
    if module == "torch":
        return leaf.endswith("Storage") or isinstance(getattr(torch, leaf, None), torch.dtype)
    return module in TENSORS and leaf.startswith(("_rebuild", "_get_layout", "Untyped", "Typed"))
