"""Where a quantized ONNX graph loses: the noise that each rounded tensor adds to the outputs.

    noise of one thing = Σ ‖f(x; only it rounded) - f(x)‖² / Σ ‖f(x)‖²      over images x

Of several outputs (or quantities side by side in one) it is the sum of theirs, each against its own
signal as SQNR has it (`edgecv.runtime.fidelity`): what only one of them reads counts as well. Where
the task can be asked, it is what its metric loses against float (`edgecv.bundling.task_fidelity`).

One thing is a layer's weights or an activation. Everything else stays float, so a noise is a
thing's own; they add up to the whole graph's, roughly. The steps are those of the quantized graph,
which is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.bundling.task_fidelity import TaskFidelity
from edgecv.graphs.onnx.constants import axis_of, dequantized
from edgecv.graphs.onnx.index import Index
from edgecv.graphs.onnx.layers import WEIGHTED
from edgecv.graphs.onnx.names import layer_name
from edgecv.methods.quantize.mixed import Problem
from edgecv.runtime.fidelity import compare_all
from edgecv.samples import CalibrationData

THROUGH = ("Relu", "Clip", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rounded:
    """One thing that the quantized graph rounds. scale, zero: as its Q/DQ nodes hold them."""

    name: str
    weight: np.ndarray | None = None  # dequantized
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None


def sensitivities(
    model: Any,
    quantized: Any,
    samples: CalibrationData,
    progress: Progress = lambda *_: None,
    ends: Mapping[str, str] | None = None,
    asked: TaskFidelity | None = None,
) -> Problem:
    """What each layer's weights and each activation cost in noise; costs in time are left empty.

    model, quantized: onnx.ModelProto, the float graph and what the quantizer made of it
    samples:          (N, C, H, W) float32
    ends:             the outputs' kinds by name (`edgecv.runtime.fidelity.kinds`), of all of them;
                      None: the first alone counts
    asked:            noise is what the task loses, where float finds anything on the samples
    """
    noise = {}
    weights, activations = rounded(model, quantized)
    things = [*weights, *activations]
    references = _outputs(model, samples)
    told = asked.on(tuple(references)) if asked else None
    for done, thing in enumerate(things):
        outputs = _outputs(_with(model, thing), samples)
        lost = 1.0 - told.score(tuple(outputs)) if told else _noise(references, outputs, ends)
        noise[thing.name] = lost
        progress(done + 1, len(things))
    return problem_of(model, weights, noise)


def rounded(model: Any, quantized: Any) -> tuple[list[Rounded], list[Rounded]]:
    """The weights and the activations that the quantized graph rounds, as the float graph calls
    them."""
    return list(_weights(model, quantized)), list(_activations(model, quantized))


def problem_of(model: Any, weights: list[Rounded], noise: dict[str, float]) -> Problem:
    """Noise by the name of what is rounded, as the integer program wants it."""
    readers, makers = _layers_at(model)
    layers = {n.input[1]: layer_name(n) for n in model.graph.node if n.op_type in WEIGHTED}
    held = [thing.name for thing in weights]
    by_layer = {layers[name]: noise[name] for name in held}
    tensors = {name: value for name, value in noise.items() if name not in held}
    touching = {t: sorted({*readers.get(t, ()), *makers.get(t, ())}) for t in tensors}
    for name in {layer for found in touching.values() for layer in found}:
        by_layer.setdefault(name, 0.0)
    return Problem(by_layer, tensors, touching, {})


def _weights(model: Any, quantized: Any) -> Iterator[Rounded]:
    from onnx import numpy_helper

    held = {t.name: t for t in quantized.graph.initializer}
    floats = {t.name for t in model.graph.initializer}
    layers = {n.input[1] for n in model.graph.node if n.op_type in WEIGHTED}
    for node in quantized.graph.node:
        name = node.input[0].removesuffix("_quantized") if node.input else ""
        if node.op_type != "DequantizeLinear" or name not in floats & layers:
            continue
        q, scale, zero = (numpy_helper.to_array(held[n]) for n in node.input)
        yield Rounded(name, weight=dequantized(q, scale, zero, axis_of(node)))


def _activations(model: Any, quantized: Any) -> Iterator[Rounded]:
    from onnx import numpy_helper

    held = {t.name: t for t in quantized.graph.initializer}
    made = {*Index(model.graph).makers, *(i.name for i in model.graph.input)}
    seen = set()
    for node in quantized.graph.node:
        # Rounding again on the same scale, behind a reshape, adds nothing.
        if node.op_type != "QuantizeLinear" or node.input[1] in seen:
            continue
        seen.add(node.input[1])
        name = node.input[0] if node.input[0] in made else node.input[1].removesuffix("_scale")
        if name in made:
            scale, zero = (numpy_helper.to_array(held[n]) for n in node.input[1:3])
            yield Rounded(name, scale=scale, zero=zero)


def _with(model: Any, thing: Rounded) -> Any:
    """A copy of the float graph with that one thing rounded."""
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    if thing.weight is not None:
        old = next(t for t in graph.initializer if t.name == thing.name)
        old.CopyFrom(numpy_helper.from_array(thing.weight, thing.name))
        return copy
    inner = f"{thing.name}/real"
    names = [f"{thing.name}/{end}" for end in ("scale", "zero", "rounded")]
    made_by = next((n for n in graph.node if thing.name in n.output), None)
    if made_by is None:  # the network's input: its readers read the rounded one
        inner, outer = thing.name, f"{thing.name}/real"
        for node in graph.node:
            node.input[:] = [outer if i == thing.name else i for i in node.input]
    else:
        outer = thing.name
        made_by.output[:] = [inner if o == thing.name else o for o in made_by.output]
    assert thing.scale is not None
    assert thing.zero is not None
    for value, name in zip((thing.scale, thing.zero), names[:2], strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    graph.node.append(helper.make_node("QuantizeLinear", [inner, *names[:2]], [names[2]]))
    graph.node.append(helper.make_node("DequantizeLinear", [names[2], *names[:2]], [outer]))
    return copy


def _noise(
    references: list[np.ndarray], outputs: list[np.ndarray], ends: Mapping[str, str] | None
) -> float:
    several = compare_all(references, outputs, ends).outputs.values() if ends else ()
    # an index is right or wrong: a step of it is no noise
    if several and (parts := [p for p in several if not p.indices]):
        return float(sum(10 ** (-p.sqnr_db / 10) for p in parts))
    error = float(((outputs[0] - references[0]).astype(np.float64) ** 2).sum())
    return error / max(float((references[0].astype(np.float64) ** 2).sum()), 1e-30)


def _outputs(model: Any, samples: CalibrationData) -> list[np.ndarray]:
    """Each output of a graph, whose nodes may be in any order, (N, ...)."""
    from edgecv.backends.onnxruntime.tensors import runner

    run = runner(_sorted(model))
    found = [[output[0] for output in run(image)] for image in samples]
    return [np.stack(column) for column in zip(*found, strict=True)]


def _sorted(model: Any) -> Any:
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(model)
    wrapped.topological_sort()
    return wrapped.model


def _layers_at(model: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By tensor, the layers that read it and those that make it; activation functions and changes
    of shape belong to the layer before them."""
    made_by, held = Index(model.graph).makers, {*Index(model.graph).held}
    root: dict[str, str] = {}

    def rooted(name: str) -> str:
        node = made_by.get(name)
        if node is None or node.op_type not in THROUGH:
            return name
        root[name] = rooted(node.input[0])
        return root[name]

    readers: dict[str, list[str]] = {}
    makers: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in THROUGH or node.op_type == "Constant":
            continue
        for name in node.input:
            if name not in held:
                readers.setdefault(rooted(name), []).append(layer_name(node))
        for name in node.output:
            makers.setdefault(name, []).append(layer_name(node))
    every = {*made_by, *(i.name for i in model.graph.input)} - held
    return (
        {name: readers.get(rooted(name), []) for name in every},
        {name: makers.get(rooted(name), []) for name in every},
    )
