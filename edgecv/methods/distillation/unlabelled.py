"""min_θ mean_q Σ w (q(x; θ) − q(x))² / Σ w q² + mean_b ‖b(x; θ) − b(x)‖² / var b: no labels.

A network that was changed (other activations, pruned channels' neighbours) learns from its float
self on unlabelled pictures: q is what it answers, each quantity on its own scale (boxes beside
probabilities) and each place by what it matters (`relevance.py`), b what its blocks give (FitNets,
Romero et al., ICLR 2015). Pictures are mirrored, scaled and cropped at random; the network that
teaches sees the same ones.

Adam moves each weight in units of its own channel's size and a cosine schedule ends it: channels of
a network whose batch norms were folded differ a thousandfold. Some pictures are held back; the
state that serves those best is kept, and the start is one of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call

from edgecv.backends.onnxruntime.tensors import Runner, runner
from edgecv.context import no_progress
from edgecv.errors import DataError, ParityError
from edgecv.graphs.onnx.epilogues import epilogues
from edgecv.graphs.onnx.index import Index
from edgecv.methods.distillation.relevance import probabilities, weights
from edgecv.methods.distillation.student import Student, read, written
from edgecv.methods.restructuring.activations import ended, quantities
from edgecv.methods.training.loop import memory_format
from edgecv.one_thread import one_thread

HELD_BACK = 10  # every so-manyth image
LEAST = 2 * HELD_BACK  # images
CHECKS = 8  # times that the images held back are looked at
WARM_UP = 0.05  # share of the steps over which the rate rises
SCALES = 0.75, 1.5  # of the pictures
CROP, STRIDE = 0.62, 32  # a crop's side in the image's; a multiple of it
SAME = 1e-2  # how far torch's error and ONNX Runtime's may be apart, of the larger one


@dataclass(frozen=True)
class Plan:
    """passes: over the images. rate: the steepest of Adam, in a weight's own units."""

    passes: int = 20
    rate: float = 3e-4
    batch: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """before, after: mean over the answers of the squared error in units of their own square, on
    images held back. images: that it learned from."""

    before: float
    after: float
    images: int
    held_back: int
    passes: int

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def distilled(
    teacher: Any,
    student: Any,
    images: np.ndarray,
    held: np.ndarray,
    plan: Plan,
    where: str,
    progress: Callable[..., None] = no_progress,
) -> tuple[Any, Outcome]:
    """A copy of `student` with other weights, never further off than it came, and what came of it.

    teacher, student: onnx.ModelProto of one image, with the same names of tensors
    images, held: float32 (N, C, H, W) as the network takes them: to learn from, and held back
    Raises UnsupportedError: an operator that torch cannot run; ParityError: the file answers
    otherwise than what was trained.
    """
    with one_thread():
        work = _Work(teacher, student, images, held, plan, where)
        before = best = work.error()
        kept = work.values()
        steps = work.steps
        for done in work.train():
            if done % -(-steps // CHECKS) and done < steps:
                progress(done, steps, f"error {best:.4f}, at first {before:.4f}")
                continue
            now = work.error()
            if now < best:
                best, kept = now, work.values()
            progress(done, steps, f"error {now:.4f}, the least {best:.4f}, at first {before:.4f}")
    made = written(student, work.full.layers, kept)
    _prove(work, made, best, where)
    return made, Outcome(before, best, len(images), len(held), plan.passes)


def parted(images: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images to learn from, and every tenth held back. Raises DataError: too few."""
    if len(images) < LEAST:
        what = f"{len(images)} images are too few to learn from and to hold some back"
        raise DataError(where, what, f"give at least {LEAST}; some hundred serve better")
    held = np.arange(HELD_BACK // 2, len(images), HELD_BACK)
    return np.delete(images, held, 0), images[held]


def blocks(model: Any, ends: Sequence[str]) -> list[str]:
    """Where paths of the network meet or part, before `ends`: sums, joins, what several layers
    read."""
    index = Index(model.graph)
    inner = {name for one in epilogues(model) for name in one.inner}
    alive = {name for node in ended(model, ends).graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        name = node.output[0]
        readers = [n for n in index.readers[name] if n.output[0] not in inner]
        if (
            name in alive
            and name not in ends
            and name not in inner
            and (node.op_type in ("Add", "Concat") or len(readers) > 1)
        ):
            found.append(name)
    return found


def _prove(work: _Work, made: Any, best: float, where: str) -> None:
    """Whether ONNX Runtime finds the error that torch found."""
    run, total = runner(ended(made, work.ends)), 0.0
    for i, image in enumerate(work.held_back):
        total += work.divergence(run(image), i)
    found = total / len(work.wanted)
    if abs(found - best) > SAME * max(found, best) + 1e-6:
        what = (
            f"the file's answers are {found:.5f} from its float self's, the trained ones {best:.5f}"
        )
        raise ParityError(where, what, "keep its activations")


class _Work:
    """Teacher in ONNX Runtime, student in torch, at the images' size and at that of the crops."""

    def __init__(
        self,
        teacher: Any,
        student: Any,
        images: np.ndarray,
        held: np.ndarray,
        plan: Plan,
        where: str,
    ) -> None:
        self.ends = quantities(teacher)
        names = [n for n in blocks(teacher, self.ends) if n in blocks(student, self.ends)]
        self.names = [*self.ends, *names]
        self.plan, self.held_back, self._images = plan, held, images
        teach = runner(ended(teacher, self.ends))
        self.wanted = [teach(image) for image in self.held_back]
        self._probable = probabilities(teacher, self.ends)
        self._weights = [weights(self.ends, wanted, self._probable) for wanted in self.wanted]
        squares = [
            [(w * np.square(t)).mean() for w, t in zip(by, wanted, strict=True)]
            for by, wanted in zip(self._weights, self.wanted, strict=True)
        ]
        self._power = np.maximum(np.mean(squares, 0), 1e-12)
        self.full = read(ended(student, self.ends), where)
        self.crop, self._teach, self._student = _cropped(
            teacher, student, self.names, images, where
        )
        self._format = memory_format(self._student.net)
        self._student.net.to(memory_format=self._format)  # type: ignore[call-overload]
        self._units, self._leaves = _leaves(self._student)
        first = [self._teach(self._cut(image)) for image in self.held_back]
        spread = [np.mean([w[i].var() for w in first]) for i in range(len(self.names))]
        self._spread = [max(float(one), 1e-12) for one in spread]
        self._order = np.random.default_rng(plan.seed)

    @property
    def steps(self) -> int:
        return self.plan.passes * -(-len(self._images) // self.plan.batch)

    def train(self) -> Iterator[int]:
        """Yields the number of steps done after each."""
        plan, done = self.plan, 0
        optimizer = torch.optim.Adam(list(self._leaves.values()), plan.rate, betas=(0.9, 0.99))
        for _ in range(plan.passes):
            shuffled = self._order.permutation(len(self._images))
            for start in range(0, len(shuffled), plan.batch):
                optimizer.param_groups[0]["lr"] = plan.rate * _schedule(done / self.steps)
                optimizer.zero_grad()
                self._loss(
                    [self._drawn(i) for i in shuffled[start : start + plan.batch]]
                ).backward()
                optimizer.step()
                done += 1
                yield done

    def _loss(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        rows = [self._teach(image) for image in images]
        weighted = [weights(self.ends, row[: len(self.ends)], self._probable) for row in rows]
        x = torch.from_numpy(np.stack(images)).contiguous(memory_format=self._format)
        answers = _called(self._student, self._now(self._student), x)
        parts: list[list[torch.Tensor]] = [[], []]
        for i, got in enumerate(answers):
            want = torch.from_numpy(np.concatenate([row[i] for row in rows]))
            if i < len(self.ends):
                by = torch.from_numpy(np.concatenate([one[i] for one in weighted]))
                by = by if by.ndim == want.ndim else torch.ones(())
                parts[0].append((by * (got - want).square()).mean() / self._power[i])
            else:
                parts[1].append(F.mse_loss(got, want) / self._spread[i])
        return sum((torch.stack(part).mean() for part in parts if part), torch.zeros(()))

    def error(self) -> float:
        """The mean over the images held back."""
        state = {k: v.detach() for k, v in self._now(self.full).items()}
        total = 0.0
        with torch.no_grad():
            for i, image in enumerate(self.held_back):
                found = _called(self.full, state, torch.from_numpy(image[None]))
                total += self.divergence([one.numpy() for one in found], i)
        return total / len(self.wanted)

    def divergence(self, found: Sequence[np.ndarray], image: int) -> float:
        """How far answers to an image held back are off."""
        every = zip(found, self.wanted[image], self._weights[image], self._power, strict=True)
        return float(np.mean([(w * np.square(a - b)).mean() / p for a, b, w, p in every]))

    def values(self) -> dict[str, torch.Tensor]:
        """By initializer."""
        return {n: (v * self._units[n]).detach().clone() for n, v in self._leaves.items()}

    def _now(self, student: Student) -> dict[str, torch.Tensor]:
        return {
            f"{layer.module}.{parameter}": self._leaves[name] * self._units[name]
            for layer in student.layers
            for parameter, (name, _) in layer.held.items()
        }

    def _drawn(self, index: int) -> np.ndarray:
        """An image (C, h, w), mirrored, scaled and cropped at random."""
        rng, image = self._order, self._images[index]
        if rng.random() < 0.5:
            image = image[..., ::-1]
        if self.crop is not None:
            scale = float(np.exp(rng.uniform(*np.log(SCALES))))
            size = [
                max(round(scale * n), c) for n, c in zip(image.shape[1:], self.crop, strict=True)
            ]
            x = torch.from_numpy(image[None].copy())
            image = F.interpolate(x, size, mode="bilinear", antialias=True)[0].numpy()
            image = self._cut(image, rng)
        return np.ascontiguousarray(image)

    def _cut(self, image: np.ndarray, rng: Any = None) -> np.ndarray:
        """A crop at random; in the middle without `rng`."""
        if self.crop is None:
            return image
        room = [n - c for n, c in zip(image.shape[1:], self.crop, strict=True)]
        y, x = (int(rng.integers(0, n + 1)) if rng else n // 2 for n in room)
        return image[:, y : y + self.crop[0], x : x + self.crop[1]]


def _schedule(share: float) -> float:
    return min(1.0, share / WARM_UP + WARM_UP) * 0.5 * (1 + float(np.cos(np.pi * share)))


def _cropped(
    teacher: Any, student: Any, names: Sequence[str], images: np.ndarray, where: str
) -> tuple[tuple[int, int] | None, Runner, Student]:
    """Both on crops, a third of the work, where the network takes images of any size; else as they
    are."""
    sides = [max(STRIDE, round(CROP * n / STRIDE) * STRIDE) for n in images.shape[2:]]
    size: tuple[int, int] | None = (min(sides[0], images.shape[2]), min(sides[1], images.shape[3]))
    try:
        teach = runner(ended(teacher, names, size))
        found = read(ended(student, names, size), where)
        shapes = [one.shape for one in teach(images[0][:, : size[0], : size[1]])] if size else []
        flows = [tuple(found.flow[name].meta["shape"]) for name in names]
        fits = shapes == flows and all(len(shape) == 4 for shape in shapes)
    except Exception:  # the engine's own, of a size that is written into the file
        fits = False
    if not fits or size == images.shape[2:]:
        size, teach, found = None, runner(ended(teacher, names)), read(ended(student, names), where)
    return size, teach, found


def _leaves(student: Student) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What is trained, by initializer, and the unit of it: the root mean square of a channel's
    weights, or of a layer's biases."""
    units, leaves = {}, {}
    for layer in student.layers:
        module = student.net.get_submodule(layer.module)
        for parameter, (name, _) in layer.held.items():
            value = getattr(module, parameter).detach()
            axes = tuple(range(1, value.ndim)) or (0,)
            unit = value.square().mean(axes, keepdim=True).sqrt()
            units[name] = unit.clamp_min(max(1e-3 * float(unit.max()), 1e-8))
            leaves[name] = (value / units[name]).requires_grad_(True)
    return units, leaves


def _called(student: Student, state: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[Any, ...]:
    found = functional_call(student.net, state, (x,))
    return found if isinstance(found, tuple) else (found,)
