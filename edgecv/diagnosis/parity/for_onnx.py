"""ONNX graphs taken apart (`isolated_layers.py`), and with given tensors (`replaced.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.diagnosis.parity.layers import Sample, feeds, named
from edgecv.diagnosis.parity.matching import Pair
from edgecv.diagnosis.parity.onnx_graph import PAIR
from edgecv.diagnosis.parity.onnx_network import OnnxNetwork, session
from edgecv.diagnosis.parity.replaced import GIVEN
from edgecv.graphs.onnx.index import Index

FORM = OnnxNetwork


class Apart:
    """What reads a known tensor behind its pair reads an input of the graph instead; the pair's
    own end gives the answer."""

    def __init__(self, form: OnnxNetwork, pairs: Mapping[str, Pair]) -> None:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(form.model)
        graph, float_ = model.graph, onnx.TensorProto.FLOAT
        named = {node.output[0]: t for t, node in form.graph.made_by.items() if t in pairs}
        heads = [n for n in graph.node if n.op_type == PAIR[0]]
        tails = {n.input[0]: n for n in graph.node if n.op_type == PAIR[1]}
        makers = Index(graph).makers
        # indices (ArgMax, TopK) are no layer's own rounding
        ends = [o.name for o in graph.output if o.type.tensor_type.elem_type == float_]
        del graph.output[:]
        self._fed: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._out: dict[str, str] = {}
        instead: dict[str, str] = {}  # behind a pair -> the input to read
        for head in heads:
            root, tail = head.input[0], tails.get(head.output[0])
            shape = form.graph.shapes.get(root, ())
            if root in form.graph.inputs and tail:
                instead[tail.output[0]] = root
            if tail is None or root not in named or not shape or not all(shape):
                continue
            maker, own = makers[root], f"{root}/own"
            maker.output[list(maker.output).index(root)] = head.input[0] = f"{root}/made"
            instead[tail.output[0]], tail.output[0] = root, own
            graph.input.append(onnx.helper.make_tensor_value_info(root, float_, shape))
            graph.output.append(onnx.helper.make_tensor_value_info(own, float_, None))
            self._fed[named[root]], self._out[named[root]] = (root, shape), own
        for end in ends:  # an output that is not rounded has no pair, and nobody reads it
            if end in named and named[end] not in self._out:
                graph.output.append(onnx.helper.make_tensor_value_info(end, float_, None))
                self._out[named[end]] = end
        for node in graph.node:
            node.input[:] = [instead.get(n, n) for n in node.input]
        self._inputs = form.specs
        self._session = session(_sorted(model), form.title) if self._out else None

    def values(self, x: Sample, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._session is None:
            return {}
        taken = {i.name for i in self._session.get_inputs()}
        fed = {
            root: np.ascontiguousarray(given[t], np.float32).reshape(shape)
            for t, (root, shape) in self._fed.items()
            if root in taken
        }
        fed |= {n: v for n, v in named(x, self._inputs).items() if n in taken}
        found = self._session.run(list(self._out.values()), fed)
        return dict(zip(self._out, found, strict=True))

    def close(self) -> None:
        self._session = None


def _sorted(model: Any) -> Any:
    """The nodes in an order in which each comes after what it reads."""
    import onnx

    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input} | {""}
    todo, order = list(model.graph.node), []
    while todo:
        ready = [n for n in todo if known.issuperset(n.input)]
        if not ready:
            break
        order += ready
        known |= {o for n in ready for o in n.output}
        todo = [n for n in todo if not known.issuperset(n.output)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(order)
    return copy


class Replaced:
    """See `edgecv.diagnosis.parity.replaced.Replaced`. form: float. Raises EngineError."""

    def __init__(self, form: OnnxNetwork, tensors: Sequence[str]) -> None:
        self._form = form
        self._session, self.ends = _reading(form, tensors)

    def answers(self, x: Sample, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        fed = feeds(x, self._form.specs)
        for spec in self._session.get_inputs():
            if spec.name.endswith(GIVEN):
                values = given[spec.name.removesuffix(GIVEN)]
                fed[spec.name] = np.ascontiguousarray(values, np.float32).reshape(spec.shape)
        taken = {i.name for i in self._session.get_inputs()}
        found = self._session.run(list(self.ends), {k: v for k, v in fed.items() if k in taken})
        return [np.asarray(v, np.float32) for v in found]

    def close(self) -> None:
        self._session = None


def _reading(form: OnnxNetwork, tensors: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """A session that reads t/given where the network reads t, and the outputs' names."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(form.model)
    shapes = {layer.tensor: layer.shape for layer in form.layers}
    for node in model.graph.node:
        node.input[:] = [n + GIVEN if n in tensors else n for n in node.input]
    for name in tensors:
        real, shape = onnx.TensorProto.FLOAT, shapes[name]
        model.graph.input.append(onnx.helper.make_tensor_value_info(name + GIVEN, real, shape))
    drop_unread(model.graph)  # ONNX Runtime would compute it
    return session(model, form.title), tuple(o.name for o in model.graph.output)


def drop_unread(graph: Any) -> None:
    """Take out the nodes that no output hangs on, in place."""
    from edgecv.graphs.onnx.draft import body_reads

    wanted, kept = {o.name for o in graph.output}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted |= {*node.input} | body_reads(node)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
