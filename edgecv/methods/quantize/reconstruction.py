"""min_{w, b} |f̂(x) − f(x)|² / |f(x)|² + mean over blocks of the same: the float network teaches.

Rounding chosen layer by layer does not know what later layers make of its error. Here the whole
integer network is simulated and its weights and biases move by gradients that pass through the
rounding as if it were not there, towards the float network's own outputs and those of its blocks;
no labels are needed. As in BRECQ (Li et al., ICLR 2021), with all blocks at once.

Weights are held in units of their steps and start where `rounding.py` left them; at Adam's rate a
weight moves a fraction of a step, so that only those near a boundary change sides.

Pitfall: a hundred images are soon learnt by heart. A tenth of them is held back, the state that
serves those best is the one that is kept, and the start is one of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgecv.cores import ahead
from edgecv.errors import DataError, UnsupportedError
from edgecv.one_thread import one_thread
from edgecv.samples import CalibrationData

PASSES, STEPS, BATCH, SEED = 3, 54, 8, 0  # at least so many passes, and so many steps
WEIGHT_RATE, BIAS_RATE = 4e-3, 5e-5  # steps of a weight; shares of a layer's output
NEAR = 0.45  # how far from its integer a weight may start, in steps
HELD_BACK = 10  # every so-manyth image
LARGEST = 1 << 27  # floats that a batch's activations may take


class Place(Protocol):
    """Where a quantized graph keeps a layer, output channel first. scale: (O,) or (1,)."""

    scale: np.ndarray

    def integers(self) -> np.ndarray: ...
    def bias(self) -> np.ndarray: ...
    def write(self, q: np.ndarray, s: np.ndarray, bias: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Subject:
    """A float network in torch, and what its quantized graph holds.

    net:         the float network, (N, C, H, W) in, logits out; changed in place
    flow:        its node that makes each tensor, by the tensor's name
    output:      the name of the logits; blocks: of the tensors to hold on to besides
    layers:      (name of the module in net, the tensor it makes, where its integers are kept)
    activations: scale and zero point, an array of the integers' type, by tensor
    teach:       images and names → those tensors of the float graph, image by image
    feed:        images as the samples hold them → (N, C, H, W)
    """

    net: fx.GraphModule
    flow: dict[str, fx.Node]
    output: str
    blocks: Sequence[str]
    layers: Sequence[tuple[str, str, Place]]
    activations: dict[str, tuple[float, np.ndarray]]
    teach: Callable[[np.ndarray, Sequence[str]], Iterator[dict[str, np.ndarray]]]
    feed: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """SQNR of the simulated outputs on the images held back, before and after, in decibel."""

    before_db: float
    after_db: float
    passes: int
    images: int

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}


def check_count(samples: CalibrationData) -> None:
    """Raises DataError where there are too few images to tune on and to hold some back."""
    if not isinstance(samples, np.ndarray):
        what = "tunes networks of one image alone"
        raise UnsupportedError("quantize.reconstruction", what, "leave it out")
    if len(samples) < 2 * HELD_BACK:
        what = f"{len(samples)} images are too few to tune on and to hold some back"
        raise DataError("quantize.reconstruction", what, f"give at least {2 * HELD_BACK}")


def reconstruct(subject: Subject, samples: CalibrationData, limit: int) -> Outcome:
    """Tune the integers and biases where the subject keeps them; they stay where nothing is won.

    limit: the largest integer a weight may take.
    """
    held = np.arange(HELD_BACK // 2, len(samples), HELD_BACK)
    seen = np.setdiff1d(np.arange(len(samples)), held)
    with one_thread():
        work = _Work(subject, limit)
        before = best = work.sqnr_db(samples[held])
        kept = work.state()
        passes = 0
        for _ in work.train(samples[seen]):
            passes += 1
            now = work.sqnr_db(samples[held])
            if now > best:
                best, kept = now, work.state()
        if best > before:
            work.write(kept)
    return Outcome(before, best, passes, len(seen))


class _Work:
    """The integer network in torch beside the float one in its engine."""

    def __init__(self, subject: Subject, limit: int) -> None:
        self._of, self._net = subject, subject.net
        self._layers: list[_Layer] = []
        self._wanted: list[np.ndarray] = []
        for target, _, place in subject.layers:
            layer = _Layer(self._net.get_submodule(target), place, limit)
            self._net.set_submodule(target, layer)
            self._layers.append(layer)
        for parameter in self._net.parameters():
            parameter.requires_grad_(False)
        self._quantize_activations()

    def train(self, samples: Any) -> Iterator[None]:
        """Train; yields after each pass over the samples."""
        results = [tensor for _, tensor, _ in self._of.layers]
        first = next(iter(self._of.teach(samples[:1], results)))
        for tensor, layer in zip(results, self._layers, strict=True):
            layer.unit = float(np.sqrt(np.square(first[tensor]).mean())) or 1.0
            layer.v.requires_grad_(True)
            layer.shift.requires_grad_(True)
        elements = 4 * sum(first[tensor].size for tensor in results)
        batch = int(np.clip(LARGEST // max(elements, 1), 1, BATCH))
        optimizer = torch.optim.Adam(
            [
                {"params": [x.v for x in self._layers], "lr": WEIGHT_RATE},
                {"params": [x.shift for x in self._layers], "lr": BIAS_RATE},
            ],
            betas=(0.9, 0.95),
        )
        each = -(-len(samples) // batch)
        passes = max(PASSES, -(-STEPS // each))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * each)
        order = np.random.default_rng(SEED)
        for _ in range(passes):
            shuffled = order.permutation(len(samples))
            starts = range(0, len(samples), batch)
            batches = (samples[shuffled[start : start + batch]] for start in starts)
            for images, taught in ahead(self._taught, batches):
                optimizer.zero_grad()
                self._loss(images, taught).backward()
                optimizer.step()
                schedule.step()
            yield

    def _taught(self, images: np.ndarray) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """The images, and what the float network says of each."""
        names = [*self._of.blocks, self._of.output]
        return images, list(self._of.teach(images, names))

    def _loss(self, images: np.ndarray, rows: list[dict[str, np.ndarray]]) -> torch.Tensor:
        names = [*self._of.blocks, self._of.output]
        got = self._simulate(images, names)
        parts = []
        for name in names:
            want = torch.from_numpy(np.concatenate([row[name] for row in rows]))
            power = want.square().mean().clamp_min(1e-12)
            parts.append(F.mse_loss(got[name].reshape(want.shape), want) / power)
        return parts[-1] + sum(parts[:-1], torch.zeros(())) / max(len(parts) - 1, 1)

    def _simulate(self, images: np.ndarray, names: Sequence[str]) -> dict[str, torch.Tensor]:
        runner = Collect(self._net, {self._of.flow[name].name: name for name in names})
        runner.run(torch.from_numpy(np.ascontiguousarray(self._of.feed(images))))
        return runner.found

    def sqnr_db(self, samples: Any) -> float:
        """Of the images held back: always the same, so that the float network answers once."""
        signal = noise = 0.0
        name = self._of.output
        if not self._wanted:
            self._wanted = [row[name] for row in self._of.teach(samples, [name])]
        with torch.no_grad():
            for i, want in enumerate(self._wanted):
                got = self._simulate(samples[i : i + 1], [name])[name].numpy().reshape(want.shape)
                signal += float(np.square(want).sum())
                noise += float(np.square(want - got).sum())
        return float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))

    def state(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The integers and bias of each layer."""
        return [layer.integers() for layer in self._layers]

    def write(self, state: list[tuple[np.ndarray, np.ndarray]]) -> None:
        for (_, _, place), (q, bias) in zip(self._of.layers, state, strict=True):
            place.write(q, place.scale, bias)

    def _quantize_activations(self) -> None:
        graph = self._net.graph
        for tensor, (scale, zero) in self._of.activations.items():
            flow = self._of.flow.get(tensor)
            if flow is None or tensor == self._of.output:
                continue
            name = f"quantized_{flow.name}"
            self._net.add_submodule(name, _Activation(scale, zero))
            with graph.inserting_after(flow):
                made = graph.call_module(name, (flow,))
            users = [user for user in flow.users if user is not made]
            for user in users:
                user.replace_input_with(flow, made)
        self._net.recompile()


class _Layer(nn.Module):
    """A convolution or dense layer whose weights are s round(v), v in steps."""

    def __init__(self, real: nn.Module, place: Place, limit: int) -> None:
        super().__init__()
        self._real = real
        self._limit, self.unit = limit, 1.0
        q = np.ascontiguousarray(place.integers()).astype(np.float32)
        step = np.broadcast_to(place.scale, len(q)).astype(np.float32)
        self._step = torch.from_numpy(step.reshape(-1, *[1] * (q.ndim - 1)).copy())
        integers = torch.from_numpy(q)
        weight: Any = real.weight
        exact = weight.detach() / self._step
        self.v = nn.Parameter(integers + (exact - integers).clamp(-NEAR, NEAR))
        self._bias = torch.from_numpy(place.bias().astype(np.float32))
        self.shift = nn.Parameter(torch.zeros(len(q)))
        self._ones, self._zeros = torch.ones(len(q)), torch.zeros(len(q), dtype=torch.int32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = torch.fake_quantize_per_channel_affine(
            self.v, self._ones, self._zeros, 0, -self._limit, self._limit
        )
        weight, bias = rounded * self._step, self._bias + self.unit * self.shift
        real: Any = self._real
        if isinstance(real, nn.Linear):
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, real.stride, real.padding, real.dilation, real.groups)

    def integers(self) -> tuple[np.ndarray, np.ndarray]:
        """Integers, output channel first, and the bias, float64; copies."""
        q = self.v.detach().round().clamp(-self._limit, self._limit).numpy()
        return q, (self._bias + self.unit * self.shift.detach()).double().numpy()


class _Activation(nn.Module):
    """x rounded to the integers that the engine would hold."""

    def __init__(self, scale: float, zero: np.ndarray) -> None:
        super().__init__()
        limits = np.iinfo(zero.dtype)
        self._grid = scale, int(zero), int(limits.min), int(limits.max)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, *self._grid)


class Collect(fx.Interpreter):
    """Runs a graph and keeps some of its nodes' values. wanted: node name → the caller's name."""

    def __init__(self, net: fx.GraphModule, wanted: dict[str, str]) -> None:
        super().__init__(net)
        self._wanted = wanted
        self.found: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._wanted:
            self.found[self._wanted[n.name]] = value
        return value
