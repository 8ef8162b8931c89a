"""W * x ≈ (P · D) * x: compact blocks in the place of convolutions, fitted one by one, then tuned.

D is a depthwise k×k convolution and P a 1x1 (`separable`: Howard et al. 2017; Chollet, CVPR 2017);
other blocks are grouped convolutions with a channel shuffle (Zhang et al., CVPR 2018), interleaved
group convolutions (IGCV1 ICCV 2017, IGCV2 CVPR 2018, IGCV3 BMVC 2018) and the bottleneck (He et
al., CVPR 2016), drawn in `edgecv.methods.restructuring.blocks`. In the order in which they run,
each block is first fitted to the outputs of the convolution it replaces on training images: from
the kernel's singular vectors, by least squares, then by Adam
(`edgecv.methods.restructuring.fitting`). Then the network is fine-tuned as a whole.

Pitfalls: errors add up over the depth; where top-1 before fine-tuning is near chance, replace the
widest layers alone (`layers: [stage3]`). Depthwise and grouped convolutions and shuffles are bound
by memory: MACs fall further than time does, measure it. `prune` leaves alone what feeds a grouped
block: prune first.

`into: hardswish`, `relu6` or `relu` is of an .onnx file (or of what a PyTorch network is exported
as) and gives one: cheaper activations take the place of SiLU, Mish, GELU and HardSwish, each
matched channel by channel (`edgecv.methods.restructuring.matching`); every layer is fitted again in
closed form, and the network learns from its float self on data.train, without labels
(`edgecv.methods.restructuring.for_activations`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from edgecv.context import Context
from edgecv.errors import StageError, UnsupportedError
from edgecv.methods.restructuring import Activation, Into
from edgecv.models import layer_selection, macs
from edgecv.models.edits import Edit, describe
from edgecv.stages.base import Stage
from edgecv.stages.train import Training

if TYPE_CHECKING:
    import torch

    from edgecv.methods.restructuring.blocks import Spec

log = logging.getLogger(__name__)

ACTIVATIONS = get_args(Activation)
FILES = "activations"  # of a module's name, put together: convolutions' keys do not hold it
# What is read where `into` is an activation; `name`, `from` and `ship` are of every stage.
OF_ACTIVATIONS = ("into", "layers", "samples", "share", "passes")


class Restructure(Training):
    """Replace convolutions by compact blocks, then fine-tune; or activations by cheaper ones."""

    word: ClassVar[str] = "restructure"
    compresses: ClassVar[bool] = True
    renames: ClassVar[bool] = True

    into: Literal[Into, Activation] = Field(
        default="separable",
        description="the block that replaces a convolution, or what replaces an activation",
    )
    layers: tuple[str, ...] = Field(
        default=(),
        description="names, modules or patterns; default: all that fit but the first",
    )
    groups: int | None = Field(
        default=None,
        ge=2,
        description="of grouped, igcv1 and igcv2; default 4, or what costs least",
    )
    expansion: float | None = Field(
        default=None,
        gt=0,
        description="width inside igcv3 (default 2) and bottleneck (0.25), of the input's channels",
    )
    fit_steps: int = Field(default=200, ge=0, description="Adam steps of each block's own fit")
    samples: int = Field(default=256, ge=1, description="training images that blocks are fitted to")
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of activations: what of the numbers that they make becomes cheaper, at most; "
        "those go first that do the least harm for it",
    )
    passes: int = Field(
        default=20, ge=0, description="of activations: over the images; 0 fits the layers alone"
    )
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    finetune_epochs: int = Field(default=3, ge=0)
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the fine-tuning")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        said = self.model_fields_set - {*Stage.model_fields}
        alone = {"share", "passes"} if not self.on_files() else said - {*OF_ACTIVATIONS}
        if found := sorted(said & alone):
            whose = "activations" if not self.on_files() else "blocks"
            raise ValueError(f"{', '.join(found)}: of {whose} alone, and into is {self.into}")
        return self

    def learns_labels(self) -> bool:
        return not self.on_files()

    def on_files(self) -> bool:
        return self.into in ACTIVATIONS

    def modules(self) -> tuple[str, ...]:
        """Engines run what becomes of activations, and nothing of what becomes of convolutions."""
        return (f"edgecv.methods.restructuring.for_{FILES}",) if self.on_files() else ()

    def planned(self, step: str) -> Edit | None:
        if self.on_files():
            return None
        return {"op": "replace", "step": step, "layers": dict.fromkeys(self.layers)}

    def layer_names(self) -> tuple[str, ...]:
        return () if self.on_files() else self.layers

    def run(self, source: Any, context: Context) -> None:
        """source: (Model, module); of activations also the Path of an .onnx file."""
        if self.on_files():
            way: Any = import_module(f"edgecv.methods.restructuring.for_{FILES}")
            choice = way.Choice(self.into, self.layers, self.share, self.passes, self.samples)
            way.cheaper(source, choice, context)
            return
        import torch

        from edgecv.behaviour import check_runs
        from edgecv.methods.training.judging import judged

        model, module = source
        images, test, dense = context.images("train"), context.images("test"), self.dense(module)
        shape = context.preprocess.channels, context.preprocess.size
        facts: dict[str, Any] = {"macs_before": macs.macs(module, *shape)}
        specs = self._choose(module, context)
        facts["blocks"] = self._fit(module, specs, context, images)
        x = torch.zeros(1, shape[0], *shape[1])
        check_runs(module, x, context.where, f"its layers {', '.join(specs)} were replaced")
        edit: Edit = {
            "op": "replace",
            "step": context.where,
            "modules": {name: spec.json() for name, spec in specs.items()},
        }
        facts |= {"macs": macs.macs(module, *shape), "replaced": describe(edit)}
        facts |= context.accuracy(judged(module, test, context), "_before_finetuning")
        if self.finetune_epochs:
            facts |= self.finetune(module, context, self.finetune_epochs, self.lr, dense)
        model.with_edit(edit).with_facts(context.where, facts).save(context.out, module.eval())

    def _choose(self, module: torch.nn.Module, context: Context) -> dict[str, Spec]:
        """Layer name -> its block, in the order in which the layers run.

        Raises StageError (a name that is not there, a layer named that does not fit) and
        UnsupportedError (none fits).
        """
        from edgecv.methods.restructuring.blocks import Spec, chosen

        order = _running(module, context)
        named, held = self._named(module, context.where)
        found: dict[str, Spec] = {}
        refused: dict[str, str] = {}
        for name in order:
            if self.layers and name not in named | held:
                continue
            if not self.layers and name == order[0]:
                refused[name] = "is the first"
                continue
            spec = chosen(module.get_submodule(name), self.into, self.groups, self.expansion)
            if isinstance(spec, Spec):
                found[name] = spec
            else:
                refused[name] = spec
        for name in sorted(named):
            if name not in order:
                layer = module.get_submodule(name)
                spec = chosen(layer, self.into, self.groups, self.expansion)
                refused[name] = spec if isinstance(spec, str) else "does not run"
            if name in refused:
                raise StageError(
                    context.where,
                    f"layer {name!r} {refused[name]}",
                    f"{self.into} cannot replace it",
                )
        for name, reason in refused.items():
            log.info("%s: %s %s: kept", context.where, name, reason)
        if not found:
            told = "; ".join(f"{name} {reason}" for name, reason in list(refused.items())[:3])
            raise UnsupportedError(
                context.where,
                f"no convolution can become {self.into}: {told or 'there is none'}",
                "k×k convolutions that are not grouped can, where the block is smaller",
            )
        return found

    def _named(self, module: torch.nn.Module, where: str) -> tuple[set[str], set[str]]:
        """The layers that `layers` names, and those that lie in modules or match patterns."""
        every = [name for name, _ in module.named_modules() if name]
        meant = layer_selection.named(self.layers, every, where)
        exact = {n for n in meant & {*self.layers} if not any(m.startswith(f"{n}.") for m in every)}
        return exact, meant - exact

    def _fit(
        self, module: torch.nn.Module, specs: dict[str, Spec], context: Context, images: Any
    ) -> dict[str, Any]:
        """Replace the layers one after another; what each fit was like, by layer."""
        import torch

        from edgecv.bundling.inference import calibration_sample
        from edgecv.methods.restructuring.fitting import captured, fit
        from edgecv.models.edits import put

        torch.set_num_threads(context.threads)
        pixels = calibration_sample(images.pixels, self.samples)
        x = torch.from_numpy(context.preprocess.normalise(pixels))
        teacher = copy.deepcopy(module).eval()
        module.eval()
        told: dict[str, Any] = {}
        for index, (name, spec) in enumerate(specs.items()):
            pairs = captured(teacher, module, name, x)
            layer: Any = module.get_submodule(name)
            fitted = fit(spec, layer.weight, pairs, self.fit_steps, context.seed * 100_003 + index)
            put(module, layer, fitted.block)
            told[name] = {"start": round(fitted.start, 6), "error": round(fitted.error, 6)}
            note = f"{name}: {100 * fitted.error:.1f}% of the variance missed"
            context.progress(index + 1, len(specs), note)
        return told


def _running(module: torch.nn.Module, context: Context) -> list[str]:
    """Names of the convolutions in the order in which they run first."""
    import torch
    from torch import nn

    order: dict[str, None] = {}
    hooks = [
        layer.register_forward_hook(_seen(order, name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, context.preprocess.channels, *context.preprocess.size))
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def _seen(order: dict[str, None], name: str) -> Callable[..., None]:
    return lambda *_: order.setdefault(name)
