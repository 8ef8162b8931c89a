"""What becomes one operator that counts: a convolution of signs and what stands behind it.

Conv of ±s_f, 0 (→ Mul, Add) (→ Add) (→ Add) (→ RPReLU or Relu)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecv.binary.countable import Layer, Signs


@dataclass
class Unit:
    """One operator to be: what it reads, what it takes over, and what its value is called.

    adds: up to two values; act: before, slope, after by filter
    """

    name: str
    layer: Layer
    x: str
    least: np.ndarray
    out: str
    adds: list[str] = field(default_factory=list)
    act: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    relu: bool = False
    signs: list[np.ndarray] = field(default_factory=list)  # borders that its value is compared with
    real: bool = False  # whether its value is read as it is
    last: bool = False  # whether its value has channels last


def grown(signs: Signs, unit: Unit) -> Unit:
    """With the sums and the activation behind it, as far as they are its own."""
    _scaled(signs, unit)
    while (
        len(signs.sizes.get(unit.out, ())) == 4
        and (node := signs.only_reader(unit.out)) is not None
    ):
        other = next((i for i in node.input if i != unit.out), "")
        if node.op_type != "Add" or len(unit.adds) == 2 or not other:
            break
        if other in signs.values or signs.sizes.get(other) != signs.sizes.get(unit.out):
            break
        unit.adds.append(other)
        _take(signs, unit, node)
    return _activated(signs, unit)


def _scaled(signs: Signs, unit: Unit) -> None:
    """A factor and a constant by filter, where its own are 1 and 0: no sum is rounded anew."""
    layer, filters = unit.layer, unit.layer.shape.filters
    for op, free in (("Mul", (layer.scale == 1).all() and not layer.bias.any()), ("Add", True)):
        node = signs.only_reader(unit.out)
        if node is None or node.op_type != op or not free or unit.layer.bias.any():
            continue
        constant = next((i for i in node.input if i in signs.values), "")
        found = signs.by_channel(constant, filters, len(signs.sizes.get(unit.out, ())))
        if found is None or (op == "Mul" and not (found != 0).all()):
            continue
        unit.layer = replace(layer, scale=found) if op == "Mul" else replace(unit.layer, bias=found)
        _take(signs, unit, node)


def _activated(signs: Signs, unit: Unit) -> Unit:
    filters, rank = unit.layer.shape.filters, len(signs.sizes.get(unit.out, ()))
    node = signs.only_reader(unit.out)
    if node is not None and node.op_type == "Relu":
        unit.relu = True
        _take(signs, unit, node)
        return unit
    nodes, before, after = [], np.zeros(filters, np.float32), np.zeros(filters, np.float32)
    out = unit.out
    if node is not None and node.op_type == "Sub" and node.input[0] == out:
        found = signs.by_channel(node.input[1], filters, rank)
        if found is None:
            return unit
        before, out = found, node.output[0]
        nodes.append(node)
        node = signs.only_reader(out)
    if node is None or node.op_type != "PRelu" or node.input[0] != out:
        return unit
    slope = signs.by_channel(node.input[1], filters, rank)
    if slope is None:
        return unit
    nodes.append(node)
    node = signs.only_reader(node.output[0])
    if node is not None and node.op_type == "Add":
        constant = next((i for i in node.input if i in signs.values), "")
        found = signs.by_channel(constant, filters, rank)
        if found is not None:
            after = found
            nodes.append(node)
    unit.act = (before, slope, after)
    for own in nodes:
        _take(signs, unit, own)
    return unit


def _take(signs: Signs, unit: Unit, node: Any) -> None:
    signs.taken.add(node.output[0])
    unit.out = node.output[0]


def look(signs: Signs, units: Mapping[str, Unit]) -> set[str]:
    """Note in each unit who reads it: signs, sums of other units, the rest of the graph; the values
    that units add with channels last.

    units: by their value
    """
    for unit in units.values():
        if (source := units.get(unit.x)) is not None:
            known = {v.tobytes() for v in source.signs}
            if unit.least.tobytes() not in known:
                source.signs.append(unit.least)
    for unit in units.values():
        if others(signs, unit.out):
            unit.real = True
        for name in unit.adds:
            past = signs.halved(name)
            source = units.get(past[0] if past else name)
            if source is not None:
                source.real = source.last = True
            if source is not None or past:  # an engine's own pooling adds in another order
                unit.last = True
    lasts = [unit for unit in units.values() if unit.last]
    return {(signs.halved(name) or (name,))[0] for unit in lasts for name in unit.adds}


def others(signs: Signs, value: str) -> bool:
    """Whether anything reads a value that is not a sign of a unit, and no sum that one took."""
    return value in signs.ends or any(
        n.output[0] not in signs.taken and not _is_sign(signs, n) and not _is_past(signs, n)
        for n in signs.readers[value]
    )


def _is_sign(signs: Signs, node: Any) -> bool:
    """A comparison that only units read."""
    if node.op_type != "GreaterOrEqual":
        return False
    wheres = signs.readers[node.output[0]]
    return all(
        w.op_type == "Where" and all(n.output[0] in signs.taken for n in signs.readers[w.output[0]])
        for w in wheres
    )


def _is_past(signs: Signs, node: Any) -> bool:
    """A pooling that only sums of units read."""
    out = node.output[0]
    repeated = [n.output[0] for n in signs.readers[out] if signs.halved(n.output[0])]
    return signs.halved(out) is not None and all(
        n.output[0] in signs.taken or n.output[0] in repeated
        for value in (out, *repeated) for n in signs.readers[value]
    )  # fmt: skip
