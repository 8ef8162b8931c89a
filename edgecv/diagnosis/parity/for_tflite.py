""".tflite files taken apart (`isolated_layers.py`), and with given tensors (`replaced.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.backends.tflite.run import Session, engine, quiet
from edgecv.diagnosis.parity.layers import Sample, first, named
from edgecv.diagnosis.parity.matching import Pair
from edgecv.diagnosis.parity.replaced import GIVEN
from edgecv.diagnosis.parity.tflite_network import TfliteNetwork
from edgecv.graphs.tflite import flatbuffer
from edgecv.runtime.spec import channels_first

FORM = TfliteNetwork


class Apart:
    """Each operator reads clones of its activations, which are the file's inputs."""

    def __init__(self, form: TfliteNetwork, pairs: Mapping[str, Pair]) -> None:
        model = flatbuffer.parse(form.content, form.title)
        graph = flatbuffer.graph_of(model)
        layers = {layer.tensor: layer for layer in form.layers}
        names = {form.index[t]: t for t in layers}
        known = {i: t for i, t in names.items() if t in pairs} | form.inputs
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
                model_content=flatbuffer.written(model), experimental_op_resolver_type=kernels,
                num_threads=1,
            )  # fmt: skip
            self._net.allocate_tensors()

    def values(self, x: Sample, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        held = {int(d["index"]): d for d in self._net.get_input_details()}
        real = {**given, **named(x, self._form.specs)}
        for index, name in self._fed:
            self._net.set_tensor(index, integers(real[name], held[index]))
        self._net.invoke()
        return {
            layer.tensor: first(self._form.real(self._net.get_tensor(i), i))
            for i, layer in self._out
        }

    def close(self) -> None:
        self._net = None


class Replaced:
    """See `edgecv.diagnosis.parity.replaced.Replaced`. form: float. Raises EngineError."""

    def __init__(self, form: TfliteNetwork, tensors: Sequence[str]) -> None:
        self._form = form
        self._session, self.ends = _reading(form, tensors)

    def answers(self, x: Sample, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        feeds, own = {}, named(x, self._form.specs)
        places = dict(zip(self._session.places, self._session.inputs, strict=True))
        for index, spec in places.items():
            real = own[self._form.inputs[index]] if index in self._form.inputs else (
                given[spec.name.removesuffix(GIVEN)])  # fmt: skip
            # truth values and indices come in as well as floats: none is on a grid here
            grid: dict[str, list[float]] = {"scales": [], "zero_points": []}
            detail = {"shape": spec.shape, "dtype": spec.dtype, "quantization_parameters": grid}
            feeds[spec.name] = integers(real, detail)
        found = self._session.run(feeds)
        return [channels_first(found[t.name], t) for t in self._session.outputs]

    def close(self) -> None:
        self._session.close()


def _reading(form: TfliteNetwork, tensors: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    model = flatbuffer.parse(form.content, form.title)
    graph = flatbuffer.graph_of(model)
    clones = {}
    for name in tensors:
        index = form.index[name]
        graph.tensors.append(clone(graph.tensors[index], GIVEN))
        clones[index] = len(graph.tensors) - 1
    for op in graph.operators:
        op.inputs = [clones.get(int(i), int(i)) for i in op.inputs]
    graph.inputs = [*graph.inputs, *clones.values()]
    model.signatureDefs = []
    names = {index: name for name, index in form.index.items()}
    ends = tuple(names.get(int(i), "") for i in graph.outputs)
    return Session({form.title: flatbuffer.written(model)}), ends


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
    grid = detail["quantization_parameters"]
    if kind.kind == "b" or not len(grid["scales"]):  # truth values, indices: on no grid
        return np.ascontiguousarray(np.rint(real)).astype(kind)
    limits = np.iinfo(kind)
    q = np.rint(real / grid["scales"][0]) + grid["zero_points"][0]
    return np.clip(q, limits.min, limits.max).astype(kind)
