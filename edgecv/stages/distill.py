"""L = (1 − a) CE + a D(z_s, z_t) + Σ w F(f_s, f_t): a student learns from a teacher.

D, of the logits: `soft` T² KL(p_t ‖ p_s) (Hinton et al., 2015), `dkd` (Zhao et al., CVPR 2022) or
`dist` (Huang et al., NeurIPS 2022). F, of features: `hints` (FitNets, Romero et al., ICLR 2015),
`attention` (Zagoruyko & Komodakis, ICLR 2017), `similarity` (Tung & Mori, ICCV 2019), `relational`
(RKD, Park et al., CVPR 2019, for embeddings), each with its weight.

The student is the network that the step reads, or a new one, `student: {zoo: resnet8}`; the
teacher is a step, a Model folder or an .onnx file, or with a new student the network that the step
reads (`self`). Pairs of features are found by name and size, or named; adapters between widths are
dropped when training ends.

Pitfalls: a teacher far stronger than its student can teach it badly by soft targets: `dist` asks
for less. Common are T 4 and a 0.9 for photographs, and 20 for MNIST. `dkd` starts large: give
warm-up. A student wants more epochs than training on labels does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from edgecv.context import Context
from edgecv.stages.train import Training

if TYPE_CHECKING:
    from torch import nn

    from edgecv.methods.distillation.distill_loss import DistillLoss


class Distill(Training):
    """Train a student on what a teacher says."""

    word: ClassVar[str] = "distill"

    student: str | dict[str, Any] | None = Field(
        default=None, description="a new network, as `model:` names one; default: the step's own"
    )
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    epochs: int = Field(default=10, ge=1)
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate")
    logits: Literal["soft", "dkd", "dist"] = Field(default="soft", description="D")
    distill: float = Field(default=0.9, ge=0, le=1, description="a: the teacher's share")
    dkd_beta: float = Field(default=8.0, ge=0, description="β: weight of dkd's other classes")
    hints: float = Field(default=0.0, ge=0, description="weight of equal features")
    attention: float = Field(default=0.0, ge=0, description="weight of equal attention maps")
    similarity: float = Field(default=0.0, ge=0, description="weight of like images staying like")
    relational: float = Field(default=0.0, ge=0, description="weight of distances and angles")
    pairs: dict[str, str] = Field(
        default={}, description="student layer -> teacher layer; default: found by name and size"
    )

    def parameters(self) -> dict[str, Any]:
        """A student counts by the network it is (`edgecv.plan.graph`), not by how it is named."""
        return super().parameters() | {"student": self.student is not None}

    def unfit(self, task: str) -> str:
        if self.logits != "soft":
            return f"logits: {self.logits} is of one class an image"
        return super().unfit(task)

    def run(self, source: Any, context: Context) -> None:
        from edgecv.models.model import Model

        if "student" in context.inputs:
            dense = self._came_in(source, context) if self.teacher == "self" else None
            model, module = Model.load(context.inputs["student"])
        else:
            model, module = source
            dense = self.dense(module)
        facts = self.finetune(module, context, self.epochs, self.lr, dense)
        model.with_facts(context.where, facts).save(context.out, module.eval())

    def _came_in(self, source: Any, context: Context) -> nn.Module:
        """The network that the step reads, also where that is an .onnx file."""
        from edgecv.methods.distillation import teacher

        if isinstance(source, Path):
            return teacher.load(
                source, context.preprocess, context.labels, context.where, context.classifies
            )
        return teacher.settled(source[1])

    def distill_loss(
        self, module: nn.Module, context: Context, teacher: nn.Module | None
    ) -> DistillLoss:
        import torch

        from edgecv.methods.distillation.distill_loss import DistillLoss
        from edgecv.methods.distillation.features import Features, Weights

        weights = Weights(self.hints, self.attention, self.similarity, self.relational)
        features = None
        if teacher is not None and weights:
            sample = torch.zeros(1, context.preprocess.channels, *context.preprocess.size)
            features = Features(
                module, teacher, sample, weights, self.pairs, context.where, context.seed
            )
        return DistillLoss(
            teacher, self.distill, self.temperature, self.logits_mse,
            logits=self.logits, beta=self.dkd_beta, features=features,
        )  # fmt: skip
