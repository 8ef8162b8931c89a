"""The window of convolutions and pools, every attribute written as numbers.

SAME:  out = ceil(n / s), total = max((out - 1) s + (k - 1) d + 1 - n, 0), halved; the odd one
goes to the end for SAME_UPPER and to the beginning for SAME_LOWER
VALID: no pads

For a transposed convolution SAME means out = n s, and `output_shape` means what it says:
total = (n - 1) s + (k - 1) d + 1 + output_padding - out. Where more comes out than the window
gives, what is missing is output_padding. Source: onnx/docs/Operators.md, Conv, ConvTranspose,
MaxPool.
"""

from __future__ import annotations

from typing import Any

from edgecv.graphs.onnx.draft import Draft, attributes, write_attributes

WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
SAME = ("SAME_UPPER", "SAME_LOWER")


def windows(draft: Draft) -> None:
    for node in draft.nodes(*WINDOWS):
        given = attributes(node)
        kernel = given.get("kernel_shape")
        weighs = node.op_type.startswith("Conv")
        if weighs:
            kernel = list(draft.shape(node, node.input[1])[2:])
        if not kernel or len(kernel) == 0:
            draft.refuse(node, "has no kernel_shape")
        ones, none = [1] * len(kernel), [0] * (2 * len(kernel))
        found: dict[str, Any] = {
            "kernel_shape": list(kernel),
            "strides": list(given.get("strides") or ones),
            "pads": list(given.get("pads") or none),
            "auto_pad": None,
        }
        dilations = list(given.get("dilations") or ones)
        if weighs or (node.op_type == "MaxPool" and draft.opset >= 10):
            found["dilations"] = dilations
        elif draft.opset >= 19:  # ONNX Runtime's QLinearAveragePool knows no such attribute
            found["dilations"] = None if dilations == ones else dilations
        if weighs:
            found["group"] = given.get("group", 1)
        auto = given.get("auto_pad", "NOTSET")
        if node.op_type == "ConvTranspose":
            _transposed(draft, node, given, found)
        elif auto == "VALID":
            found["pads"] = none
        elif auto in SAME:
            found["pads"] = _same(draft.shape(node, node.input[0])[2:], found, auto)
            found["ceil_mode"] = None  # out is ceil(n / s) already
        write_attributes(node, found)


def _same(size: tuple[int, ...], found: dict[str, Any], auto: str) -> list[int]:
    steps = zip(
        size, found["kernel_shape"], found["strides"],
        found.get("dilations") or [1] * len(size), strict=True,
    )  # fmt: skip
    return halved([max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in steps],
                  auto == "SAME_UPPER")  # fmt: skip


def halved(totals: list[int], upper: bool) -> list[int]:
    """Pads (begins, then ends) of those totals."""
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return small + large if upper else large + small


def _transposed(draft: Draft, node: Any, given: dict[str, Any], found: dict[str, Any]) -> None:
    """Pads and output_padding of a transposed convolution, in place."""
    auto, kernel = given.get("auto_pad", "NOTSET"), found["kernel_shape"]
    more = list(given.get("output_padding") or [0] * len(kernel))
    wanted = list(given.get("output_shape") or [])[-len(kernel) :]
    size = draft.shape(node, node.input[0])[2:] if wanted or auto in SAME else ()
    if auto in SAME and not wanted:
        wanted = [n * s for n, s in zip(size, found["strides"], strict=True)]
    if wanted:
        full = [
            (n - 1) * s + (k - 1) * d + 1 + m
            for n, s, k, d, m in zip(
                size, found["strides"], kernel, found["dilations"], more, strict=True
            )
        ]
        totals = [whole - out for whole, out in zip(full, wanted, strict=True)]
        more = [m + max(-t, 0) for m, t in zip(more, totals, strict=True)]
        found["pads"] = halved([max(t, 0) for t in totals], auto == "SAME_UPPER")
    elif auto == "VALID":
        found["pads"] = [0] * (2 * len(kernel))
    # what is cut off at the end and padded again: only the difference is done
    ends = found["pads"][len(kernel) :]
    both = [min(e, m) for e, m in zip(ends, more, strict=True)]
    if any(both) and found["pads"][: len(kernel)] != ends:
        found["pads"][len(kernel) :] = [e - b for e, b in zip(ends, both, strict=True)]
        more = [m - b for m, b in zip(more, both, strict=True)]
    found |= {"output_shape": None, "output_padding": more}
