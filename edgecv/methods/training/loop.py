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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import StageError
from edgecv.tasks.augment import augmented

if TYPE_CHECKING:
    import torch

    from edgecv.context import Context
    from edgecv.data.images import Images
    from edgecv.methods.distillation.distill_loss import DistillLoss
from edgecv.methods.training.judging import task_of, truths_of
from edgecv.methods.training.plan import Plan, learning_rate

MOMENTUM = 0.9  # of SGD


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
        distill_loss: DistillLoss | None = None,
    ):
        """distill_loss: the loss with a teacher; None is cross-entropy alone."""
        import torch

        from edgecv.methods.distillation.distill_loss import DistillLoss
        from edgecv.methods.training.train_mode import check_train_mode

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
        self.distill_loss = replace(distill_loss or DistillLoss(), task=self.task)
        self.beside = self.distill_loss.adapters or torch.nn.Module()  # trained, and no part of it
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
        return self.distill_loss.loss(self.module, x, y, self.plan.label_smoothing)

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
