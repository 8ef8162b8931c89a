"""An ONNX network of Q/DQ pairs, whoever made it, as `network.Network`.

    x ─ QuantizeLinear ─ DequantizeLinear ─ reader      rounded
    x ─────────────────────────────────── reader        not rounded

Every node is computed by itself, without the optimiser: what the file says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.run import plain
from edgecv.backends.onnxruntime.tables import DOMAIN
from edgecv.diagnosis.parity.for_onnx import drop_unread
from edgecv.diagnosis.parity.matching import Pair, match, unfused
from edgecv.diagnosis.parity.onnx_graph import PAIR
from edgecv.diagnosis.parity.onnx_network import OnnxNetwork, session
from edgecv.diagnosis.why.rounding.network import Tensor
from edgecv.errors import ModelError, UnsupportedError
from edgecv.graphs.onnx.epilogues import epilogues
from edgecv.graphs.onnx.geometry import groups
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import outputs_first

CLOSE = 0.1  # of a weight's energy: further from the float file's it is another network's weight
SHARES = ("Sigmoid", "Softmax", "HardSigmoid")  # between 0 and 1
INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
FREE = ("Relu", "Clip")  # what a grid that ends there does by itself
# What repeats numbers, each as it was.
MOVES = ("Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice",
         "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze")  # fmt: skip


class QdqNetwork:
    """content: the quantized file; floats: the float one. where: what errors call the first.

    Raises ModelError: a file is no ONNX network, or of another network. UnsupportedError: the file
    holds integer operators in place of Q/DQ pairs, or nothing quantized.
    """

    def __init__(self, content: bytes, floats: bytes, where: str) -> None:
        self.where = where
        form, other = OnnxNetwork(content, where), OnnxNetwork(floats, "the float network")
        self.model = form.model
        if odd := [n.op_type for n in self.model.graph.node if n.op_type in INTEGER]:
            what = f"holds integer operators ({odd[0]}), from which no rounding can be taken out"
            raise UnsupportedError(where, what, "quantize it to Q/DQ pairs (QuantFormat.QDQ)")
        if any(n.op_type == "Lookup" and n.domain == DOMAIN for n in self.model.graph.node):
            what = "looks up activations in tables of integers, from which no rounding can be taken"
            hint = "give the network as its quantizer left it, an .onnx file of Q/DQ pairs"
            raise UnsupportedError(where, what, hint)
        self._pairs = dict(_pairs(form))
        if not self._pairs:
            raise UnsupportedError(where, "rounds no activation", "give a quantized network")
        found = match(other, form)[0]
        self._floats, self.layers, self.unknown = _weights(form, other, found)
        self._taken = dict(_taken(form, other, found, self._pairs))
        self.tensors = tuple(_tensors(self._made((), False), self._pairs, form))
        self._watched: tuple[tuple[str, ...], Any] = ((), None)

    def session(self, rounded: Collection[str], weights: bool) -> Any:
        """See `Network`."""
        names = {a for t in self.tensors if t.name in rounded for a in (t.name, *t.also)}
        return plain({"model.onnx": self._made(names, weights).SerializeToString()})

    def values(self, feed: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, Any]:
        """See `Network`."""
        wanted = tuple(sorted(names))
        if self._watched[0] != wanted:
            model = self._made((), False)
            own = {i.name for i in model.graph.input} | {o.name for o in model.graph.output}
            for name in wanted:
                if name not in own:
                    model.graph.output.add(name=name)
            self._watched = wanted, session(model, self.where)
        engine = self._watched[1]
        inside = [n for n in wanted if n not in feed]
        found = dict(zip(inside, engine.run(inside, dict(feed)), strict=True))
        return {n: feed[n] if n in feed else found[n] for n in wanted}

    def _made(self, kept: Collection[str], weights: bool) -> Any:
        """The model whose pairs of those tensors are kept."""
        import onnx
        from onnx import helper, numpy_helper

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.value_info[:]
        instead: dict[str, str] = {}
        for root, ends in self._pairs.items():
            instead |= {} if root in kept else dict.fromkeys(ends, root)
            if root in self._taken and root not in kept:
                self._give_back(model, root)
        floats = {} if weights else self._floats
        for node in list(graph.node):
            if node.output and node.output[0] in floats:
                graph.node.remove(node)
                continue
            node.input[:] = [instead.get(n, n) for n in node.input]
        for name, value in floats.items():
            graph.initializer.append(numpy_helper.from_array(value, name))
        for output in graph.output:
            if output.name in instead:
                maker = next(n for n in graph.node if output.name in n.output)
                graph.node.remove(maker)
                source = [instead[output.name]]
                graph.node.append(helper.make_node("Identity", source, [output.name]))
        drop_unread(graph)
        return model

    def _give_back(self, model: Any, root: str) -> None:
        """Put the activation that a tensor's grid stands for behind the layer; in place."""
        from onnx import helper, numpy_helper

        op, ends = self._taken[root]
        place, maker = next((i, n) for i, n in enumerate(model.graph.node) if root in n.output)
        maker.output[list(maker.output).index(root)] = f"{root}/before"
        inputs = [f"{root}/before"]
        for word, value in zip(("least", "most"), ends, strict=False):
            model.graph.initializer.append(numpy_helper.from_array(value, f"{root}/{word}"))
            inputs.append(f"{root}/{word}")
        model.graph.node.insert(place + 1, helper.make_node(op, inputs, [root]))


def _taken(
    form: OnnxNetwork, floats: OnnxNetwork, found: Sequence[Pair], pairs: Collection[str]
) -> Iterator[tuple[str, tuple[str, tuple[np.ndarray, ...]]]]:
    """(tensor, (operator, its ends)) of each ReLU or Clip that the file leaves to a grid."""
    for pair in found:
        root = form.graph.made_by[pair.b.tensor].output[0]
        node = floats.graph.made_by[pair.a.tensor]
        if pair.a.kind == pair.b.kind or root not in pairs or node.op_type not in FREE:
            continue
        ends = [floats.graph.constant(n) for n in node.input[1:]]
        yield root, (node.op_type, tuple(e for e in ends if e is not None))


def _pairs(form: OnnxNetwork) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(tensor, what gives it back in real numbers) of every activation that is put on a grid."""
    index = Index(form.model.graph)
    found: dict[str, list[str]] = {}
    for node in form.model.graph.node:
        if node.op_type != PAIR[0] or form.graph.constant(node.input[0]) is not None:
            continue
        ends = [r.output[0] for r in index.readers[node.output[0]] if r.op_type == PAIR[1]]
        found.setdefault(node.input[0], []).extend(ends)
    yield from ((root, tuple(ends)) for root, ends in found.items())


def _weights(
    form: OnnxNetwork, floats: OnnxNetwork, matched: Sequence[Pair]
) -> tuple[dict[str, np.ndarray], int, tuple[str, ...]]:
    """(float weights and biases by the tensor that an integer one is unpacked to, how many layers
    have integer weights, those whose float ones are not known). Raises ModelError."""
    pairs = {p.b.tensor: unfused(floats, form, p).a for p in matched}
    found: dict[str, np.ndarray] = {}
    count, unknown = 0, []
    makers = Index(form.model.graph).makers
    for layer in form.layers:
        node, held = form.graph.made_by[layer.tensor], form.constants(layer)
        unpack = [n for n in node.input[1:3] if n and _unpacked(makers.get(n))]
        if "weight" not in held or node.input[1] not in unpack:
            continue
        count += 1
        real = floats.constants(pairs[layer.tensor]) if layer.tensor in pairs else {}
        weight = real.get("weight")
        if weight is None or not _close(weight, held["weight"]):
            unknown.append(layer.name)
            continue
        found[node.input[1]] = np.ascontiguousarray(
            outputs_first(node, weight) if layer.kind == "dense" else weight, np.float32
        )
        if len(node.input) > 2 and node.input[2] in unpack:
            bias = real.get("bias", np.zeros_like(held["bias"]))
            found[node.input[2]] = np.asarray(bias, np.float32).reshape(held["bias"].shape)
    if count and len(unknown) > count / 2:
        what = f"the weights of {len(unknown)} of {count} layers are no roundings of the float ones"
        raise ModelError(form.title, what, "--against takes the float network of the same weights")
    return found, count, tuple(unknown)


def _unpacked(node: Any) -> bool:
    return node is not None and node.op_type == PAIR[1]


def _close(real: np.ndarray, held: np.ndarray) -> bool:
    if real.shape != held.shape:
        return False
    error = float(np.square(real - held, dtype=np.float64).sum())
    return error <= CLOSE * float(np.square(real, dtype=np.float64).sum())


def _tensors(model: Any, pairs: Mapping[str, Any], form: OnnxNetwork) -> Iterator[Tensor]:
    """Of the float network and the file's grids; what repeats another tensor is with that one."""
    index = Index(model.graph)
    inside = {
        name: found.kind
        for found in epilogues(model)
        for name in (found.input, *found.inner)
        if name not in index.ends
        and {r.output[0] for r in index.readers[name]} <= {n.output[0] for n in found.nodes}
    }
    grids = {n.input[0]: _grid(form, n) for n in form.model.graph.node
             if n.op_type == PAIR[0] and n.input[0] in pairs}  # fmt: skip
    home: dict[str, str] = {}
    made: dict[str, Tensor] = {}
    order = [i.name for i in model.graph.input]
    order += [name for node in model.graph.node for name in node.output]
    for name in [n for n in order if n in grids]:
        source = _repeated(index, name, grids)
        if source:
            root = home[name] = home.get(source, source)
            made[root] = replace(made[root], also=(*made[root].also, name))
            continue
        low, high, step, several = grids[name]
        end = next((e for e in pairs[name] if e in index.ends), "")
        made[name] = Tensor(name, low, high, step, several, inside.get(name, ""),
                            _depthwise(index, name), _parts(index, name), end=end)  # fmt: skip
    yield from made.values()


def _grid(form: OnnxNetwork, node: Any) -> tuple[float, float, float, bool]:
    """(least, largest, step, several) of a QuantizeLinear."""
    scale = np.asarray(form.graph.constant(node.input[1]), np.float64).reshape(-1)
    zero = form.graph.constant(node.input[2]) if len(node.input) > 2 else None
    zero = np.zeros(1, np.uint8) if zero is None else np.asarray(zero).reshape(-1)
    ends = np.iinfo(zero.dtype)
    low, high = (scale * (float(end) - zero.astype(np.float64)) for end in (ends.min, ends.max))
    return float(low.min()), float(high.max()), float(scale.max()), scale.size > 1


def _repeated(index: Index, name: str, grids: Mapping[str, Any]) -> str:
    """The tensor on the same grid whose numbers, and no others, a tensor holds; "" for none."""
    node = index.makers.get(name)
    while node is not None and node.op_type in MOVES:
        sources = [n for n in node.input if n in index.makers or n in grids]
        if node.op_type == "Concat" and len(sources) > 1:
            return ""
        if sources and sources[0] in grids:
            return sources[0] if grids[sources[0]] == grids[name] else ""
        node = index.makers.get(sources[0]) if sources else None
    return ""


def _depthwise(index: Index, name: str) -> tuple[str, ...]:
    """The layers that read each channel of a tensor by itself."""
    return tuple(
        n.name or n.output[0] for n in index.readers[name]
        if n.op_type == "Conv" and n.input[0] == name and groups(n) > 1
        and groups(n) == _inputs(index, n)
    )  # fmt: skip


def _inputs(index: Index, node: Any) -> int:
    """How many channels a convolution reads; 0 where its weight is computed."""
    weight = index.held.get(node.input[1])
    return 0 if weight is None else int(weight.dims[1]) * groups(node)


def _parts(index: Index, name: str) -> tuple[tuple[str, bool], ...]:
    """What a tensor joins, through what only moves it; of one part as many as have it."""
    found: dict[str, bool] = {}
    waiting, joins = [name], False
    while waiting:
        at = waiting.pop()
        node = index.makers.get(at)
        if node is not None and node.op_type in MOVES:
            sources = [n for n in node.input if n in index.makers]
            joins = joins or (node.op_type == "Concat" and len(sources) > 1)
            waiting += sources if node.op_type == "Concat" else sources[:1]
        elif at in index.makers:
            found[at] = node is not None and node.op_type in SHARES
    return tuple(sorted(found.items())) if joins and len(found) > 1 else ()
