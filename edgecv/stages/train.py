"""θ ← θ - lr(t) · AdamW(∇ CE(f(x; θ), y)): train a network on labelled images.

Cross-entropy with AdamW (Loshchilov & Hutter, ICLR 2019) or SGD with momentum, a cosine schedule
with linear warm-up, optional weight averaging (EMA). Pitfalls: weight decay is not applied to
biases and batch norm; `lr` is for the batch size given, scale it with the batch.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Literal

from pydantic import Field

from edgecv.stages.base import Context, Stage
from edgecv.training import Plan


class Training(Stage):
    """The parameters of every stage that trains."""

    resumable: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "numpy", "safetensors")
    sources: ClassVar[tuple[str, ...]] = ("edgecv.training", "edgecv.model", "edgecv.edits")

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

    def plan(self, epochs: int, lr: float) -> Plan:
        """How to train, of these parameters."""
        shared = {f.name for f in fields(Plan)} - {"epochs", "lr"}
        return Plan(epochs=epochs, lr=lr, **{name: getattr(self, name) for name in shared})


class Train(Training):
    """Train the network that the step reads, on data.train."""

    word: ClassVar[str] = "train"

    epochs: int = Field(default=10, ge=1)
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate")

    def run(self, source: Any, context: Context) -> None:
        from edgecv.training import Trainer, top1

        model, module = source
        trainer = Trainer(module, context.images("train"), self.plan(self.epochs, self.lr), context)
        facts = trainer.fit()
        facts["top1"] = top1(module, context.images("test"), context)
        model.with_facts(context.where, facts).save(context.out, module.eval())
