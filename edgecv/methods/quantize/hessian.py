"""Where a quantized ONNX graph loses, by gradients: noise of one thing = Σ_x Δᵀ H Δ / Σ_x ‖f(x)‖².

    H = Jᵀ J,  J = ∂f/∂(weights or activation),  Δ = rounded − real
    Δᵀ H Δ = E_u (uᵀ J Δ)²,  u of random signs: one backward pass tells it for every thing at once

H is the Gauss-Newton matrix of the outputs' squared error, which at the float network is its
Hessian. HAWQ-V2 (Dong et al., NeurIPS 2020) puts tr(H) ‖Δ‖² / n in the place of Δᵀ H Δ, as if
rounding errors had no direction; but rounding by GPTQ and bias correction choose the direction, and
u is drawn for a trace anyway. Of several outputs it is the sum of theirs, each against its own
signal.

First order: what saturates, or moves a ReLU, is not seen. `sensitivity.py` sees it, one thing after
another: minutes where this takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from edgecv.errors import UnsupportedError
from edgecv.graphs.onnx.layers import WEIGHTED, outputs_first
from edgecv.methods.quantize.mixed import Problem
from edgecv.methods.quantize.reconstruction import Collect
from edgecv.methods.quantize.sensitivity import Rounded, problem_of, rounded
from edgecv.models.importing.operators import OPERATORS
from edgecv.models.importing.reader import Reader
from edgecv.runtime.fidelity import Energy
from edgecv.samples import CalibrationData

PROBES, SEED = 8, 0


def curvatures(
    model: Any,
    quantized: Any,
    samples: CalibrationData,
    kinds: Mapping[str, str] | None = None,
) -> Problem:
    """As `sensitivity.sensitivities`. samples: (N, C, H, W) float32, a dozen or two; kinds: its
    ends.

    Raises UnsupportedError: an operator that torch cannot run.
    """
    if not isinstance(samples, np.ndarray):
        what = "is known of networks of one image alone"
        raise UnsupportedError("quantize.sensitivity", what, "take sensitivity: noise")
    reader = Reader(model, "quantize.sensitivity")
    net: Any = reader.read(OPERATORS)
    weights, activations = rounded(model, quantized)
    steps = _weight_steps(model, net, reader, weights)
    names = {reader.nodes[t.name].name: t for t in activations if t.name in reader.nodes}
    judged = [name for name, kind in (kinds or {}).items() if kind != "indices"]
    judged = judged or [model.graph.output[0].name]
    ends = {reader.nodes[name].name: (kinds or {}).get(name) for name in judged}
    several = len(ends) > 1
    every = [*(t.name for t in weights), *(t.name for t in activations)]
    noise = {end: dict.fromkeys(every, 0.0) for end in ends}
    energies, power = {end: Energy() for end in ends}, dict.fromkeys(ends, 0.0)
    draw = torch.Generator().manual_seed(SEED)
    for image in samples:
        run = Collect(net, {name: name for name in (*names, *ends)})
        run.run(torch.from_numpy(image[None]).requires_grad_(True))  # the input may be rounded too
        inputs = [*(p for p, _ in steps.values()), *(run.found[n] for n in names)]
        deltas = [d for _, d in steps.values()]
        deltas += [_step(run.found[n], t) for n, t in names.items()]
        things = [*steps, *(t.name for t in names.values())]
        for end, kind in ends.items():
            answer = run.found[end]
            if several and kind == "classes":
                answer = answer - answer.mean()  # what softmax does not see
            value = answer.detach()
            energies[end].add(value.numpy(), value.numpy())
            signal = energies[end].signal
            power[end] = signal if several else power[end] + float(value.square().sum())
            for _ in range(PROBES):
                u = torch.randint(0, 2, answer.shape, generator=draw) * 2.0 - 1.0
                found = torch.autograd.grad(answer, inputs, u, retain_graph=True, allow_unused=True)
                for name, slope, delta in zip(things, found, deltas, strict=True):
                    if slope is not None:
                        noise[end][name] += float((slope * delta).sum()) ** 2 / PROBES
    shares = {name: sum(noise[e][name] / max(power[e], 1e-30) for e in ends) for name in every}
    return problem_of(model, weights, shares)


def _weight_steps(
    model: Any, net: Any, reader: Reader, weights: list[Rounded]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By the weight's name: the parameter, and rounded less real in its layout."""
    from onnx import numpy_helper

    held = {t.name: t for t in model.graph.initializer}
    made = {n.input[1]: n for n in model.graph.node if n.op_type in WEIGHTED}
    found = {}
    for thing in weights:
        node, flow = made[thing.name], reader.nodes.get(made[thing.name].output[0])
        if flow is None or flow.op != "call_module":
            raise UnsupportedError("quantize.sensitivity", f"{node.name} is no layer in torch")
        assert thing.weight is not None
        delta = thing.weight - numpy_helper.to_array(held[thing.name])
        parameter = net.get_submodule(str(flow.target)).weight
        step = torch.from_numpy(np.ascontiguousarray(outputs_first(node, delta)))
        found[thing.name] = parameter.requires_grad_(True), step
    return found


def _step(value: torch.Tensor, thing: Rounded) -> torch.Tensor:
    """What rounding the activation adds to it."""
    assert thing.scale is not None
    assert thing.zero is not None
    limits = np.iinfo(thing.zero.dtype)
    real = value.detach()
    return (
        torch.fake_quantize_per_tensor_affine(
            real, float(thing.scale), int(thing.zero), int(limits.min), int(limits.max)
        )
        - real
    )
