"""What a network is traced on: a tensor for each of its inputs, by name, in its forward's order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgecv.errors import ModelError

if TYPE_CHECKING:
    from edgecv.runtime.preprocess import Preprocess

INPUTS = "edgecv_inputs"  # the attribute of an imported network that names its inputs
TAKES = "takes"  # the fact of a Model that says what its inputs are, where it is no single image
Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def example_of(module: nn.Module, example: Example, where: str) -> dict[str, Tensor]:
    """One tensor is the image, called "input"; of several each is called as forward's argument.

    Raises ModelError: an image that is not float32 (1, C, H, W), an argument that forward does not
    take, one without a value that stands before one with it.
    """
    if isinstance(example, Tensor):
        if example.ndim != 4 or example.dtype != torch.float32:
            what = f"is {str(example.dtype).removeprefix('torch.')} {tuple(example.shape)}"
            raise ModelError(f"{where}: the example input", what, "float32 (N, C, H, W)")
        return {"input": example}
    taken = arguments(module)
    if isinstance(example, Mapping) and imported(module) is not None:
        return dict(example)
    if not isinstance(example, Mapping):
        if len(example) > len(taken):
            what = f"takes {len(taken)} inputs, {len(example)} given"
            raise ModelError(where, what, f"its forward has {', '.join(taken)}")
        return dict(zip(taken, example, strict=False))
    for name in example:
        if name not in taken:
            what = f"its forward takes no input {name!r}"
            raise ModelError(where, what, f"it takes {', '.join(taken) or 'none'}")
    wanted = [name for name in taken if name in example]
    if missing := [n for n in list(taken)[: len(wanted)] if n not in example]:
        what = f"input {missing[0]!r} has no shape, and stands before {wanted[-1]!r}"
        raise ModelError(where, what, f"give it too: --input {missing[0]}:1x3x224x224")
    return {name: example[name] for name in wanted}


def inputs_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of an imported network's inputs by its file's own names; {} of any other."""
    found: dict[str, tuple[int, ...]] = getattr(module, INPUTS, {})
    return found


def imported(module: nn.Module) -> dict[str, Tensor] | None:
    """Of a network that came from a file of several inputs: one for each, by the file's names."""
    shapes = inputs_of(module)
    image = [s for s in shapes.values() if len(s) == 4 and s[0] == 1]
    if not shapes or (len(shapes) == 1 and image):
        return None  # one image, which is called "input"
    return {name: torch.zeros(*shape) for name, shape in shapes.items()}


def examples(
    module: nn.Module, takes: Mapping[str, Any], preprocess: Preprocess, where: str
) -> dict[str, Tensor]:
    """What a user's network is traced on: zeros for the inputs that the user names, or one image.

    takes: {"input": {name: shape}, "batch": N}, each may be absent. Raises ModelError
    """
    if shapes := takes.get("input"):
        return zeros(module, shapes, where)
    size = (preprocess.channels, *preprocess.size)
    return {"input": torch.zeros(takes.get("batch", 1), *size)}


def zeros(module: nn.Module, shapes: Mapping[str, Sequence[int]], where: str) -> dict[str, Tensor]:
    """Float32 zeros of the shapes that the user gives by name, in forward's order."""
    given = {name: torch.zeros(*shape) for name, shape in shapes.items()}
    return example_of(module, given, where)


def arguments(module: nn.Module) -> dict[str, Any]:
    """forward's positional arguments and their defaults (`inspect.Parameter.empty`: none)."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(module.forward).parameters.values()
    return {p.name: p.default for p in found if p.kind in kinds}
