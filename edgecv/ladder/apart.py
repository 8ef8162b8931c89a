"""Every layer of a quantized file on its own, all in one file: each is fed from outside.

    in the file     x -> Q -> DQ -> layer -> y -> Q -> DQ -> next
    taken apart                x' -> layer -> y -> Q -> DQ = the layer's own answer
                                                      y' -> next

x' and y' are the float network's tensors, so that an answer holds the rounding of the layer's
weights and of its result, and nobody else's. TFLite's kernels take integers only: there x' is put
on its grid first. One run of one image measures all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.backends.tflite.run import engine, quiet
from edgecv.ladder.layers import INPUT, Form, first
from edgecv.ladder.matching import Pair
from edgecv.ladder.onnx_form import OnnxForm, session
from edgecv.ladder.onnx_graph import PAIR
from edgecv.ladder.tflite_form import TfliteForm, written


class Apart(Protocol):
    def values(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each layer's own answer by its tensor's name, real numbers, channels first.

        given: the float network's tensors by the same names
        """

    def close(self) -> None: ...


def open_apart(form: Form, pairs: Mapping[str, Pair]) -> Apart | None:
    """The form's layers apart; None for a form that cannot be taken apart."""
    if isinstance(form, OnnxForm) and form.precision == "int8":
        return OnnxApart(form, pairs)
    if isinstance(form, TfliteForm) and form.precision == "int8":
        return TfliteApart(form, pairs)
    return None


class OnnxApart:
    """What reads a known tensor behind its pair reads an input of the graph instead; the pair's
    own end gives the answer."""

    def __init__(self, form: OnnxForm, pairs: Mapping[str, Pair]) -> None:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(form.model)
        graph, float_ = model.graph, onnx.TensorProto.FLOAT
        named = {node.output[0]: t for t, node in form.graph.made_by.items() if t in pairs}
        heads = [n for n in graph.node if n.op_type == PAIR[0]]
        tails = {n.input[0]: n for n in graph.node if n.op_type == PAIR[1]}
        makers = {o: n for n in graph.node for o in n.output}
        ends = [o.name for o in graph.output]
        del graph.output[:]
        self._fed: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._out: dict[str, str] = {}
        instead: dict[str, str] = {}  # behind a pair -> the input to read
        for head in heads:
            root, tail = head.input[0], tails.get(head.output[0])
            shape = form.graph.shapes.get(root, ())
            if root == form.spec.name and tail:
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
        self._image = form.spec.name
        self._session = session(_sorted(model), form.title) if self._out else None

    def values(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._session is None:
            return {}
        taken = {i.name for i in self._session.get_inputs()}
        feeds = {
            root: np.ascontiguousarray(given[t], np.float32).reshape(shape)
            for t, (root, shape) in self._fed.items()
            if root in taken
        }
        feeds |= {self._image: x} if self._image in taken else {}
        found = self._session.run(list(self._out.values()), feeds)
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


class TfliteApart:
    """Each operator reads clones of its activations, which are the file's inputs."""

    def __init__(self, form: TfliteForm, pairs: Mapping[str, Pair]) -> None:
        model = flatbuffer.parse(form.content, form.title)
        graph = flatbuffer.graph_of(model)
        layers = {layer.tensor: layer for layer in form.layers}
        names = {form.index[t]: t for t in layers} | {int(graph.inputs[0]): INPUT}
        known = {i: t for i, t in names.items() if t == INPUT or t in pairs}
        self._form, self._fed, clones = form, [], []
        for op in graph.operators:
            reads = [int(i) for i in op.inputs]
            for place, index in enumerate(reads):
                if index in known:
                    graph.tensors.append(clone(graph.tensors[index], "/given"))
                    op.inputs[place] = len(graph.tensors) - 1
                    clones.append(op.inputs[place])
                    self._fed.append((int(op.inputs[place]), known[index]))
        self._out = [(form.index[t], layer) for t, layer in layers.items() if t in pairs]
        graph.inputs, graph.outputs = clones, [index for index, _ in self._out]
        model.signatureDefs = []
        kernels = engine().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with quiet():
            self._net = engine().Interpreter(
                model_content=written(model), experimental_op_resolver_type=kernels,
                num_threads=1,
            )  # fmt: skip
            self._net.allocate_tensors()

    def values(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        held = {int(d["index"]): d for d in self._net.get_input_details()}
        for index, name in self._fed:
            detail = held[index]
            real = x if name == INPUT else given[name]
            self._net.set_tensor(index, integers(real, detail))
        self._net.invoke()
        return {
            layer.tensor: first(self._form.real(self._net.get_tensor(i), i))
            for i, layer in self._out
        }

    def close(self) -> None:
        self._net = None


def clone(tensor: Any, suffix: str) -> Any:
    """A tensor of a .tflite file once more, without its values and with a name of its own."""
    import copy

    twin = copy.copy(tensor)
    twin.name, twin.buffer = bytes(tensor.name) + suffix.encode(), 0
    return twin


def integers(real: np.ndarray, detail: Any) -> np.ndarray:
    """Real numbers, channels first, as a tensor of the file holds them."""
    shape = tuple(int(n) for n in detail["shape"])
    if len(shape) == 4:
        real = real.reshape(shape[0], shape[3], shape[1], shape[2]).transpose(0, 2, 3, 1)
    else:
        real = real.reshape(shape)
    kind = np.dtype(detail["dtype"])
    if kind.kind == "f":
        return np.ascontiguousarray(real, kind)
    grid, limits = detail["quantization_parameters"], np.iinfo(kind)
    q = np.rint(real / grid["scales"][0]) + grid["zero_points"][0]
    return np.clip(q, limits.min, limits.max).astype(kind)
