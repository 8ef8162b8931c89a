"""A float network in which some tensors are given instead of computed: what they do to its answers.

f(x; t) = what f answers to x where the values t stand in the place of its own
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.backends.tflite import flatbuffer
from edgecv.backends.tflite.run import Session
from edgecv.ladder.apart import clone, integers
from edgecv.ladder.layers import placed
from edgecv.ladder.onnx_form import OnnxForm, session
from edgecv.ladder.tflite_form import TfliteForm, written
from edgecv.replay import Answers
from edgecv.runtime.spec import channels_first

GIVEN = "/given"


class Replaced:
    """form: float. tensors: of its layers. Raises EngineError."""

    def __init__(self, form: OnnxForm | TfliteForm, tensors: Sequence[str]) -> None:
        self._form, self._tensors = form, tuple(tensors)
        self._session, self._ends = (
            _onnx(form, self._tensors)
            if isinstance(form, OnnxForm)
            else _tflite(form, self._tensors)
        )

    def answers(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> Answers:
        """Each output, float32 (1, ...) channels first. x: float32 (1, C, H, W). given: float32,
        channels first, by the tensor's name"""
        if isinstance(self._form, OnnxForm):
            found = self._onnx_answers(x, given)
        else:
            found = self._tflite_answers(x, given)
        return tuple(
            np.asarray(given[t], np.float32).reshape(v.shape) if t in self._tensors else v
            for t, v in zip(self._ends, found, strict=True)
        )

    def close(self) -> None:
        self._session = None

    def _onnx_answers(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        feeds = {self._form.spec.name: placed(x, self._form.spec)}
        for spec in self._session.get_inputs():
            if spec.name.endswith(GIVEN):
                values = given[spec.name.removesuffix(GIVEN)]
                feeds[spec.name] = np.ascontiguousarray(values, np.float32).reshape(spec.shape)
        taken = {i.name for i in self._session.get_inputs()}
        found = self._session.run(list(self._ends), {k: v for k, v in feeds.items() if k in taken})
        return [np.asarray(v, np.float32) for v in found]

    def _tflite_answers(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        feeds = {}
        for spec in self._session.inputs:
            real = given.get(spec.name.removesuffix(GIVEN))
            detail = {"shape": spec.shape, "dtype": spec.dtype}
            feeds[spec.name] = integers(x if real is None else real, detail)
        found = self._session.run(feeds)
        return [channels_first(found[t.name], t) for t in self._session.outputs]


def _onnx(form: OnnxForm, tensors: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
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
    return session(model, form.title), tuple(o.name for o in model.graph.output)


def _tflite(form: TfliteForm, tensors: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
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
    return Session({form.title: written(model)}), ends
