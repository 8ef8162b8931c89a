"""Putting compact blocks in the place of convolutions, and cheap activations in place of costly.

blocks       which blocks there are, and which convolution they fit
fitting      a block is started from the kernel it replaces, and fitted to its outputs
replacing    the edit that is replayed on load; it needs neither of the above's data
activations  which activations there are in an ONNX graph, and others in their place
matching     each cheap one shifted and scaled, channel by channel, until it is nearest to the old
harms        what each replacement alone does to the answers
refitting    its layers, fitted to what they gave before
cheaper      the step: replaced, fitted, distilled without labels
"""

from __future__ import annotations

from typing import Any, Literal

Into = Literal["separable", "grouped", "igcv1", "igcv2", "igcv3", "bottleneck"]
Activation = Literal["hardswish", "relu6", "relu"]


def describe(edit: dict[str, Any]) -> str:
    """One line of history. Imports nothing heavy."""
    found = edit["modules"]
    kinds = "/".join(sorted({data["into"] for data in found.values()}))
    return f"{edit['step']}: {kinds} in place of {len(found)} convolutions: {', '.join(found)}"
