"""min_{a, b, c, d} E |f(x) − c g(b x + a) − d|², channel by channel: g in the place of f.

Where a channel's numbers lie decides how well one function stands for another: near 0 SiLU is
HardSwish of 1.5 x, far from it HardSwish of x. b and a are exact in the layer that makes x, c and d
in the layers that read the activation, so that the network keeps its operators; d only where a
reader pads nothing, for the padding is 0. c and d are found in closed form, b and a on a grid.

While the network learns, c and d stand as a product and a sum behind the activation, so that every
tensor means what it meant; `folded` puts them into the readers at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import runner
from edgecv.graphs.onnx.draft import Draft, attributes, inferred
from edgecv.graphs.onnx.epilogues import FUNCTIONS, Epilogue, epilogues
from edgecv.graphs.onnx.geometry import geometry, groups
from edgecv.graphs.onnx.index import Index
from edgecv.methods.restructuring import Activation
from edgecv.methods.restructuring.activations import Place, ended, replaced

IMAGES, PLACES = 32, 200  # looked at, and places of each of their maps
NUMBERS = 640  # that stand for what a channel holds, at most
STRETCH = np.geomspace(0.5, 4, 19)  # b
SHIFT = np.linspace(-1.2, 1.2, 13)  # a
STEEPEST = 1e-3  # c is above it: a channel keeps its sign
FACTOR, ADDEND = "/matched_c", "/matched_d"  # behind the activation's name
PASSING = ("MaxPool", "Resize", "Identity", "GlobalAveragePool")  # commute with c > 0 and d

CHEAP: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hardswish": FUNCTIONS["hardswish"][0],
    "relu6": lambda x: np.clip(x, 0, 6),
    "relu": lambda x: np.maximum(x, 0),
}

Aims = dict[str, tuple[np.ndarray, np.ndarray]]  # tensor → (b, a), each (C,)


@dataclass(frozen=True)
class Match:
    """b, a, c, d: float32 (C,). source: the tensor that the activation is of, which a convolution
    of its own makes. scaled: whether what reads the activation can take c (and d, else 0)"""

    source: str
    b: np.ndarray
    a: np.ndarray
    c: np.ndarray
    d: np.ndarray
    scaled: bool


def matches(
    model: Any, found: Sequence[Place], into: Activation, images: np.ndarray, seed: int = 0
) -> dict[str, Match]:
    """The match of each of those activations, by its tensor; none where no convolution makes x.

    model: onnx.ModelProto. images: float32 (N, C, H, W)
    """
    own = {e.output: e for e in epilogues(model)}
    index, shapes = Index(model.graph), inferred(model)
    apt = [p.tensor for p in found if _maker(index, own[p.tensor]) is not None]
    seen = _sampled(model, [own[tensor].input for tensor in apt], images, seed)
    made = {}
    for tensor in apt:
        scaled, shifted = absorbs(index, shapes, tensor)
        x, shares = in_short(seen[own[tensor].input])
        wanted = FUNCTIONS[own[tensor].kind][-1]
        line = fitted(wanted, CHEAP[into], x, scaled, shifted, shares)
        made[tensor] = Match(own[tensor].input, *line, scaled)
    return made


def matched(
    model: Any, taken: Sequence[Place], into: Activation, known: Mapping[str, Match]
) -> tuple[Any, Aims]:
    """A copy of an onnx.ModelProto with `into` in those places, matched; and what is now wanted of
    the tensors in front of them: b x + a of what they were."""
    made = replaced(model, [place.tensor for place in taken], into)
    index, draft = Index(made.graph), Draft(made, "activations")
    aims: Aims = {}
    for tensor in (place.tensor for place in taken if place.tensor in known):
        one = known[tensor]
        _rewrite(draft, index.makers[one.source], one.b[:, None, None, None], one.b, one.a)
        aims[one.source] = one.b, one.a
        if one.scaled:
            _behind(draft, index.makers[tensor], tensor, one.c, one.d)
    draft.drop_unread()
    return made, aims


def in_short(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A few numbers of each row and what share of it each stands for: (C, samples) → (C, n), (n,).

    Neighbours in order have their mean, more of them in the middle: the functions are smooth, but
    the error lies in the rare numbers at the ends.
    """
    count = x.shape[1]
    half = np.unique(np.geomspace(1, count / 2, NUMBERS // 2).astype(int))
    inner = half[half < count / 2]
    starts = np.unique(np.concatenate([[0], inner, count - inner]))
    sizes = np.diff([*starts, count])
    means = np.add.reduceat(np.sort(x, axis=1), starts, axis=1) / sizes
    return means, sizes / count


def fitted(
    wanted: Callable[[np.ndarray], np.ndarray],
    given: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    scaled: bool = True,
    shifted: bool = True,
    shares: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """b, a, c, d, each float32 (C,), of E |wanted(x) − c given(b x + a) − d|² over x (C, samples).

    scaled, shifted: whether c and d are free; else they are 1 and 0
    shares: of each column of x, (samples,), of sum 1; default: all alike
    """
    by = np.full(x.shape[1], 1 / x.shape[1]) if shares is None else shares
    target = wanted(x)
    least = np.full(len(x), np.inf)
    best = np.tile(np.array([1.0, 0.0, 1.0, 0.0])[:, None], len(x))
    mean = target @ by
    for b in STRETCH:
        for a in SHIFT:
            y = given(b * x + a)
            c, d = np.ones(len(x)), np.zeros(len(x))
            if shifted and scaled:
                middle = y @ by
                off = y - middle[:, None]
                c = (off * target) @ by / (np.square(off) @ by + 1e-12)
                c = np.maximum(c, STEEPEST)
                d = mean - c * middle
            elif scaled:
                c = np.maximum((y * target) @ by / (np.square(y) @ by + 1e-12), STEEPEST)
            error = np.square(c[:, None] * y + d[:, None] - target) @ by
            better = error < least
            least = np.where(better, error, least)
            best[:, better] = np.stack([np.full(len(x), b), np.full(len(x), a), c, d])[:, better]
    b, a, c, d = best.astype(np.float32)
    return b, a, c, d


def absorbs(index: Index, shapes: Mapping[str, tuple[int, ...]], tensor: str) -> tuple[bool, bool]:
    """Whether those that read a tensor can take a factor for each channel, and an addend too."""
    todo, addend = [tensor], True
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in index.ends or not index.readers[name] or len(shapes.get(name, ())) != 4:
            return False, False
        for node in index.readers[name]:
            if node.op_type == "Conv" and node.input[0] == name and _own(index, node):
                addend &= not any(geometry(node)[2]) and not _pads_itself(node)
            elif node.op_type in PASSING or _joins(node):
                todo.append(node.output[0])
            else:
                return False, False
    return True, addend


def folded(model: Any) -> Any:
    """A copy of an onnx.ModelProto where what stood behind matched activations is in the layers
    that read them. It computes the same."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    draft, shapes = Draft(made, "activations"), inferred(made)
    lines: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # tensor → its c and d, each (C,)
    for node in list(made.graph.node):
        if node.op_type in ("Mul", "Add") and node.input[1].endswith((FACTOR, ADDEND)):
            value = draft.constant(node.input[1])
            assert value is not None
            c, d = lines.get(node.input[0], (np.ones(value.size), np.zeros(value.size)))
            flat = value.astype(np.float64).ravel()
            lines[node.output[0]] = (c * flat, d) if node.op_type == "Mul" else (c, d + flat)
        elif any(name in lines for name in node.input):
            if node.op_type == "Conv":
                _fold(draft, node, *lines[node.input[0]])
                continue
            each = [
                lines.get(n, (np.ones(shapes[n][1]), np.zeros(shapes[n][1])))
                for n in node.input
                if n and (_joins(node) or n == node.input[0])
            ]
            joined = (np.concatenate([e[0] for e in each]), np.concatenate([e[1] for e in each]))
            lines[node.output[0]] = joined
    for node in list(made.graph.node):
        if node.op_type in ("Mul", "Add") and node.input[1].endswith((FACTOR, ADDEND)):
            _bypass(made.graph, node)
            draft.remove(node)
    draft.drop_unread()
    return made


def _sampled(
    model: Any, tensors: Sequence[str], images: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """What the channels of each tensor hold on some images: float64 (C, samples) by its name."""
    rng, rows = np.random.default_rng(seed), {name: list[np.ndarray]() for name in tensors}
    run = runner(ended(model, tensors)) if tensors else None
    for image in images[np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)]:
        for name, values in zip(tensors, run(image) if run else (), strict=True):
            flat = values[0].reshape(values.shape[1], -1)
            at = rng.choice(flat.shape[1], min(PLACES, flat.shape[1]), replace=False)
            rows[name].append(flat[:, at].astype(np.float64))
    return {name: np.concatenate(found, 1) for name, found in rows.items()}


def _maker(index: Index, activation: Epilogue) -> Any:
    """The convolution, with numbers of its own, that makes it for the activation alone."""
    node, inside = index.makers.get(activation.input), {n.output[0] for n in activation.nodes}
    alone = inside.issuperset(n.output[0] for n in index.readers[activation.input])
    if node is None or node.op_type != "Conv" or not alone or activation.input in index.ends:
        return None
    return node if len(node.input) == 3 and _own(index, node) else None


def _own(index: Index, node: Any) -> bool:
    return all(n in index.held and index.uses[n] == 1 for n in node.input[1:] if n)


def _pads_itself(node: Any) -> bool:
    return attributes(node).get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _joins(node: Any) -> bool:
    return node.op_type == "Concat" and attributes(node).get("axis") == 1


def _rewrite(
    draft: Draft, layer: Any, weight: np.ndarray, bias: np.ndarray | float, addend: np.ndarray
) -> None:
    """A convolution with its weights and its bias times those, and a sum on top of the bias."""
    for i, factor, more in ((1, weight, 0.0), (2, bias, addend)):
        values = draft.constant(layer.input[i])
        assert values is not None
        made = values.astype(np.float64) * factor + more
        layer.input[i] = draft.hold(layer.input[i], made.astype(values.dtype))


def _behind(draft: Draft, node: Any, tensor: str, c: np.ndarray, d: np.ndarray) -> None:
    """A product and a sum behind an activation; what they give has its name."""
    given = draft.unique(f"{tensor}/matched")
    scaled = draft.unique(f"{tensor}/matched_scaled")
    factor = draft.hold(f"{tensor}{FACTOR}", c.reshape(1, -1, 1, 1))
    addend = draft.hold(f"{tensor}{ADDEND}", d.reshape(1, -1, 1, 1))
    node.output[0] = given
    product = draft.make("Mul", [given, factor], scaled)
    draft.behind(node, product, draft.make("Add", [scaled, addend], tensor))


def _fold(draft: Draft, layer: Any, c: np.ndarray, d: np.ndarray) -> None:
    """W (c x + d) + b = (W c) x + (W d + b)"""
    weight = draft.constant(layer.input[1])
    assert weight is not None
    if len(layer.input) < 3:
        layer.input.append(
            draft.hold(f"{layer.input[1]}/bias", np.zeros(len(weight), weight.dtype))
        )
    parts = groups(layer)
    # (outputs, inputs of one group): what each output's weights read
    read = np.repeat(np.stack([c, d]).reshape(2, parts, -1), len(weight) // parts, axis=1)
    factor, addend = (r.reshape(*r.shape, *[1] * (weight.ndim - 2)) for r in read)
    moved = (weight.astype(np.float64) * addend).reshape(len(weight), -1).sum(1)
    _rewrite(draft, layer, factor, 1.0, moved)


def _bypass(graph: Any, node: Any) -> None:
    """Whoever reads what it gives reads what it is given."""
    for other in graph.node:
        for i, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[i] = node.input[0]
