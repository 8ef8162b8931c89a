"""What a network learned, by the tensor names of a graph file that was exported from it.

    activations: {tensor: [low, high, bits]}, weights: {tensor: {"scale": [...], "bits": bits}}

Exporters rename, fuse, fold and transpose, and keep no names of ours. A tensor is recognised by
what it holds: one image goes through both, and the tensor that holds the same numbers in any order
as the network did where a quantizer sits is that quantizer's. A weight is recognised as in
`edgecv.methods.export._tflite_names`: each output channel is a multiple k of a layer's own, and
then

    w' = k ŵ = k s q,   so its scale is |k| s and its integers are q, or −q where k < 0

which is what folding a batch norm (k = γ / σ) does to it.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.graph import Graph
from edgecv.methods.qat import values
from edgecv.methods.qat.attach import of, plain, rounded
from edgecv.models.edits import Edit
from edgecv.models.model import Model

if TYPE_CHECKING:
    from edgecv.context import Context

log = logging.getLogger(__name__)
CLOSE = 2e-4  # of a tensor's largest value; exporting moves it by 1e-6, other tensors are 1e-2 away


class Trained:
    """What `export` makes of a network with quantizers.

    network: the float network of its own code, its weights on the learned grid
    """

    def __init__(self, model: Model, module: nn.Module) -> None:
        self._edit = next(e for e in model.edits if e["op"] == "quantizers")
        self._watched = rounded(module, self._edit)
        self.network = plain(copy.deepcopy(self._watched))

    def table(self, graph: Graph, pixels: np.ndarray, context: Context) -> dict[str, Any]:
        """What was learned by a float graph's tensor names; plain JSON.

        pixels: one image, uint8 (H, W, C). "missing" lists quantizers of tensors that the graph
        does not have; they are told in the log too.
        """
        nchw = replace(context.preprocess, layout="NCHW", dtype="float32")
        image = torch.from_numpy(nchw.normalise(pixels[None]))
        activations, found = _activations(graph, self._watched, self._edit, image)
        weights, layers = _weights(graph, self._watched, self._edit)
        missing = sorted(set(self._edit["quantizers"]) - found - layers)
        for name in missing:
            log.warning("%s: nothing in it holds what quantizer %s does", graph.path.name, name)
        return {"activations": activations, "weights": weights, "missing": missing}


def _activations(
    graph: Graph, network: nn.Module, edit: Edit, image: Tensor
) -> tuple[dict[str, list[float]], set[str]]:
    quantizers, seen = of(network), list[tuple[str, np.ndarray]]()
    quantizers.watch = lambda name, x: seen.append((name, _sorted(x.numpy())))
    with torch.no_grad():
        network(image)
    quantizers.watch = None
    held = {n: _sorted(v) for n, v in values.tensors(graph, image.numpy()).items()}
    table: dict[str, list[float]] = {}
    found = set()
    for name, wanted in seen:
        quantizer: Any = quantizers[name]
        step = float(quantizer.size().detach())
        span = [quantizer.low * step, quantizer.high * step, edit["quantizers"][name]["bits"]]
        for tensor, value in held.items():
            if _equal(wanted, value):
                found.add(name)
                table.setdefault(tensor, span)
    return table, found


def _weights(
    graph: Graph, network: nn.Module, edit: Edit
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    quantizers = of(network)
    table: dict[str, dict[str, Any]] = {}
    found = set()
    for tensor, value in values.weights(graph).items():
        real = value.reshape(len(value), -1).astype(np.float64)
        for name, q in edit["quantizers"].items():
            if "parameter" not in q:
                continue
            quantizer: Any = quantizers[name]
            own = network.get_parameter(q["parameter"]).detach().numpy()
            scale = _scale(real, own, quantizer.size().detach().numpy())
            if scale is not None:
                found.add(name)
                table.setdefault(tensor, {"scale": scale, "bits": q["bits"]})
    return table, found


def _scale(real: np.ndarray, own: np.ndarray, step: np.ndarray) -> list[float] | None:
    """The scales of a graph's weight (O, K) if it is that layer's, else None."""
    own = own.reshape(len(own), -1).astype(np.float64)
    if own.shape != real.shape:
        return None
    length = (own**2).sum(1)
    k = (real * own).sum(1) / np.where(length > 0, length, 1)
    if np.abs(real - k[:, None] * own).max() > 1e-5 * np.abs(real).max(initial=1e-30):
        return None
    if not (length > 0).any() or not k.any():
        return None
    k = np.where(k == 0, 1, np.abs(k))  # a channel of zeros: any scale will do
    if len(step) == 1 and np.ptp(k) < 1e-6 * k.max():
        return [float(step[0] * k.mean())]
    return [float(v) for v in step * k]


def _sorted(x: np.ndarray) -> np.ndarray:
    return np.sort(x, axis=None)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a[0] == a[-1]:  # a constant says nothing
        return False
    return bool(np.abs(a - b).max() <= CLOSE * max(-a[0], a[-1]))
