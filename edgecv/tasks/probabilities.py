"""What training minimises of values that are logits or probabilities, and which they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

# Behind a sigmoid they change no value.
_KEEPS = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "T",
          "Clone", "Permute", "Transpose")  # fmt: skip


def cross_entropy(
    where: str, values: Tensor, wanted: Tensor, scores: str, weight: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy, the mean, weighted; a scalar.

    values: as a network gave them, any shape; wanted: 0 or 1, likewise; scores: what values are,
    "logits" or "probabilities". Raises ModelError: they end in a sigmoid and are said to be logits,
    or are no probabilities.
    """
    from torch.nn import functional

    if scores == "logits":
        check_logits(where, values, "scores: probabilities")
        return functional.binary_cross_entropy_with_logits(values, wanted, weight=weight)
    held = values.detach()
    low, high = (float(held.min()), float(held.max())) if held.numel() else (0.0, 1.0)
    if not 0 <= low <= high <= 1:
        what = f"outputs lie in {low:.3g}..{high:.3g}, which are no probabilities"
        raise ModelError(where, what, "leave `scores: probabilities` out of the recipe's task")
    return functional.binary_cross_entropy(values, wanted, weight=weight)


def check_logits(where: str, values: Tensor, say: str) -> None:
    """Raises ModelError: the values are a sigmoid's, as the graph of their gradient tells."""
    made = values.grad_fn
    while made is not None and made.name().startswith(_KEEPS):
        made = made.next_functions[0][0] if made.next_functions else None
    if made is not None and made.name().startswith("SigmoidBackward"):
        what = "the network ends in a sigmoid, and its outputs are taken for logits"
        raise ModelError(where, what, f"say `{say}` in the recipe's task, or leave the sigmoid out")
