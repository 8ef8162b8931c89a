"""k = argmin Σ_g lost_g(k_g)  subject to  time(k) ≤ asked: remove whole channels, then tune.

    lost_g: importance of the channels that go (`method`)    k_g: width of group g, in steps
    time:   of the whole network on the target's own engine, or its MACs, or its bytes

Which channels hang together (residual additions, concatenations, depthwise convolutions, the
readers' input side) is found by a dependency graph (Fang et al., "DepGraph", CVPR 2023). Asked for
a latency, every layer is measured on the engine by its width, widths are chosen by importance lost
for time won, and the whole network is measured until the time is within 5% of what was asked for
(`edgecv.methods.pruning.frontier`, `fit`); a layer whose narrowing wins no time stays. `ratio` is
the old way: a share of the channels that can be pruned, of every layer or (`scope: global`) of all.

Criteria (`edgecv.methods.pruning.criteria`): thinet (effect on the next layer, what stays rescaled:
the default, because it keeps most before tuning); l1, l2 norms; bn_scale (network slimming, with
`sparse_epochs` before); apoz (share of zeros); taylor (effect on the loss); fpgm (geometric
median); lamp; hessian; gates (learned by distillation); random.

Pitfalls: a network that ships in int8 is to be timed in int8 (`precision`): other widths are fast
there. Accuracy before fine-tuning says little, do not judge by it. Engines run a width of 24 no
faster than 32, so widths stay multiples of the targets' alignment: with few channels a ratio may
remove less than asked, and what was kept is recorded layer by layer. `control: scratch` trains the
pruned shape from random weights for as long: where that is as good, the criterion has won nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from edgecv.context import Context
from edgecv.models.edits import Edit
from edgecv.stages.train import Training
from edgecv.target import Target

COSTS = ("latency_ratio", "latency_ms", "macs", "size_mb")


class Prune(Training):
    """Remove whole channels, then fine-tune."""

    word: ClassVar[str] = "prune"
    compresses: ClassVar[bool] = True

    method: Literal[
        "apoz", "bn_scale", "fpgm", "gates", "hessian", "l1", "l2", "lamp", "random", "taylor",
        "thinet",
    ] = Field(default="thinet", description="what makes a channel important")  # fmt: skip
    ratio: float = Field(
        default=0.5, gt=0, lt=1, description="share of channels to remove, if nothing else is asked"
    )
    latency_ratio: float | None = Field(
        default=None, gt=0, lt=1, description="time to reach, of the network that the step reads"
    )
    latency_ms: float | None = Field(default=None, gt=0, description="median call to reach")
    macs: float | None = Field(default=None, gt=0, lt=1, description="share of the MACs to reach")
    size_mb: float | None = Field(
        default=None, gt=0, description="weights and biases to reach, 10^6 bytes"
    )
    on: str | None = Field(
        default=None, description="the target to measure on; default: the first that runs here"
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32", description="in which it is timed, and its weights counted"
    )
    scope: Literal["layer", "global"] = Field(
        default="layer", description="ratio: rank channels inside each layer, or over the network"
    )
    align: int | None = Field(
        default=None, ge=1, description="widths are multiples of this; default: the targets' own"
    )
    keep: tuple[str, ...] = Field(
        default=(),
        description='layers whose channels stay: names, modules or patterns ("stage1.*")',
    )
    samples: int = Field(default=512, ge=1, description="training images that criteria look at")
    rounds: int = Field(default=1, ge=1, description="prune and tune so often, a part at a time")
    round_epochs: int = Field(default=1, ge=0, description="of tuning after the earlier rounds")
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    finetune_epochs: int = Field(default=2, ge=0, description="after the last round")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the fine-tuning")
    recalibrate: bool | None = Field(
        default=None, description="measure batch norms anew after a cut; default: when it is tuned"
    )
    sparse_epochs: int = Field(
        default=0, ge=0, description="before pruning, with an L1 term on batch norms' scales"
    )
    sparsity: float = Field(default=1e-4, ge=0, description="weight of that term")
    control: Literal["none", "scratch"] = Field(
        default="none", description="scratch: also train the pruned shape from random weights"
    )
    control_epochs: int | None = Field(
        default=None, ge=1, description="default: as many as the pruned network saw in all"
    )
    control_lr: float = Field(default=3e-3, gt=0, description="peak learning rate of the control")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in COSTS if getattr(self, name) is not None]
        if "ratio" in self.model_fields_set:
            given = ["ratio", *given]
        if len(given) > 1:
            raise ValueError(f"give one of ratio, {', '.join(COSTS)}, not {' and '.join(given)}")
        return self

    @property
    def asked(self) -> tuple[str, float]:
        """What is to be reached: the field and its value."""
        for name in COSTS:
            if (value := getattr(self, name)) is not None:
                return name, float(value)
        return "ratio", self.ratio

    @property
    def timed(self) -> bool:
        """Whether the result depends on a target's engine and this machine."""
        return self.asked[0].startswith("latency")

    def measures(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        """The target on whose clock the widths depend."""
        from edgecv.methods.pruning.place import here

        return (here(targets, self.on, self.name or self.word),) if self.timed else ()

    def planned(self, step: str) -> Edit:
        return {"op": "keep_channels", "step": step}

    def layer_names(self) -> tuple[str, ...]:
        return self.keep

    def run(self, source: Any, context: Context) -> None:
        from edgecv.methods.pruning.rounds import Pruning

        model, module = source
        Pruning(self, model, module, context).run()


def macs(module: Any, context: Context) -> int:
    """Multiply-accumulates of one image."""
    from edgecv.methods.pruning.shapes import macs as counted

    return counted(module, context)
