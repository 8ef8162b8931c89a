"""θ ← θ - lr(t) · AdamW(∇ CE(f(x; θ), y)): train a network on labelled images.

Cross-entropy with AdamW (Loshchilov & Hutter, ICLR 2019) or SGD with momentum, a cosine schedule
with linear warm-up, optional weight averaging (EMA). With a `teacher` (a step, a Model folder, an
.onnx file; `self` is the network that came in) the loss is (1 − a) CE + a T² KL(p_t ‖ p), Hinton
et al., 2015. Pitfalls: weight decay is not applied to biases and batch norm; `lr` is for the batch
size given, scale it with the batch.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from edgecv import tasks
from edgecv.context import Context
from edgecv.errors import StageError
from edgecv.methods.training.plan import Plan
from edgecv.stages.base import Stage
from edgecv.tasks.base import Task

if TYPE_CHECKING:
    from torch import nn

    from edgecv.methods.distillation.distill_loss import DistillLoss


class Training(Stage):
    """The parameters of every stage that trains."""

    resumable: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    fills: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    batch_size: int | None = Field(
        default=None, ge=1, description="images per step; default 64, fewer for small sets"
    )
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.5, ge=0, description="linear warm-up")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of averaged weights; 0 is off")
    flip: bool = Field(default=True, description="mirror images at random")
    shift: int = Field(default=2, ge=0, description="shift images at random, pixels")
    scale: float = Field(
        default=0.0, ge=0, le=4, description="of boxes and maps: pictures up to 1 + scale larger"
    )
    colour: float = Field(
        default=0.0, ge=0, le=1, description="brightness, contrast and saturation at random"
    )
    mosaic: float = Field(
        default=0.0, ge=0, le=1, description="of boxes: the share of pictures made of four"
    )

    teacher: str = Field(
        default="none",
        description="self: the network that came in; none: labels alone; an earlier step; model; "
        "a Model folder; an .onnx file",
    )
    distill: float = Field(default=0.5, ge=0, le=1, description="a: the teacher's share")
    temperature: float = Field(default=4.0, gt=0, description="T of the teacher's softmax")
    logits_mse: float = Field(default=0.0, ge=0, description="m: weight of the logits' distance")

    def parameters(self) -> dict[str, Any]:
        """A teacher that is a step or a file counts by what it holds, not by its name."""
        named = self.teacher not in ("self", "none")
        return super().parameters() | ({"teacher": "named"} if named else {})

    def unfit(self, task: str) -> str:
        for name in ("label_smoothing", "logits_mse"):
            if getattr(self, name):
                return f"{name} is of one class an image"
        said = self.model_fields_set
        for name in ("temperature", "dkd_beta"):  # of a softmax; no value of theirs is "off"
            if name in said:
                return f"{name} is of one class an image"
        return self.unread(task)

    def unread(self, task: str) -> str:
        said = self.model_fields_set
        known = tasks.task(task).augments if task in tasks.names() else Task.augments
        for name in Task.augments:
            if name in said and getattr(self, name) and name not in known:
                does = f"it changes pictures by {', '.join(known)}" if known else "it changes none"
                return f"{name} is not among what it reads: {does}"
        return ""

    def plan(self, epochs: int, lr: float) -> Plan:
        """How to train, of these parameters."""
        shared = {f.name for f in fields(Plan)} - {"epochs", "lr"}
        return Plan(epochs=epochs, lr=lr, **{name: getattr(self, name) for name in shared})

    def dense(self, module: nn.Module) -> nn.Module | None:
        """A copy of the network before a stage changes it, where that is the teacher."""
        from edgecv.methods.distillation.teacher import own

        return own(module) if self.teacher == "self" else None

    def teaching(
        self, module: nn.Module, context: Context, dense: nn.Module | None = None
    ) -> nn.Module | None:
        """The teacher of `module` in eval mode, or None. dense: the network that came in.

        Raises StageError where its classes are others.
        """
        import torch

        from edgecv.methods.distillation import teacher

        if self.teacher == "none":
            return None
        if self.teacher == "self":
            if dense is None:
                return None
            found = teacher.settled(dense)
        elif "teacher" in context.inputs:
            place, pre = context.inputs["teacher"], context.preprocess
            found = teacher.load(place, pre, context.labels, context.where, context.classifies)
        else:
            hint = "a recipe gives it: a step, a Model folder or an .onnx file"
            raise StageError(context.where, f"teacher {self.teacher!r} is not here", hint)
        sample = torch.zeros(1, context.preprocess.channels, *context.preprocess.size)
        teacher.check_classes(found, module, sample, context.where, context.classifies)
        return found

    def distill_loss(
        self,
        module: nn.Module,  # noqa: ARG002
        context: Context,  # noqa: ARG002
        teacher: nn.Module | None,
    ) -> DistillLoss:
        """The loss of training `module` with that teacher."""
        from edgecv.methods.distillation.distill_loss import DistillLoss

        return DistillLoss(teacher, self.distill, self.temperature, self.logits_mse)

    def finetune(
        self,
        module: nn.Module,
        context: Context,
        epochs: int,
        lr: float,
        teacher: nn.Module | None = None,
    ) -> dict[str, Any]:
        """Train `module` in place on data.train; return facts, with the metric that it ends at.

        teacher: what `dense` kept before the stage changed the network, for `teacher: self`
        """
        from edgecv.methods.training.judging import judged
        from edgecv.methods.training.loop import Trainer

        distill_loss = self.distill_loss(module, context, self.teaching(module, context, teacher))
        plan = self.plan(epochs, lr)
        facts = Trainer(module, context.images("train"), plan, context, distill_loss).fit()
        facts |= context.accuracy(judged(module, context.images("test"), context))
        return facts | ({"teacher": self.teacher} if self.teacher != "none" else {})


class Train(Training):
    """Train the network that the step reads, on data.train."""

    word: ClassVar[str] = "train"

    epochs: int = Field(default=10, ge=1)
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate")

    def run(self, source: Any, context: Context) -> None:
        model, module = source
        facts = self.finetune(module, context, self.epochs, self.lr, self.dense(module))
        model.with_facts(context.where, facts).save(context.out, module.eval())
