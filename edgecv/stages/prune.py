"""keep_g = top-k over channels c of group g by score I(c): remove whole filters, then fine-tune.

I(c) = Σ |w|  (l1), √Σ w²  (l2), or |Σ w · ∂L/∂w|  (taylor: Molchanov et al., CVPR 2019), summed
over every layer that shares the channel. Which layers share one (residual additions,
concatenations, depthwise convolutions, the consumer's input side) is found by the dependency graph
of Torch-Pruning (Fang et al., "DepGraph", CVPR 2023).

Pitfalls: accuracy before fine-tuning says little, do not judge by it. Engines run a width of 24 no
faster than 32, so widths stay multiples of the targets' alignment: with few channels a ratio may
remove less than asked, and what was kept is recorded layer by layer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from edgecv import counting
from edgecv.edits import Edit, can_shrink, describe, replay
from edgecv.errors import ModelError, StageError, UnsupportedError
from edgecv.stages.base import Context
from edgecv.stages.train import Training

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class Prune(Training):
    """Remove whole channels, then fine-tune."""

    word: ClassVar[str] = "prune"
    compresses: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = (*Training.libraries, "torch-pruning")

    method: Literal["l1", "l2", "taylor"] = "taylor"
    ratio: float = Field(default=0.5, gt=0, lt=1, description="share of channels to remove")
    scope: Literal["layer", "global"] = Field(
        default="layer", description="rank channels inside each layer, or over the network"
    )
    align: int | None = Field(
        default=None, ge=1, description="widths are multiples of this; default: the targets' own"
    )
    samples: int = Field(default=512, ge=1, description="training images for taylor's gradients")
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    finetune_epochs: int = Field(default=2, ge=0)
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the fine-tuning")

    def run(self, source: Any, context: Context) -> None:
        from edgecv.training import top1

        model, module = source
        if any(edit["op"] == "quantizers" for edit in model.edits):
            hint = "prune first, then qat"
            raise StageError(context.where, "reads a network with learned ranges", hint)
        images, dense = context.images("train"), self.dense(module)
        facts: dict[str, Any] = {"macs_before": macs(module, context)}
        edit = self._choose(module, context, images)
        for parameter in module.parameters():
            parameter.grad = None
        facts |= {"macs": _shrunk(module, edit, context), "channels": describe(edit)}
        facts["top1_before_finetuning"] = top1(module, context.images("test"), context)
        if self.finetune_epochs:
            facts |= self.finetune(module, context, self.finetune_epochs, self.lr, dense)
        model = model.with_edit(edit).with_facts(context.where, facts)
        model.save(context.out, module.eval())

    def _choose(self, module: torch.nn.Module, context: Context, images: Any) -> Edit:
        """The edit: which channels of which layers stay."""
        import torch

        align = self.align or context.alignment
        groups = self._score(module, context, images)
        if not groups:
            raise UnsupportedError(
                context.where,
                "found no layer whose channels can be removed",
                "the dependency graph needs convolutions or dense layers before the last one",
            )
        names = {layer: name for name, layer in module.named_modules()}
        removed: dict[str, dict[str, set[int]]] = {}
        for (graph, root, score), keep in zip(groups, self._widths(groups, align), strict=True):
            if keep >= len(score):
                continue
            worst = torch.argsort(score, stable=True)[: len(score) - keep].tolist()
            group = graph.get_pruning_group(root.target.module, root.handler, worst)
            for dep, indices in group:
                name = names.get(dep.target.module)
                if name is None or _one_for_all(dep.target.module):
                    continue  # an operation without weights: addition, reshape
                side = "out" if graph.is_out_channel_pruning_fn(dep.handler) else "in"
                removed.setdefault(name, {}).setdefault(side, set()).update(map(int, indices))
        if not removed:
            widths = sorted({len(score) for _, _, score in groups})
            raise StageError(
                context.where,
                f"ratio {self.ratio} removes nothing: widths {widths} stay multiples of {align}",
                "raise ratio, widen the model, or set align lower",
            )
        layers = dict(module.named_modules())
        kept = {name: _kept(layers[name], sides) for name, sides in removed.items()}
        return {"op": "keep_channels", "step": context.where, "modules": kept}

    def _score(self, module: torch.nn.Module, context: Context, images: Any) -> list[Any]:
        """(graph, root dependency, score per channel) for every group that can be pruned."""
        import torch
        import torch_pruning as tp

        size, channels = context.preprocess.size, context.preprocess.channels
        example = torch.zeros(1, channels, *size)
        if self.method == "taylor":
            self._gradients(module, context, images)
            importance = tp.importance.GroupTaylorImportance()
        else:
            norm = {"l1": 1, "l2": 2}[self.method]
            importance = tp.importance.GroupMagnitudeImportance(p=norm)
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
        head = _head(module, example, context.where)
        layers = set(module.modules())
        found = []
        for group in graph.get_all_groups(ignored_layers=[head]):
            name = graph._module2name.get(group[0].dep.target.module)
            reason = _refusal(graph, group, layers)
            if reason:
                log.warning("%s: %s %s: kept", context.where, name, reason)
                continue
            score = importance(group)
            # Torch-Pruning 1.6 scores a depthwise convolution before flatten by its pixels.
            if score is not None and len(score) == len(group[0].idxs):
                found.append((graph, group[0].dep, score.detach()))
        return found

    def _gradients(self, module: torch.nn.Module, context: Context, images: Any) -> None:
        """Leave ∂L/∂w over a fixed sample of the training images in every parameter's grad."""
        import numpy as np
        import torch

        torch.set_num_threads(context.threads)
        rng = np.random.default_rng(context.seed)
        count = min(self.samples, len(images.labels))
        chosen = np.sort(rng.choice(len(images.labels), count, replace=False))
        module.eval().zero_grad()  # eval: batch-norm statistics stay as they are
        for part in np.array_split(chosen, max(1, count // 128)):
            x = torch.from_numpy(context.preprocess.normalise(images.pixels[part]))
            y = torch.from_numpy(images.labels[part])
            loss = torch.nn.functional.cross_entropy(module(x), y, reduction="sum")
            (loss / count).backward()

    def _widths(self, groups: list[Any], align: int) -> list[int]:
        """Channels to keep per group: a multiple of `align`, never fewer than `align`."""
        import torch

        if self.scope == "layer":
            wanted = [len(score) * (1 - self.ratio) for _, _, score in groups]
        else:  # one threshold; scores are comparable after division by each group's mean
            scaled = [score / (score.mean() + 1e-12) for _, _, score in groups]
            threshold = torch.quantile(torch.cat(scaled).float(), self.ratio)
            wanted = [float((s > threshold).sum()) for s in scaled]
        return [
            min(len(score), max(align, round(want / align) * align))
            for want, (_, _, score) in zip(wanted, groups, strict=True)
        ]


def _kept(layer: Any, sides: dict[str, set[int]]) -> dict[str, Any]:
    """What stays of one layer: indices by side, and the width it had."""
    from torch import nn

    kept: dict[str, Any] = {
        side: [i for i in range(_width(layer, side)) if i not in gone]
        for side, gone in sides.items()
    }
    if "out" in kept and isinstance(layer, nn.Conv2d | nn.Linear):
        kept["was"] = _width(layer, "out")
    return kept


def _width(layer: Any, side: str) -> int:
    """Channels of a layer's input or output side."""
    names = (f"{side}_channels", f"{side}_features", "num_features", "num_parameters")
    return int(next(getattr(layer, name) for name in names if hasattr(layer, name)))


def _refusal(graph: Any, group: Any, layers: set[torch.nn.Module]) -> str:
    """Why the channels of a group have to stay, or "".

    The last two are what Torch-Pruning 1.6 maps wrongly (pixel shuffles, concatenations before
    flatten) or what one width cannot be chosen for (an addition to a concatenation).
    """
    from torch_pruning.ops import OPTYPE

    joined = any(dep.target.type == OPTYPE.CONCAT for dep, _ in group)
    for dep, indices in group:
        layer, kind = dep.target.module, dep.target.type
        if kind == OPTYPE.PARAMETER:
            return "hangs on a bare parameter"
        if kind in (OPTYPE.SPLIT, OPTYPE.SLICE, OPTYPE.UNBIND, OPTYPE.EXPAND):
            return "is split by channels"
        if _grouped(layer):
            return "feeds a grouped convolution"
        if layer in layers and not can_shrink(layer):
            return f"feeds a {type(layer).__name__}"
        if layer not in layers or _one_for_all(layer):
            continue
        side = "out" if graph.is_out_channel_pruning_fn(dep.handler) else "in"
        if max(indices, default=0) >= _width(layer, side):
            return "has channels that cannot be followed"
        if joined and len(indices) != len(group[0].idxs):
            return "is flattened or added to after a concatenation"
    return ""


def _grouped(layer: Any) -> bool:
    """A grouped convolution that is not depthwise."""
    groups = getattr(layer, "groups", 1)
    return groups > 1 and groups != getattr(layer, "out_channels", groups)


def _one_for_all(layer: Any) -> bool:
    """A PReLU with one slope for all channels: nothing of it goes when channels do."""
    return getattr(layer, "num_parameters", None) == 1


def _shrunk(module: torch.nn.Module, edit: Edit, context: Context) -> int:
    """Apply the edit and return the MACs that are left.

    Raises UnsupportedError when the network does not run with the channels that stay.
    """
    try:
        replay(module, edit)
        return macs(module, context)
    except (IndexError, KeyError, RuntimeError, ValueError, ModelError) as e:
        first = " ".join(str(e).split())[:200]
        raise UnsupportedError(
            context.where,
            f"the network does not run after pruning: {first}",
            "its forward splits or reshapes channels; prune cannot follow that",
        ) from e


def _head(module: torch.nn.Module, example: torch.Tensor, where: str) -> torch.nn.Module:
    """The last dense layer or convolution that runs: its outputs are the classes."""
    from torch import nn

    order: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda m, *_: order.append(m))
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    import torch

    with torch.no_grad():
        module.eval()(example)
    for hook in hooks:
        hook.remove()
    if not order:
        raise UnsupportedError(where, "has no convolution and no dense layer", "nothing to prune")
    return order[-1]


def macs(module: torch.nn.Module, context: Context) -> int:
    """Multiply-accumulates of one image."""
    return counting.macs(module, context.preprocess.channels, context.preprocess.size)
