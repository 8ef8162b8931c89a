"""y = s (sign(x − β) ⊛ sign(W)) + t + x: weights and activations of one bit, trained as they run.

Products of ±1 are counted, not multiplied: `dot = K − 2 popcount(a ^ w)`. A layer and the batch
norm behind it become one (`edgecv.binary.modules`); by form:

    xnor     sign, α = mean |W| for each filter          Rastegari et al., ECCV 2016
    bireal   a real shortcut around every layer          Liu et al., ECCV 2018
    react    that, a shift β before each sign, RPReLU    Liu et al., ECCV 2020

`weights: ternary` takes −1, 0 and +1 (TWN, Li & Liu 2016). `activations: real` keeps what layers
read in float: it saves bytes, and no time. The float network that came in is the teacher. In the
first of two steps only activations have one bit.

Pitfalls: the first and the last layer and projections stay in float, because there signs lose most
and time is least; Adam without weight decay; pooling belongs behind a binary layer's sum, not
behind a sign. Where the processor has fast int8 and no fast popcount, int8 is the better choice:
measure.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from edgecv import naming
from edgecv.errors import StageError
from edgecv.stages.base import Context
from edgecv.stages.train import Training

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


class Binarize(Training):
    """One bit for weights and activations, then train."""

    word: ClassVar[str] = "binarize"
    compresses: ClassVar[bool] = True
    renames: ClassVar[bool] = True
    sources: ClassVar[tuple[str, ...]] = (
        *Training.sources,
        "edgecv.binary.modules",
        "edgecv.binary.places",
        "edgecv.binary.replacing",
        "edgecv.binary.training",
        "edgecv.quantizers.calls",
    )

    form: Literal["react", "bireal", "xnor"] = Field(default="react", description="of the layers")
    weights: Literal["binary", "ternary"] = "binary"
    activations: Literal["binary", "real"] = Field(
        default="binary", description="what layers read; real saves bytes, no time"
    )
    layers: tuple[str, ...] = Field(
        default=(), description="names, modules or patterns; default: all that make sense"
    )
    estimator: Literal["clip", "polynomial", "annealed"] | None = Field(
        default=None, description="the sign's gradient; default: polynomial, of xnor clip"
    )
    two_step: bool = Field(default=True, description="half of the epochs with real weights first")
    epochs: int = Field(default=20, ge=1)
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.0, ge=0)
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)

    def layer_names(self) -> tuple[str, ...]:
        return self.layers

    def run(self, source: Any, context: Context) -> None:
        import torch

        from edgecv.binary.replacing import binarize
        from edgecv.binary.training import BinaryTrainer
        from edgecv.training import top1

        model, module = source
        if any(edit["op"] in ("quantizers", "binarize") for edit in model.edits):
            hint = "let both read the float step (`from:`)"
            raise StageError(context.where, "reads a network of few bits already", hint)
        torch.set_num_threads(context.threads)
        test = context.images("test")
        teacher = self.teaching(module, context, self.dense(module))
        facts: dict[str, Any] = {"top1_float": top1(module, test, context)}
        real = self.activations == "real"
        edit = {
            "op": "binarize", "step": context.where, "form": self.form, "weights": self.weights,
            "real_inputs": real, "layers": self._choose(module, context),
            "estimator": self.estimator or ("clip" if self.form == "xnor" else "polynomial"),
        }  # fmt: skip
        binarize(module, edit)
        plan = self.plan(self.epochs, self.lr)
        lesson = self.lesson(module, context, teacher)
        trainer = BinaryTrainer(module, context.images("train"), plan, context, lesson)
        trainer.first = self.epochs // 2 if self.two_step and not real else 0
        facts |= trainer.fit()
        if self.teacher != "none":
            facts["teacher"] = self.teacher
        facts["top1"] = top1(module, test, context)
        model.with_edit(edit).with_facts(context.where, facts).save(context.out, module.eval())

    def _choose(self, module: nn.Module, context: Context) -> dict[str, dict[str, Any]]:
        import torch

        from edgecv.binary.places import choose

        wanted = None
        if self.layers:
            wanted = naming.named(self.layers, naming.layers(module), context.where)
        x = torch.zeros(1, context.preprocess.channels, *context.preprocess.size)
        found, kept = choose(module, x, context.where, wanted)
        for name, why in kept.items():
            (log.warning if wanted else log.info)("%s: %s %s: float", context.where, name, why)
        return found
