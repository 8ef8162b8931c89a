"""Costly activations of a float ONNX graph, and cheaper ones in their place.

    silu, mish, gelu  →  hardswish  x clip(x / 6 + 1/2, 0, 1)      (Howard et al., ICCV 2019)
    all of these      →  relu6      min(max(x, 0), 6), relu  max(x, 0)

What an activation costs goes with the numbers it makes, so that the largest maps pay most. Which to
replace: named ones, or a share of all numbers, where those go first whose replacement alone harms
the network's answers least for each number that becomes cheaper.

    harm_a = mean over tensors of Σ w (t − t_a)² / Σ w t²     t: what the network answers

The weights that were trained with the old functions do not fit the new ones: what follows is
`edgecv.methods.restructuring.refitting` and `edgecv.methods.distillation.unlabelled`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import runner
from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.bounded import BOUNDS
from edgecv.graphs.onnx.cut import cut
from edgecv.graphs.onnx.draft import Draft, inferred
from edgecv.graphs.onnx.epilogues import epilogues
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.names import layer_name
from edgecv.methods.distillation.relevance import probabilities, weights
from edgecv.methods.quantize.onnx_fused import tail
from edgecv.methods.restructuring import Activation
from edgecv.models.layer_selection import named

# What each takes the place of; nothing is replaced by what costs as much.
REPLACES: dict[str, tuple[str, ...]] = {
    "hardswish": ("silu", "mish", "gelu"),
    "relu6": ("silu", "mish", "gelu", "hardswish"),
    "relu": ("silu", "mish", "gelu", "hardswish"),
}


@dataclass(frozen=True)
class Place:
    """An activation that can be replaced.

    tensor:   what it gives. kind: a key of `epilogues.FUNCTIONS`
    names:    what users may call it: the tensor, its nodes, the layer in front of it
    elements: numbers that it makes of one image
    """

    tensor: str
    kind: str
    names: tuple[str, ...]
    elements: int


def places(model: Any, into: Activation) -> list[Place]:
    """The activations of a float onnx.ModelProto that `into` can replace, in the file's order."""
    shapes, index = inferred(model), Index(model.graph)
    found = []
    for one in epilogues(model):
        if one.kind not in REPLACES[into]:
            continue
        maker = index.makers.get(one.input)
        names = [one.output, *(n.name for n in one.nodes if n.name)]
        names += [layer_name(maker), maker.name] if maker is not None else []
        elements = math.prod(shapes.get(one.output, (0,)))
        found.append(
            Place(one.output, one.kind, tuple(dict.fromkeys(filter(None, names))), elements)
        )
    return found


def chosen(
    found: Sequence[Place],
    layers: Sequence[str],
    share: float,
    harm: Mapping[str, float],
    where: str,
) -> list[Place]:
    """Which to replace, in the file's order.

    layers: names or patterns (`edgecv.models.layer_selection`); () is all
    share: of the numbers that all of those make, at most, by the least harm for each number;
    what does not fit is left out
    harm: by tensor; read where share is below 1
    Raises RecipeError: a name that means nothing; UnsupportedError: nothing is left to replace.
    """
    if layers:
        meant = named(layers, [name for place in found for name in place.names], where)
        found = [place for place in found if meant.intersection(place.names)]
    room = share * sum(place.elements for place in found)
    taken: set[str] = set()
    order = found
    if share < 1:
        order = sorted(found, key=lambda p: (harm[p.tensor] / max(p.elements, 1), p.tensor))
    for place in order:
        if place.elements <= room or share == 1:
            taken.add(place.tensor)
            room -= place.elements
    if not taken:
        what = "has no activation that this would make cheaper"
        raise UnsupportedError(where, what, "SiLU, Mish, GELU and HardSwish are replaced")
    return [place for place in found if place.tensor in taken]


def replaced(model: Any, tensors: Collection[str], into: Activation) -> Any:
    """A copy of an onnx.ModelProto with `into` in the place of those activations.

    tensors: what they give; the names stay, so that weights and tensors are found again
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    draft = Draft(made, "activations")
    for one in epilogues(made):
        if one.output not in tensors or one.kind not in REPLACES[into]:
            continue
        end = one.nodes[-1]
        node = cheaper_node(draft, into, one.input, one.output, one.output)
        node.name = end.name or one.output
        draft.before(end, node)
        for old in one.nodes:
            draft.remove(old)
    draft.drop_unread()
    return made


def cheaper_node(draft: Draft, into: Activation, x: str, output: str, name: str) -> Any:
    """The node of `into`, of tensor x. name: what its constants are called after"""
    inputs = [x]
    if into == "relu6":
        bounds = (("low", 0.0), ("high", 6.0))
        inputs += [draft.hold(f"{name}/{n}", np.float32(v)) for n, v in bounds]
    op = {"hardswish": "HardSwish", "relu6": "Clip", "relu": "Relu"}[into]
    return draft.make(op, inputs, output)


def quantities(model: Any) -> list[str]:
    """What the network answers, one tensor for each quantity: what its last products give, or a
    function with bounds behind them (a sigmoid), before anything joins, turns or decodes them."""
    index = Index(model.graph)
    behind = {name for node in tail(model) for name in node.output}
    found: dict[str, None] = {}
    todo, seen = [output.name for output in model.graph.output], set[str]()
    while todo:
        name = todo.pop()
        node = index.makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if name not in behind or node.op_type in BOUNDS:
            found[name] = None
        else:
            todo += [n for n in node.input if n in index.makers]
    order = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    return sorted(found, key=order.__getitem__)


def ended(model: Any, tensors: Sequence[str], size: tuple[int, int] | None = None) -> Any:
    """A copy that ends at those tensors.

    size: (height, width) of the image it takes instead
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    if size is not None:
        dims = made.graph.input[0].type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = size
    cut(made, tensors, (), "activations")
    del made.graph.value_info[:]
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    shaped: Any = onnx.shape_inference.infer_shapes(made)
    return shaped


class Answers:
    """What a float onnx.ModelProto answers to images (C, H, W) float32: its `quantities`."""

    def __init__(self, model: Any, images: Iterable[np.ndarray]) -> None:
        self.ends, self._images = quantities(model), list(images)
        self._own = self._of(model)
        probable = probabilities(model, self.ends)
        self._weights = [weights(self.ends, own, probable) for own in self._own]

    def error(self, other: Any) -> float:
        """The mean over the quantities of Σ w (t − t')² / Σ w t², t' of another model, w what each
        place matters (`edgecv.methods.distillation.relevance`)."""
        return self.error_of(self._of(other))

    def error_of(self, answers: Sequence[Sequence[np.ndarray]]) -> float:
        """The same of another model's answers, for each image those of `ends`."""
        noise, power = np.zeros(len(self.ends)), np.full(len(self.ends), 1e-12)
        for own, found, by in zip(self._own, answers, self._weights, strict=True):
            for i, (t, t_, w) in enumerate(zip(own, found, by, strict=True)):
                noise[i] += (w * np.square(t - t_, dtype=np.float64)).sum()
                power[i] += (w * np.square(t, dtype=np.float64)).sum()
        return float((noise / power).mean())

    def _of(self, model: Any) -> list[list[np.ndarray]]:
        run = runner(ended(model, self.ends))
        return [run(image) for image in self._images]
