"""One training loop, for `train` and for the fine-tuning after other stages.

Deterministic for a seed and a number of threads: everything random is drawn from a generator seeded
by (seed, step, epoch), so a run that was killed goes on from its last epoch and ends in the same
bytes as one that was not.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import StageError
from edgecv.tasks.augment import augmented

if TYPE_CHECKING:
    import torch

    from edgecv.data.images import Images
    from edgecv.distillation.lesson import Lesson
    from edgecv.stages.base import Context
    from edgecv.tasks.base import Task

MOMENTUM = 0.9  # of SGD


@dataclass(frozen=True)
class Plan:
    """How to train. Learning rate in the optimizer's units; shift in pixels.

    batch_size: None is 64, or a power of two that leaves 16 steps in an epoch of a small set
    scale, colour, mosaic: where the task augments so (`edgecv.tasks.base.Task.augments`): made up
                1 + scale times larger or smaller; 0..1 of contrast; the share that are mosaics
    """

    epochs: int
    batch_size: int | None = None
    optimizer: str = "adamw"
    lr: float = 3e-3
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.0
    ema: float = 0.0
    flip: bool = True
    shift: int = 2
    scale: float = 0.0
    colour: float = 0.0
    mosaic: float = 0.0

    def batch(self, images: int) -> int:
        """Images per step."""
        if self.batch_size:
            return min(self.batch_size, images)
        return min(64, max(4, 1 << max(1, images // 16).bit_length() - 1), images)


def learning_rate(plan: Plan, step: int, steps_per_epoch: int) -> float:
    """lr(t): linear warm-up, then cosine to zero (Loshchilov & Hutter 2017), step, or constant."""
    total = max(1, plan.epochs * steps_per_epoch)
    warm = plan.warmup_epochs * steps_per_epoch
    if step < warm:
        return plan.lr * (step + 1) / (warm + 1)
    t = (step - warm) / max(1.0, total - warm)
    if plan.schedule == "cosine":
        return plan.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, t)))
    if plan.schedule == "step":
        return plan.lr * (0.1 ** (int(t >= 0.5) + int(t >= 0.75)))
    return plan.lr


def judged(module: torch.nn.Module, images: Images, context: Context, batch: int = 256) -> float:
    """The task's metric of the torch network, 0..1; of a classifier top-1, the share of images
    whose best class is the label."""
    import torch

    if not context.classifies or images.truth is not None:
        from edgecv.task_score import judge_module

        return judge_module(module, images, context)
    module.eval()
    right = 0
    with torch.inference_mode():
        for i in range(0, len(images.labels), batch):
            x = torch.from_numpy(context.preprocess.normalise(images.pixels[i : i + batch]))
            best = module(x.contiguous(memory_format=torch.channels_last)).argmax(1).numpy()
            right += int((best == images.labels[i : i + batch]).sum())
    return right / len(images.labels)


def memory_format(module: torch.nn.Module) -> torch.memory_format:
    """channels_last, which CPUs train faster in, where oneDNN does that rightly.

    Its gradient of a 1x1 convolution with a stride and fewer input channels than a register holds
    floats (8 of AVX2, 16 of AVX-512) writes beyond its memory in that format (torch 2.13): such a
    network keeps NCHW, on every processor, so that all train alike.
    """
    import torch

    for part in module.modules():
        if not isinstance(part, torch.nn.Conv2d) or part.in_channels >= 16:
            continue
        if max(part.kernel_size) == 1 and max(part.stride) > 1:
            return torch.contiguous_format
    return torch.channels_last


def task_of(module: torch.nn.Module, images: Images, context: Context) -> Task | None:
    """How what is true of images is learned; None where that is one class of several. Raises
    StageError: the data has other labels than the task learns from."""
    import torch

    from edgecv import task_score, tasks

    name = context.task or tasks.NONE
    if tasks.of_classes(name) and images.truth is None:
        return None
    found = tasks.task(name) if name in tasks.names() else None
    if found is None or images.kind not in found.truths():
        kind = images.kind.lower() or "images without labels"
        able = " or ".join(n for n in tasks.names() if images.kind in tasks.task(n).truths())
        hint = f"say task: {able}" if found is None and able else "give data with its own labels"
        raise StageError(context.where, f"task {name} does not learn from {kind}", hint)
    pre = context.preprocess
    with torch.no_grad():
        said = module.eval()(torch.zeros(1, pre.channels, *pre.size))
    return task_score.task_of(name, said, pre.size, len(images.classes), context.decode)


def truths_of(images: Images, chosen: np.ndarray, context: Context) -> list[Any]:
    """What is true of those images, in pixels of the input."""
    from edgecv.data.annotations import Boxes, Maps, placed

    truth, pre = images.told, context.preprocess
    if not isinstance(truth, Boxes | Maps):  # it lies nowhere in the picture
        return [truth[int(i)] for i in chosen]
    sizes = (tuple(map(int, truth.sizes[i])) for i in chosen)
    return [
        placed(truth[int(i)], pre.placement(*size), pre.size)
        for i, size in zip(chosen, sizes, strict=True)
    ]


class Trainer:
    """Fits a module to images; keeps a checkpoint at every epoch boundary in context.out.

    doubt: what else than the learning rate may be wrong where the loss is not finite
    """

    doubt = "check the data's mean and std"

    def __init__(
        self,
        module: torch.nn.Module,
        images: Images,
        plan: Plan,
        context: Context,
        lesson: Lesson | None = None,
    ):
        """lesson: the loss with a teacher; None is cross-entropy alone."""
        import torch

        from edgecv.distillation.lesson import Lesson
        from edgecv.train_mode import check_train_mode

        torch.set_num_threads(context.threads)
        pre = context.preprocess
        self.task = task_of(module, images, context)
        if self.task is not None:
            self.task.ready()  # not after an hour
        if self.task is None:  # a task's own loss says what it takes
            check_train_mode(module, (pre.channels, *pre.size), context.where)
        torch.manual_seed(context.seed)
        self.format = memory_format(module)
        self.module = module.to(memory_format=self.format)  # type: ignore[call-overload]
        self.images, self.plan, self.context = images, plan, context
        self.lesson = replace(lesson or Lesson(), task=self.task)
        self.beside = self.lesson.adapters or torch.nn.Module()  # trained, and no part of it
        self.batch = plan.batch(len(images.labels))
        trained = (*module.parameters(), *self.beside.parameters())
        self.parameters = [p for p in trained if p.requires_grad]
        if not self.parameters:
            hint = "set requires_grad on those that shall be trained"
            raise StageError(context.where, "all parameters of the network are frozen", hint)
        self.optimizer = self._optimizer()
        self.ema = {k: v.clone() for k, v in module.state_dict().items()} if plan.ema else {}
        self.losses: list[float] = []
        self.checkpoint = context.out / "checkpoint.safetensors"

    def _optimizer(self) -> torch.optim.Optimizer:
        import torch

        decayed = [p for p in self.parameters if p.ndim > 1]
        plain = [p for p in self.parameters if p.ndim <= 1]  # biases and batch norm: no decay
        groups = [
            {"params": decayed, "weight_decay": self.plan.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        if self.plan.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.plan.lr, momentum=MOMENTUM)
        return torch.optim.AdamW(groups, lr=self.plan.lr)

    def fit(self) -> dict[str, Any]:
        """Train to the end (from the last checkpoint, if one is there); return facts.

        Raises StageError when the loss is not finite.
        """
        epoch = self._restore()
        total = self.plan.epochs * self._steps()
        while epoch < self.plan.epochs:
            self._epoch(epoch, total)
            epoch += 1
            self._keep(epoch)
        if self.ema:
            self.module.load_state_dict(self.ema)
        self.checkpoint.unlink(missing_ok=True)
        return {"epochs": self.plan.epochs, "loss": [round(v, 6) for v in self.losses]}

    def _steps(self) -> int:
        return max(1, len(self.images.labels) // self.batch)

    def _batches(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        import torch

        # crc32 and not hash(): Python salts hash() anew in every process.
        where = zlib.crc32(self.context.where.encode())
        rng = np.random.default_rng([self.context.seed, where, epoch])
        order = rng.permutation(len(self.images.labels))
        for i in range(self._steps()):
            chosen = np.sort(order[i * self.batch : (i + 1) * self.batch])
            pixels, truths = self._changed(chosen, rng)
            x = torch.from_numpy(self.context.preprocess.normalise(pixels))
            yield x.contiguous(memory_format=self.format), truths

    def _changed(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        """Pictures changed at random, with their labels: (N,), or what is true of each in pixels
        of the input."""
        import torch

        pixels = self.images.pixels[chosen]
        if self.task is None:
            return augmented(pixels, self.plan, rng), torch.from_numpy(self.images.labels[chosen])
        return self.task.augmented(pixels, self.truths(chosen), self.plan, rng)

    def truths(self, chosen: np.ndarray) -> list[Any]:
        """What is true of those images, in pixels of the input."""
        return truths_of(self.images, chosen, self.context)

    def mode(self, epoch: int) -> None:  # noqa: ARG002
        """Put the module into the mode that this epoch trains in."""
        self.module.train()

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What is minimised, of one batch: images (N, C, H, W) and labels (N,), or of a task what
        is true of each image."""
        return self.lesson.loss(self.module, x, y, self.plan.label_smoothing)

    def _epoch(self, epoch: int, total: int) -> None:
        import torch

        torch.manual_seed(self.context.seed * 100_003 + epoch)
        self.mode(epoch)
        running = 0.0
        for i, (x, y) in enumerate(self._batches(epoch)):
            step = epoch * self._steps() + i
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.plan, step, self._steps())
            loss = self.loss(x, y)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise StageError(
                    self.context.where,
                    f"loss is {value} at epoch {epoch + 1}, batch {i + 1}",
                    f"lower lr (now {self.plan.lr}), or {self.doubt}",
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self._average()
            running += value
            note = f"epoch {epoch + 1}/{self.plan.epochs}, loss {running / (i + 1):.3f}"
            self.context.progress(step + 1, total, note)
        self.losses.append(running / self._steps())

    def _average(self) -> None:
        """Exponential moving average of the weights; counters are copied."""
        for name, value in self.module.state_dict().items() if self.ema else ():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1.0 - self.plan.ema)
            else:
                self.ema[name].copy_(value)

    def _keep(self, epoch: int) -> None:
        """Write the checkpoint of an epoch boundary, atomically."""
        from safetensors.torch import save_file

        tensors = {f"model.{k}": v.contiguous() for k, v in self.module.state_dict().items()}
        tensors |= {f"ema.{k}": v.contiguous() for k, v in self.ema.items()}
        tensors |= {f"beside.{k}": v.contiguous() for k, v in self.beside.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"opt.{i}.{k}": v.contiguous() for k, v in state.items()}
        notes = {"epoch": str(epoch), "losses": json.dumps(self.losses)}
        temporary = self.checkpoint.with_suffix(".tmp")
        save_file({k: v.clone() for k, v in tensors.items()}, temporary, metadata=notes)
        temporary.replace(self.checkpoint)

    def _restore(self) -> int:
        """Load the checkpoint if one is there; return the number of finished epochs."""
        import torch
        from safetensors import SafetensorError, safe_open

        if not self.checkpoint.exists():
            return 0
        try:
            with safe_open(self.checkpoint, "pt") as f:
                notes = f.metadata()
                tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return 0  # a torn file: start again
        pick = lambda p: {k[len(p) :]: v for k, v in tensors.items() if k.startswith(p)}  # noqa: E731
        self.module.load_state_dict(pick("model."))
        self.beside.load_state_dict(pick("beside."))
        for name, value in pick("ema.").items():
            self.ema[name].copy_(value)
        ordered = [p for g in self.optimizer.param_groups for p in g["params"]]
        for key, value in pick("opt.").items():
            index, name = key.split(".", 1)
            p = ordered[int(index)]
            # The same memory format as the parameter, so that the same kernels run.
            same = torch.empty_like(p).copy_(value) if value.shape == p.shape else value
            self.optimizer.state[p][name] = same
        self.losses = json.loads(notes["losses"])
        return int(notes["epoch"])
