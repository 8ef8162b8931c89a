"""What a forward does that no exported graph can: decide by the values of the image.

A graph is what one run did. Where the forward asks a tensor for its value (`if x.sum() > 0`,
`float(x.max())`, `x.numpy()`) the graph holds the answer for the image that was traced, and is
wrong for others without a word. Shapes may be asked for: they are the same for every image.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgecv.behaviour import tensors

_READS = (
    "__bool__ __int__ __float__ __index__ __array__ __contains__ item tolist numpy is_nonzero "
    "equal allclose"
)
READS = frozenset(_READS.split())
ROOM, LIBRARY = Path(__file__).parents[2], Path(torch.__file__).parent


class _Asked(TorchFunctionMode):
    """Follows what is computed from the input, and notes the first place that reads its values."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        # an id is a tensor's while it lives
        self.known, self.alive, self.found = set(map(id, given)), list(given), ""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        given = (*args, *(kwargs or {}).values())
        depends = any(id(t) in self.known for t in tensors(given))
        if depends and not self.found and getattr(func, "__name__", "") in READS:
            self.found = _place()
        result = func(*args, **(kwargs or {}))
        for made in tensors(result) if depends else ():
            self.known.add(id(made))
            self.alive.append(made)
        return result


def decision(module: nn.Module, *given: Tensor) -> str:
    """Where a forward in eval mode reads values of its inputs, or "".

    As "net.py:12 (`if x.sum() > 0:`)".
    """
    with torch.no_grad(), _Asked(given) as asked:
        module(*given)
    return asked.found


def _place() -> str:
    """The line of the user's own code that is running; "" where it is an assertion."""
    frames = [f for f in traceback.extract_stack() if not _ours(Path(f.filename))]
    if not frames or (line := frames[-1].line or "").startswith("assert"):
        return ""
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} (`{line}`)"


def _ours(path: Path) -> bool:
    return path.is_relative_to(ROOM) or path.is_relative_to(LIBRARY) or path.name.startswith("<")
