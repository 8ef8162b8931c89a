"""y = s (sign(x − β) ⊛ sign(W)) + t + x: weights and activations of one bit, trained as they run.

Products of ±1 are counted, not multiplied: `dot = K − 2 popcount(a ^ w)`. A layer and the batch
norm behind it become one (`edgecv.methods.binary.modules`); by form:

    xnor     sign, α = mean |W| for each filter          Rastegari et al., ECCV 2016
    bireal   a real shortcut around every layer          Liu et al., ECCV 2018
    react    that, a shift β before each sign, RPReLU    Liu et al., ECCV 2020

`weights: ternary` takes −1, 0 and +1 (TWN, Li & Liu 2016), `ttq` −n, 0 and +p, which are trained
(Zhu et al., ICLR 2017). `activations: real` keeps what layers read in float: it saves no time, and
bytes only where the file is packed. `layers: auto` leaves in float what costs most for its MACs
(`edgecv.methods.binary.sensitivity`). The float network that came in is the teacher. In the first
of two steps only activations have one bit.

Pitfalls: the first and the last layer and projections stay in float, because there signs lose most
and time is least; Adam without weight decay; pooling belongs behind a binary layer's sum, not
behind a sign. Where the processor has fast int8 and no fast popcount, int8 is the better choice:
measure.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from edgecv.context import Context
from edgecv.models import layer_selection
from edgecv.models.edits import Edit
from edgecv.stages.train import Training

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)
DEFAULT_SHARE = 0.9


class Binarize(Training):
    """One bit for weights and activations, then train."""

    word: ClassVar[str] = "binarize"
    compresses: ClassVar[bool] = True
    renames: ClassVar[bool] = True

    form: Literal["react", "bireal", "xnor"] = Field(default="react", description="of the layers")
    weights: Literal["binary", "ternary", "ttq"] = Field(
        default="binary", description="ttq: ternary of two trained sizes, for real activations"
    )
    activations: Literal["binary", "real"] = Field(
        default="binary", description="what layers read; real saves bytes when packed, no time"
    )
    layers: Literal["auto"] | tuple[str, ...] = Field(
        default=(),
        description="names, modules, patterns; auto: by sensitivity; default: all that make sense",
    )
    share: float | None = Field(
        default=None, gt=0, le=1, description="of their MACs that auto gives one bit; default 0.9"
    )
    estimator: Literal["clip", "polynomial", "annealed"] | None = Field(
        default=None, description="the sign's gradient; default: polynomial, of xnor clip"
    )
    two_step: bool = Field(default=True, description="half of the epochs with real weights first")
    epochs: int = Field(default=20, ge=1)
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.0, ge=0)
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)

    @field_validator("layers", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"write auto, or a list: [{value}]")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.weights == "ttq" and self.activations == "binary":
            raise ValueError("weights of two sizes are not counted: ttq needs activations: real")
        if self.share is not None and self.layers != "auto":
            raise ValueError("share is for layers: auto")
        return self

    def planned(self, step: str) -> Edit:
        return {"op": "binarize", "step": step, "layers": dict.fromkeys(self.layer_names())}

    def layer_names(self) -> tuple[str, ...]:
        return () if self.layers == "auto" else self.layers

    def run(self, source: Any, context: Context) -> None:
        import torch

        from edgecv.behaviour import check_runs
        from edgecv.methods.binary.replacing import binarize
        from edgecv.methods.binary.training import BinaryTrainer
        from edgecv.methods.training.judging import judged

        model, module = source
        torch.set_num_threads(context.threads)
        test = context.images("test")
        teacher = self.teaching(module, context, self.dense(module))
        facts: dict[str, Any] = context.accuracy(judged(module, test, context), "_float")
        real = self.activations == "real"
        edit = {
            "op": "binarize", "step": context.where, "form": self.form, "weights": self.weights,
            "real_inputs": real, "layers": self._choose(module, context),
            "estimator": self.estimator or ("clip" if self.form == "xnor" else "polynomial"),
        }  # fmt: skip
        if self.layers == "auto":
            edit["layers"], facts["sensitivity"] = self._least(module, edit, context)
        binarize(module, edit)
        layers: Any = edit["layers"]
        x = torch.zeros(1, context.preprocess.channels, *context.preprocess.size)
        check_runs(module, x, context.where, f"its layers {', '.join(layers)} got one bit")
        plan = self.plan(self.epochs, self.lr)
        distill_loss = self.distill_loss(module, context, teacher)
        trainer = BinaryTrainer(module, context.images("train"), plan, context, distill_loss)
        trainer.first = self.epochs // 2 if self.two_step and not real else 0
        facts |= trainer.fit()
        if self.teacher != "none":
            facts["teacher"] = self.teacher
        facts |= context.accuracy(judged(module, test, context))
        model.with_edit(edit).with_facts(context.where, facts).save(context.out, module.eval())

    def _choose(self, module: nn.Module, context: Context) -> dict[str, dict[str, Any]]:
        import torch

        from edgecv.methods.binary.selection import choose

        wanted = None
        if self.layer_names():
            wanted = layer_selection.named(
                self.layer_names(), layer_selection.layers(module), context.where
            )
        x = torch.zeros(1, context.preprocess.channels, *context.preprocess.size)
        found, kept = choose(module, x, context.where, wanted)
        for name, why in kept.items():
            (log.warning if wanted else log.info)("%s: %s %s: float", context.where, name, why)
        return found

    def _least(
        self, module: nn.Module, edit: dict[str, Any], context: Context
    ) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
        """The edit's layers that `auto` keeps, and what each of them alone costs."""
        from edgecv.methods.binary.sensitivity import damage, least

        layers = edit["layers"]
        costs = damage(module, edit, context)
        taken = least(costs, DEFAULT_SHARE if self.share is None else self.share)
        for name in layers:
            if name not in taken:
                log.info("%s: %s costs most for its MACs: float", context.where, name)
        told = {name: cost.divergence for name, cost in costs.items()}
        return {name: places for name, places in layers.items() if name in taken}, told
