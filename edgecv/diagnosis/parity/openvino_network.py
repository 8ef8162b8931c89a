"""An OpenVINO network (model.xml, model.bin) opened for looking inside: results are added to the
model as it was read, and what is compiled then gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.backends.openvino.run import config
from edgecv.diagnosis.parity.layers import INPUT, Grid, Layer, Sample, feeds, image_in, module_path
from edgecv.errors import EngineError, one_line
from edgecv.graphs.openvino import nodes
from edgecv.graphs.openvino.constants import value
from edgecv.graphs.openvino.files import read, spec, wish
from edgecv.graphs.openvino.layers import BETWEEN, COUNTED, FORWARD, outputs_first

KINDS = {
    **FORWARD, COUNTED: "conv",
    "Add": "add", "ReduceMean": "mean", "Reshape": "reshape", "Squeeze": "reshape",
}  # fmt: skip


class OpenVinoForm:
    """See `Form`. files: as in a bundle, the .xml first.

    Raises EngineError, ModelError (more inputs than one), MissingExtraError.
    """

    format = ""

    precision = "fp32"
    input_grid: Grid | None = None
    one_by_one = True

    def __init__(self, files: Mapping[str, bytes], title: str) -> None:
        self.title, self._files = title, list(files.values())
        if b'element_type="f16"' in self._files[0]:
            self.precision = "fp16"
        model = read(self._files, self.title)
        self._floats = wish(model)
        if self._floats == "bf16":
            self.precision = "bf16"
        self._read_at: dict[str, str] = {}  # tensor -> the name of the output that holds it
        self._weights: dict[str, Any] = {}
        self.layers = tuple(self._layers(model))
        self._compiled: dict[tuple[str, ...], Any] = {}
        self.specs = tuple(map(spec, model.inputs))

    def answers(self, x: Sample) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(v, np.float32) for v in self._infer(feeds(x, self.specs), ()))

    def values(self, x: Sample, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        feed = feeds(x, self.specs)
        names = [t for t in tensors if t in self._read_at]
        found = self._infer(feed, tuple(self._read_at[t] for t in names)) if names else []
        values = dict(zip(names, found, strict=True))
        return {t: np.asarray(values.get(t, image_in(x)), np.float32) for t in tensors}

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:
        return {k: v for k, v in self._weights.get(layer.tensor, {}).items() if v is not None}

    def close(self) -> None:
        self._compiled.clear()

    def _infer(self, feed: dict[str, np.ndarray], taps: tuple[str, ...]) -> list[np.ndarray]:
        """The answers, or the tensors of these names. The plain network and the last other one
        are kept compiled."""
        import openvino as ov

        if taps not in self._compiled:
            for old in [key for key in self._compiled if key]:
                del self._compiled[old]
            model = read(self._files, self.title)
            own = {name for port in model.outputs for name in port.get_names()}
            model.add_outputs([t for t in taps if t not in own])
            try:
                compiled = ov.Core().compile_model(model, "CPU", config(1, self._floats))
            except Exception as e:
                raise EngineError(self.title, one_line(e)) from None
            self._compiled[taps] = compiled
        compiled = self._compiled[taps]
        found = compiled(list(feed.values()))
        if not taps:
            return [found[port].copy() for port in compiled.outputs]
        return [found[compiled.output(name)].copy() for name in taps]

    def _layers(self, model: Any) -> list[Layer]:
        """Layers whose results have a name in the file; a bias that was split off is one with its
        convolution."""
        found: list[Layer] = []
        root: dict[str, str] = {}  # operator -> the tensor that it makes or repeats
        pending: dict[str, Any] = {}  # an unnamed convolution -> its node, until its bias comes
        for op in model.get_ordered_ops():
            kind, me = nodes.kind(op), nodes.name(op)
            if kind == "Parameter":
                name = next(iter(sorted(op.output(0).get_names())))
                root[me] = INPUT if INPUT not in self._read_at else name
                self._read_at[root[me]] = name
            if kind in nodes.HELD:
                continue
            sources = list(map(nodes.name, nodes.sources(op)))
            reads = [root[s] for s in sources if s in root]
            if not reads:
                continue  # made of constants only
            names = sorted(op.output(0).get_names())
            if kind == "FakeQuantize":
                root[me] = reads[0]
                if names and reads[0] != INPUT:
                    self._read_at[reads[0]] = names[0]
                    self._set_grid(found, reads[0], _grid(op))
                elif names:
                    self._read_at[INPUT], self.input_grid = names[0], _grid(op)
                    self.precision = "int8"
                continue
            if kind == BETWEEN and not names:
                root[me] = reads[0]
                continue
            maker, inputs = op, tuple(reads)
            if kind == "Add" and sources[0] in pending:
                maker = pending[sources[0]]
                inputs = tuple(root[s] for s in map(nodes.name, nodes.sources(maker)) if s in root)
            tensor = names[0] if names else me
            root[me] = tensor
            if not names:
                scaled = kind == "Multiply" and sources[0] in pending  # of one-bit layers
                pending[me] = pending[sources[0]] if scaled else op
                root[me] = tensor
                continue
            self._read_at[tensor] = names[0]
            word = KINDS.get(nodes.kind(maker), nodes.kind(maker).lower())
            self._weights[tensor] = _weights(maker, op if maker is not op else None)
            shape = op.output(0).get_partial_shape()
            found.append(
                Layer(
                    name=me,
                    kind=word,
                    tensor=tensor,
                    inputs=inputs,
                    shape=tuple(int(d) for d in shape.to_shape()) if shape.is_static else (),
                    path=module_path(me + "/x" if "WithoutBiases" in me else me),
                )
            )
        return found

    def _set_grid(self, found: list[Layer], tensor: str, grid: Grid | None) -> None:
        """Note that a tensor was put on a grid."""
        self.precision = "int8"
        for i, layer in enumerate(found):
            if layer.tensor == tensor:
                clip = (0.0, np.inf) if grid and grid.zero_point == grid.low else None
                found[i] = replace(layer, grid=grid, clip=clip)


def _grid(op: Any) -> Grid | None:
    """A FakeQuantize of one range, as integers from 0."""
    low, high = (np.asarray(nodes.source(op, i).data).reshape(-1) for i in (3, 4))
    levels = int(op.get_attributes()["levels"])
    if low.size != 1 or high.size != 1 or levels < 2:
        return None
    scale = float(high[0] - low[0]) / (levels - 1)
    return Grid(scale, round(-float(low[0]) / scale), 0, levels - 1) if scale > 0 else None


def _weights(op: Any, bias: Any) -> dict[str, np.ndarray | None]:
    if nodes.kind(op) not in FORWARD:
        return {}
    weight, _ = value(nodes.source(op, 1))
    weight = None if weight is None else outputs_first(op, weight)
    held, _ = value(nodes.source(bias, 1)) if bias is not None else (None, "")
    return {"weight": weight, "bias": None if held is None else held.reshape(-1)}
