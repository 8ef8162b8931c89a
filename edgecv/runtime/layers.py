"""Which layer of the model is it? Read from the names that exporters leave in a compiled file.

    "stage1.0.conv1.weight"             a parameter's name, PyTorch's own          stage1.0.conv1
    "/stage1/stage1.0/conv1/Conv"       a node's scope, TorchScript's exporter     stage1.0.conv1
    "onnx::Conv_89", "val_12"           made up                                    unknown: ""

A scope leaves out containers that are indexed and never called (`ModuleDict`, a `ModuleList`
inside a module of the same name), so a parameter's name goes first where both are there.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

# The first calls allocate and fill caches.
WARMUP = 5

# What ONNX Runtime adds to a weight's name when it folds into it, and when it quantizes it.
_FOLDED = re.compile(r"^(?:Conv(?:Bn|Mul|Add)Fusion_[WB]_)+")
_QUANTIZED = re.compile(r"_(?:quantized|scale|zero_point)$")
_PATH = re.compile(r"\w+(?:\.\w+)*")
# What OpenVINO adds to the name of a node that it takes apart.
_PARTS = re.compile(r"/(?:WithoutBiases|DequantizationMultiply|Multiply|fq_\w+)$")
_OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]*(?:_\d+)?")
_SCOPE = re.compile(r"\w+(?:\.\d+)*")


def layer_of(weights: Iterable[str], nodes: Iterable[str]) -> str:
    """The layer's name from the names of its parameters, else from its nodes' scopes, else ""."""
    found = (*map(from_weight, weights), *map(from_scope, nodes))
    return next(filter(None, found), "")


def from_weight(name: str) -> str:
    """ "stage1.0.conv1" from "stage1.0.conv1.weight", quantized or folded; "" from any other."""
    name = _QUANTIZED.sub("", _FOLDED.sub("", name))
    path, _, kind = name.rpartition(".")
    return path if kind in ("weight", "bias") and _PATH.fullmatch(path) else ""


def from_scope(name: str) -> str:
    """ "a.0.conv" from "/a/a.0/conv/Conv"; "" where the name is no such scope.

    A numbered child carries its parents' names back to the last that is not a number, once more:
    "/a/a.0" is `a.0` where `a` is called, and "/a.0" where it is only indexed.
    """
    while (shorter := _PARTS.sub("", name)) != name:
        name = shorter
    root, *scopes = name.split("/")
    if root or not scopes or not _OPERATOR.fullmatch(scopes.pop()):
        return ""
    path: list[str] = []
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            return ""
        *parents, last = scope.split(".")
        inside = parents and path[-len(parents) :] == parents
        path += [last] if inside else [*parents, last]
    return ".".join(path)


def typical_ms(calls_us: Sequence[float]) -> float:
    """The mean of the middle half of the calls, in milliseconds from microseconds.

    A median that says more: profilers count whole microseconds, and the median of 2, 2, 3, 3, 3 is
    one of them. What a call lost to other processes is in the quarter that is left out.
    """
    ordered = np.sort(np.asarray(calls_us, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean()) / 1e3
