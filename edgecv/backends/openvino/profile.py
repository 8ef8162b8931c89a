"""OpenVINO's own performance counters (PERF_COUNT), as layers.

A counter holds a(n), the mean of all n calls since its network was compiled, the slow first ones
among them, in whole microseconds. What the calls after a warm-up of w took is in the difference:

    t = (T(n) - T(w)) / (n - w),   T(n) = n (a(n) + 1/2)

to half a microsecond. One call that was interrupted spoils a mean, and a counter cannot be reset:
the median over several compilations is taken.

Imports with numpy and the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from edgecv.backends.openvino import LAYERS
from edgecv.backends.openvino.run import precision
from edgecv.runtime.layers import WARMUP, layer_of
from edgecv.runtime.spec import Layer

COMPILED = 3  # compilations
# Steps that are no work of their own, and those that compute nothing (openvino: Type in cpu_types).
HELD = frozenset(("Input", "Output", "Const"))
MOVES = frozenset((
    "Broadcast", "Concatenation", "Convert", "Gather", "Memory", "Pad", "Reorder", "Reshape",
    "ShapeOf", "ShuffleChannels", "Split", "Squeeze", "StridedSlice", "Tile", "Transpose",
    "Unsqueeze",
))  # fmt: skip


def layers(
    xml: bytes,
    weights: bytes,
    config: Mapping[str, Any],
    feeds: Mapping[str, np.ndarray],
    runs: int,
) -> tuple[Layer, ...]:
    """One Layer per step that ran. config: of the session whose network this is."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(xml, weights)
    times: dict[str, list[float]] = {}
    for _ in range(COMPILED):
        compiled = core.compile_model(model, "CPU", {**config, "PERF_COUNT": True})
        for name, took in _measured(compiled.create_infer_request(), feeds, runs).items():
            times.setdefault(name, []).append(took)
        graph = [Step(node) for node in compiled.get_runtime_model().get_ordered_ops()]
    ran = [step for step in graph if step.kind not in HELD and step.name in times]
    ran.sort(key=lambda step: step.order)
    return tuple(step.layer(float(np.median(times[step.name])) / 1e3) for step in ran)


def _measured(request: Any, feeds: Mapping[str, np.ndarray], runs: int) -> dict[str, float]:
    """Microseconds of a call after the warm-up, by step; steps that never take one are left out."""
    inputs = dict(feeds)
    request.infer(inputs)
    # a later mean of less than 1 is 0, as for a step that was fused away
    ran = {name for name, mean in _means(request).items() if mean}
    for _ in range(WARMUP - 1):
        request.infer(inputs)
    before = _means(request)
    for _ in range(runs):
        request.infer(inputs)
    total = WARMUP + runs
    return {
        name: max(0.0, (total * (mean + 0.5) - WARMUP * (before[name] + 0.5)) / runs)
        for name, mean in _means(request).items()
        if mean or name in ran
    }


def _means(request: Any) -> dict[str, int]:
    """Counters by the step's name, in microseconds."""
    return {i.node_name: round(i.real_time.total_seconds() * 1e6) for i in request.profiling_info}


class Step:
    """A node of the graph that OpenVINO executes (ExecutionGraphInfoSerialization)."""

    def __init__(self, node: Any) -> None:
        info = node.get_rt_info()
        self.name = str(node.get_friendly_name())
        self.kind = info["layerType"].astype(str)
        self.order = int(info["execOrder"].astype(str))
        self._kernel = info["primitiveType"].astype(str)
        self._precision = precision(info)
        self._made_of = info["originalLayersNames"].astype(str).split(",")
        self._node = node

    def layer(self, time_ms: float) -> Layer:
        return Layer(
            name=self.name,
            layer=layer_of(self._weights(), self._made_of),
            op=f"{self.kind} {self._kernel}",
            precision="" if self.kind in MOVES else self._precision,
            time_ms=time_ms,
            bytes=self._moved(),
        )

    def _weights(self) -> list[str]:
        """Names of the constants that it reads."""
        makers = [source.get_source_output().get_node() for source in self._node.inputs()]
        constant = [m for m in makers if m.get_rt_info()["layerType"].astype(str) == "Const"]
        return [str(m.get_friendly_name()) for m in constant] if self.kind in LAYERS else []

    def _moved(self) -> int:
        """Bytes of its inputs, constants among them, and of its outputs."""
        ports = [source.get_source_output() for source in self._node.inputs()]
        return sum(map(_size, ports)) + sum(map(_size, self._node.outputs()))


def _size(port: Any) -> int:
    """Bytes of what a node puts out there, in the precision that it has when it runs."""
    kinds = port.get_node().get_rt_info()["outputPrecisions"].astype(str).split(",")
    kind = kinds[min(port.get_index(), len(kinds) - 1)]
    bits = int("".join(c for c in kind if c.isdigit()) or 0)  # "bf16", "u8"; "dynamic": empty
    return (prod(port.shape) * bits + 7) // 8
