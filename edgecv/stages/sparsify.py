"""w ← w ⊙ m after every step, m = top_k |w|: take single connections out, not whole channels.

    s(t) = s (1 - (1 - t)³)     the share that is out grows on a cubic schedule, then m stands still

magnitude (Han et al., NIPS 2015) with an L1 or L2 term in the loss, of each layer or the network;
movement (Sanh et al., NeurIPS 2020); nm: N of every M along the input channels, by SR-STE (Zhou et
al., ICLR 2021). `edgecv.methods.pruning.connections` has the formulas.

Pitfalls: this buys bytes. No engine here has kernels for scattered zeros on a CPU, so the time is
that of the dense network, and the table says so; 2:4 is faster on NVIDIA GPUs from Ampere on. The
facts say how many connections are left, and what that is in bytes as values with a bitmask and by
zlib. A later step that trains fills the zeros again: sparsify last.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from edgecv.context import Context
from edgecv.models.edits import Edit
from edgecv.stages.train import Training


class Sparsify(Training):
    """Set connections to zero and train the others: fewer bytes, the same time."""

    word: ClassVar[str] = "sparsify"
    compresses: ClassVar[bool] = True
    fills: ClassVar[bool] = False

    method: Literal["magnitude", "movement", "nm"] = "magnitude"
    sparsity: float = Field(default=0.8, gt=0, lt=1, description="share of connections to take out")
    density: dict[str, float] = Field(
        default={}, description="layers, by name, module or pattern: share that stays"
    )
    scope: Literal["layer", "global"] = Field(
        default="layer", description="rank connections inside each layer, or over the network"
    )
    pattern: str = Field(default="2:4", pattern=r"^[1-9]\d?:[1-9]\d?$", description="of method nm")
    epochs: int = Field(default=3, ge=1, description="over which connections go")
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    finetune_epochs: int = Field(default=2, ge=0, description="after that, with masks that stand")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    l1: float = Field(default=0.0, ge=0, description="weight of the weights' L1 norm in the loss")
    l2: float = Field(default=0.0, ge=0, description="weight of half their squared L2 norm")
    decay: float = Field(default=2e-4, ge=0, description="of masked weights, method nm (SR-STE)")

    @field_validator("density")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        for name, share in value.items():
            if not 0 < share <= 1:
                raise ValueError(f"the share that stays of {name} is above 0 and at most 1")
        return value

    @field_validator("pattern")
    @classmethod
    def _fewer(cls, value: str) -> str:
        n, m = map(int, value.split(":"))
        if n >= m:
            raise ValueError("N is below M")
        return value

    def planned(self, step: str) -> Edit:
        return {"op": "connections", "step": step, "layers": dict.fromkeys(self.density)}

    def layer_names(self) -> tuple[str, ...]:
        return tuple(self.density)

    def run(self, source: Any, context: Context) -> None:
        from edgecv.methods.pruning.connections import Rule, Sparsifier, counted, densities
        from edgecv.methods.training.judging import judged

        model, module = source
        n, m = map(int, self.pattern.split(":"))
        pattern = (n, m) if self.method == "nm" else None
        shares = densities(module, 1 - self.sparsity, self.density, context.where, pattern)
        rule = Rule(self.method, shares, self.epochs, self.scope == "global", (n, m),
                    self.l1, self.l2, self.decay)  # fmt: skip
        facts: dict[str, Any] = context.accuracy(
            judged(module, context.images("test"), context), "_dense"
        )
        plan = self.plan(self.epochs + self.finetune_epochs, self.lr)
        distill_loss = self.distill_loss(
            module, context, self.teaching(module, context, self.dense(module))
        )
        facts |= Sparsifier(module, plan, context, rule, distill_loss).fit()
        facts |= counted(module, list(shares))
        facts |= context.accuracy(judged(module, context.images("test"), context))
        if self.teacher != "none":
            facts["teacher"] = self.teacher
        edit = {"op": "connections", "step": context.where, "layers": facts["layers"]}
        model.with_edit(edit).with_facts(context.where, facts).save(context.out, module.eval())
