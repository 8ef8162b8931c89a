"""W ≈ A B: layers as products of smaller ones, or of a structure with few parameters.

    svd       dense and 1x1 layers    W ≈ A B                      (Denton et al., NeurIPS 2014)
    spatial   k x 1, then 1 x k       Σ_r H[o,r,x] V[r,i,y]        (Jaderberg et al., BMVC 2014)
    tucker2   1x1, k x k, 1x1         Σ_pq U[o,q] G[q,p] V[p,i]    (Kim et al., ICLR 2016)
    cp        1x1, depthwise, 1x1     Σ_r A[o,r] B[i,r] C[p,r]     (Lebedev et al., ICLR 2015)
    grouped   k x k in groups, 1x1    A (B_1 x_1, …, B_g x_g)      (Peng et al., ECCV 2018)
    circulant, toeplitz               dense of n, or 2 r n weights (Sindhwani et al., NeurIPS 2015)

Methods for convolutions write 1x1 and dense layers by SVD. `data_aware` makes ‖(W − Ŵ) x‖² small on
real inputs and not ‖W − Ŵ‖². Ranks by the energy kept, by EVBMF (Nakajima et al., JMLR 2013), as a
share of the MACs, or by time: each layer is measured on the targets' own engines beside its
factors, and an integer program finds the ranks that lose least energy in the time asked for; by
accuracy, in the least time whose network still gives the same answers to training images. A layer
whose factors win no time stays whole (`fuse_back`), whatever its MACs say. Ranks are
multiples of the targets' alignment.

Pitfalls: small layers and 1x1-heavy networks get nothing: three small layers cost three calls. A
network that ships in int8 is to be timed in int8 (`precision`). CP without a penalty diverges:
that is an error. EVBMF is over-aggressive on small layers. Structured layers are written out as
dense ones when exported: they save bytes of the Model on disk, and no time.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from edgecv.context import Context
from edgecv.errors import StageError
from edgecv.models.edits import Edit, describe, replay
from edgecv.stages.train import Training
from edgecv.target import Target

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# What was decided, until it is saved: measuring again might decide otherwise.
CHOICE, FACTORS = "choice.json", "choice.safetensors"


class Lowrank(Training):
    """Write layers as products of smaller ones, then fine-tune."""

    word: ClassVar[str] = "lowrank"
    compresses: ClassVar[bool] = True
    renames: ClassVar[bool] = True

    method: Literal["svd", "spatial", "tucker2", "cp", "grouped", "circulant", "toeplitz"] = (
        "tucker2"
    )
    rank_by: Literal["energy", "evbmf", "macs", "latency", "accuracy"] = "energy"
    rank: int | None = Field(
        default=None,
        ge=1,
        description="one rank for all; of toeplitz the displacement's, default 4",
    )
    energy: float = Field(default=0.9, gt=0, le=1, description="share that is kept of a layer's")
    macs: float = Field(default=0.5, gt=0, lt=1, description="share of a layer's MACs, at the most")
    latency: float = Field(
        default=0.5, gt=0, lt=1, description="share of the measured time of all layers, at the most"
    )
    accuracy: float = Field(
        default=2.0,
        gt=0,
        lt=100,
        description="percent of `samples` whose answer may change, before fine-tuning",
    )
    layers: tuple[str, ...] = Field(
        default=(), description="names, modules or patterns; default: all that it makes faster"
    )
    groups: int = Field(default=4, ge=2, description="of the grouped convolutions")
    penalty: float = Field(default=1e-3, ge=0, description="of CP's components, against divergence")
    data_aware: bool = Field(default=True, description="weigh by what the layers read")
    samples: int = Field(default=256, ge=1, description="training images that tell what they read")
    align: int | None = Field(
        default=None, ge=1, description="ranks are multiples of this; default: the targets' own"
    )
    fuse_back: bool = Field(
        default=True, description="leave layers whole whose factors win no time on the targets"
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32", description="in which layers are timed"
    )
    budget_s: float = Field(default=60.0, gt=0, description="seconds of measuring, all targets")
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    finetune_epochs: int = Field(default=2, ge=0)
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the fine-tuning")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.rank is not None and "rank_by" in self.model_fields_set:
            raise ValueError("give rank, one for all layers, or rank_by, not both")
        return self

    def planned(self, step: str) -> Edit:
        op = "structured" if self.structured else "factorize"
        return {"op": op, "step": step, "layers": dict.fromkeys(self.layers)}

    def layer_names(self) -> tuple[str, ...]:
        return self.layers

    def unfit(self, task: str) -> str:
        if self.rank_by == "accuracy" and self.rank is None:
            return "rank_by: accuracy counts images whose class changes; energy, macs, latency work"
        return super().unfit(task)

    @property
    def structured(self) -> bool:
        return self.method in ("circulant", "toeplitz")

    def measures(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        """The targets whose clock the result depends on."""
        by_time = self.rank is None and self.rank_by in ("latency", "accuracy")
        return targets if not self.structured and (self.fuse_back or by_time) else ()

    def run(self, source: Any, context: Context) -> None:
        import torch

        from edgecv.methods.lowrank.structured import materialised
        from edgecv.methods.training.judging import judged
        from edgecv.stages.prune import macs

        model, module = source
        torch.set_num_threads(context.threads)
        images, test = context.images("train"), context.images("test")
        dense = self.dense(module)
        facts: dict[str, Any] = {
            "macs_before": macs(materialised(module), context),
            "weights_bytes_before": _bytes(module),
            **context.accuracy(judged(module, test, context), "_float"),
        }
        edit, told = self._edited(module, context, images, test)
        facts |= told | {"factors": describe(edit), "macs": macs(materialised(module), context)}
        facts["weights_bytes"] = _bytes(module)
        facts["exported_weights_bytes"] = _bytes(materialised(module))
        if self.finetune_epochs:
            facts |= self.finetune(module, context, self.finetune_epochs, self.lr, dense)
        model = model.with_edit(edit).with_facts(context.where, facts)
        model.save(context.out, module.eval())
        for name in (CHOICE, FACTORS):
            (context.out / name).unlink(missing_ok=True)

    def _edited(
        self, module: torch.nn.Module, context: Context, images: Any, test: Any
    ) -> tuple[Edit, dict[str, Any]]:
        """Decide, replace layers in place; the edit, and facts of every layer.

        What a killed run had decided stands.
        """
        import torch
        from safetensors.torch import load_file, save_file

        from edgecv.behaviour import check_runs
        from edgecv.methods.training.judging import judged

        kept, weights = context.out / CHOICE, context.out / FACTORS
        if kept.exists():  # written last
            data = json.loads(kept.read_text())
            replay(module, data["edit"])
            module.load_state_dict(load_file(weights))
            return data["edit"], data["facts"]
        edit, facts = (self._structure if self.structured else self._factorize)(
            module, context, images
        )
        x = torch.zeros(1, context.preprocess.channels, *context.preprocess.size)
        check_runs(
            module, x, context.where, f"its layers {', '.join(edit['layers'])} were replaced"
        )
        facts |= context.accuracy(judged(module, test, context), "_before_finetuning")
        state = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
        save_file(state, weights)
        _write(kept, {"edit": edit, "facts": facts})
        return edit, facts

    def _factorize(
        self, module: torch.nn.Module, context: Context, images: Any
    ) -> tuple[Edit, dict[str, Any]]:
        from edgecv.methods.lowrank.apply import agreement, apply
        from edgecv.methods.lowrank.decide import Wish, decide

        sample, layers, names = self._layers(module, context, images)
        align = self.align or context.alignment
        if self.rank is not None and self.rank % align:
            log.warning("%s: rank %d is made a multiple of %d, the alignment (align: 1 leaves it)",
                        context.where, self.rank, align)  # fmt: skip
        wish = Wish(
            self.method, self.rank_by, self.rank, self.energy, self.macs, self.latency,
            self.groups, self.penalty, align, context.seed,
            context.where, sample if self.data_aware else None,
        )  # fmt: skip
        kept = agreement(module, sample, self.accuracy) if self.rank_by == "accuracy" else None
        decision = decide(
            module, layers, names, wish, context.targets, self.fuse_back,
            self.precision == "int8", self.budget_s, context, kept,
        )  # fmt: skip
        if not decision.chosen:
            reasons = [f"{name} {why}" for name, why in decision.whole.items() if name in names]
            hint = "lower the ranks or align, try another method, or leave this step out"
            raise StageError(
                context.where, f"no layer is worth factors: {'; '.join(reasons)}", hint
            )
        edit = {"op": "factorize", "step": context.where, **apply(module, decision.chosen)}
        facts: dict[str, Any] = {"layers": decision.facts, "whole": decision.whole}
        if decision.not_timed:
            facts["not_timed"] = decision.not_timed
        return edit, facts

    def _structure(
        self, module: torch.nn.Module, context: Context, images: Any
    ) -> tuple[Edit, dict[str, Any]]:
        from edgecv.methods.lowrank.apply import structure

        sample, layers, names = self._layers(module, context, images)
        if not self.layers and layers:  # the classifier only by name: it decides most
            names -= {layers[-1].name}
        made, facts = structure(
            module, [layer for layer in layers if layer.name in names], self.method,
            self.rank or 4, sample if self.data_aware else None, context,
        )  # fmt: skip
        return {"op": "structured", "step": context.where, "layers": made}, facts

    def _layers(
        self, module: torch.nn.Module, context: Context, images: Any
    ) -> tuple[torch.Tensor, Any, set[str]]:
        """What they are judged on, all layers, and the names of those that are asked for."""
        from edgecv.methods.lowrank.layers import chosen, found

        sample = self._sample(images, context)
        layers = found(module, sample[:1])
        return sample, layers, chosen(layers, self.layers, module, context.where)

    def _sample(self, images: Any, context: Context) -> torch.Tensor:
        import torch

        from edgecv.bundling.inference import sample

        pixels = sample(images.pixels, self.samples)
        return torch.from_numpy(context.preprocess.normalise(pixels))


def _bytes(module: torch.nn.Module) -> int:
    """Of all weights and buffers, as weights.safetensors holds them."""
    return sum(v.numel() * v.element_size() for v in module.state_dict().values())


def _write(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data))
    temporary.replace(path)
