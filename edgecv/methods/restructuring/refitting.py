"""min_{W, b} Σ_x |W x̂ + b − t|² + λ |W − W₀|²: each layer again gives what it gave before.

t is what the layer gave in the network as it came, x̂ what reaches it now that the activations in
front of it are others and the layers before it were fitted: layer by layer in the order in which
they run, in closed form, without labels (as channel pruning reconstructs a layer, He et al., ICCV
2017). λ is relative to each input's own energy. What an activation lost in scale and mean, the
layers that read it take back.

Pitfall: images that are alike leave directions of x̂ without energy: λ keeps the old weights there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.backends.onnxruntime.tensors import runner
from edgecv.context import no_progress
from edgecv.methods.distillation.relevance import probabilities, relevance, weights
from edgecv.methods.distillation.student import Layer, Student, read, written
from edgecv.methods.restructuring.activations import ended, quantities
from edgecv.one_thread import one_thread

IMAGES, PLACES = 64, 500  # images, and places of each map that are looked at
RIDGE = 1e-1  # λ, of an input's energy
LARGEST = 1 << 27  # floats that one map of all images may take


def refitted(
    before: Any,
    after: Any,
    images: np.ndarray,
    seed: int = 0,
    progress: Callable[..., None] = no_progress,
    aims: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Any:
    """A copy of `after` with other weights and biases in its convolutions and dense layers.

    before, after: onnx.ModelProto of one image and the same layers; images: float32 (N, C, H, W)
    aims: tensors that are wanted otherwise than before: b t + a, (b, a) each (C,)
    Raises UnsupportedError: an operator that torch cannot simulate.
    """
    student = read(after, "activations")
    layers = [layer for layer in student.layers if _fits(student, layer)]
    images = _some(images, student)
    rng = np.random.default_rng(seed)
    names, ends = [layer.tensor for layer in layers], quantities(before)
    probable = probabilities(before, ends)
    every = list(dict.fromkeys([*names, *ends]))
    places: dict[str, list[np.ndarray]] = {name: [] for name in names}
    taught: dict[str, list[np.ndarray]] = {name: [] for name in names}
    run = runner(ended(before, every))
    for image in images:
        found = dict(zip(every, run(image), strict=True))
        matter = weights(ends, [found[name] for name in ends], probable)
        for layer in layers:
            values, conv = found[layer.tensor][0], _is_conv(student, layer)
            places[layer.tensor].append(_places(rng, values, conv, matter))
            taught[layer.tensor].append(_at(values, places[layer.tensor][-1], conv))
    wanted = {n: torch.from_numpy(np.concatenate(v, 1)) for n, v in taught.items()}
    for name, (b, a) in (aims or {}).items():
        if name in wanted:
            wanted[name] = (
                wanted[name] * torch.from_numpy(b)[:, None] + torch.from_numpy(a)[:, None]
            )
    with one_thread(), torch.no_grad():
        _Refit(student, layers, places, wanted, progress).run(torch.from_numpy(images))
    values = {
        name: getattr(student.net.get_submodule(layer.module), parameter)
        for layer in layers
        for parameter, (name, _) in layer.held.items()
    }
    return written(after, layers, values)


def _fits(student: Student, layer: Layer) -> bool:
    module = student.net.get_submodule(layer.module)
    return isinstance(module, nn.Conv2d | nn.Linear) and "weight" in layer.held


def _is_conv(student: Student, layer: Layer) -> bool:
    return isinstance(student.net.get_submodule(layer.module), nn.Conv2d)


def _some(images: np.ndarray, student: Student) -> np.ndarray:
    sizes = [np.prod(flow.meta.get("shape", (1,))) for flow in student.flow.values()]
    count = int(np.clip(LARGEST // max(int(max(sizes)), 1), 1, min(IMAGES, len(images))))
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def _places(
    rng: np.random.Generator, values: np.ndarray, conv: bool, matter: Sequence[np.ndarray]
) -> np.ndarray:
    """Which places of a layer's result are looked at, (places,) into the map: half of them
    anywhere, half where the network finds something."""
    sides = values.shape[1:] if conv else values.shape[:-1]
    total = int(np.prod(sides))
    if total <= PLACES:
        return np.arange(total)
    map_ = relevance(matter, (int(sides[0]), int(sides[1]))) if len(sides) == 2 else None
    chance = np.full(total, 1.0 / total)
    if map_ is not None:
        chance += map_.ravel() / map_.sum()
    return np.argpartition(-np.log(chance) - rng.gumbel(size=total), PLACES)[:PLACES]


def _at(values: np.ndarray, places: np.ndarray, conv: bool) -> np.ndarray:
    """(outputs, places) of a convolution's (C, H, W), or of a dense layer's (..., C)."""
    if conv:
        return values.reshape(len(values), -1)[:, places]
    return values.reshape(-1, values.shape[-1])[places].T


class _Refit(fx.Interpreter):
    """Runs the network on all images at once, and fits each layer when it is reached."""

    def __init__(
        self,
        student: Student,
        layers: Sequence[Layer],
        places: dict[str, list[np.ndarray]],
        wanted: dict[str, torch.Tensor],
        progress: Callable[..., None],
    ) -> None:
        super().__init__(student.net)
        self._layers = {student.flow[layer.tensor].name: layer for layer in layers}
        self._places, self._wanted, self._progress = places, wanted, progress
        self._done = 0

    def run_node(self, n: fx.Node) -> Any:
        layer = self._layers.get(n.name)
        if layer is not None:
            module: Any = self.module.get_submodule(layer.module)
            (x,), _ = self.fetch_args_kwargs_from_env(n)
            places, wanted = self._places[layer.tensor], self._wanted.pop(layer.tensor)
            patches = (
                _dense(x, places) if isinstance(module, nn.Linear) else _patches(module, x, places)
            )
            _solve(module, patches, wanted, "bias" in layer.held)
            self._done += 1
            self._progress(self._done, len(self._layers), "layers fitted")
        return super().run_node(n)


def _dense(x: torch.Tensor, places: list[np.ndarray]) -> torch.Tensor:
    """(1, inputs, samples)"""
    rows = [
        one.reshape(-1, one.shape[-1])[torch.from_numpy(p)]
        for one, p in zip(x, places, strict=True)
    ]
    return torch.cat(rows).T[None]


def _patches(conv: nn.Conv2d, x: torch.Tensor, places: list[np.ndarray]) -> torch.Tensor:
    """What the convolution multiplies at those places: (groups, inputs of one output, samples)."""
    (kh, kw), (sy, sx), (dy, dx) = conv.kernel_size, conv.stride, conv.dilation
    py, px = conv.padding if not isinstance(conv.padding, str) else (0, 0)
    x = F.pad(x, (px, px, py, py))
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    columns = []
    for image, chosen in zip(x, places, strict=True):
        at = torch.from_numpy(chosen)
        y, z = at // width * sy, at % width * sx
        taps = [image[:, y + u * dy, z + v * dx] for u in range(kh) for v in range(kw)]
        columns.append(torch.stack(taps, 1))
    found = torch.cat(columns, 2)  # (C, taps, samples)
    return found.reshape(conv.groups, -1, found.shape[2])


def _solve(layer: Any, x: torch.Tensor, wanted: torch.Tensor, bias: bool) -> None:
    """Set weight and bias. x: (groups, inputs, samples); wanted: (outputs, samples). In float64:
    the inputs of a layer are alike, and their products lose half of the digits."""
    x = x.double()
    t = wanted.double().reshape(len(x), -1, x.shape[2])
    old = layer.weight.double().reshape(len(x), t.shape[1], -1)
    mean_x = x.mean(2, keepdim=True) if bias else torch.zeros_like(x[..., :1])
    mean_t = t.mean(2, keepdim=True) if bias else torch.zeros_like(t[..., :1])
    if not bias and layer.bias is not None:
        t = t - layer.bias.double().reshape(len(x), -1, 1)
    x, t = x - mean_x, t - mean_t
    energy = x @ x.mT
    own = energy.diagonal(dim1=1, dim2=2)
    ridge = RIDGE * own + 1e-6 * own.mean(1, keepdim=True) + 1e-12
    missed = (t - old @ x) @ x.mT
    new = old + torch.linalg.solve(energy + torch.diag_embed(ridge), missed.mT).mT
    layer.weight.copy_(new.reshape(layer.weight.shape))
    if bias:
        layer.bias.copy_((mean_t - new @ mean_x).flatten())
