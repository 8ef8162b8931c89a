"""Channels that have to go together, as plain data: which index of which layer is which channel.

    group = {(layer, side, index) : what is bound to channel c},  c = 0 ... width - 1

Residual additions, concatenations, depthwise convolutions and the consumers' input sides are
followed by the dependency graph of Torch-Pruning (Fang et al., "DepGraph", CVPR 2023). What it maps
wrongly in 1.6 (pixel shuffles, concatenations before flatten), or what one width cannot be chosen
for (an addition to a concatenation), is said and left as it is. Nothing of it is believed untried:
without a channel the network has to answer as it does when nobody reads that channel (`_untrue`).
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.behaviour import tensors
from edgecv.errors import ModelError, UnsupportedError
from edgecv.methods.pruning.edit_keep_channels import can_shrink
from edgecv.models.edits import Edit, replay
from edgecv.models.layer_kinds import altered
from edgecv.models.layer_selection import layers as every_layer
from edgecv.models.layer_selection import named

log = logging.getLogger(__name__)
CANNOT = "has channels that cannot be followed"
JOINED = "is flattened or added to after a concatenation"
HELD = "is held by `keep`"
UNTRUE = 0.01  # of what the channels change, may be left unexplained


@dataclass(frozen=True)
class Member:
    """One side of a layer. Index at[i] of that side belongs to channel of[i] of the group.

    side: "out" (rows; also of batch norms and depthwise convolutions) or "in" (columns)
    """

    name: str
    layer: nn.Module
    side: str
    at: Tensor
    of: Tensor


@dataclass(frozen=True)
class Group:
    """Channels that are kept or removed as one. graph, root: Torch-Pruning's, to cut with."""

    name: str
    width: int
    members: tuple[Member, ...]
    graph: Any
    root: Any

    def consumers(self) -> list[Member]:
        """The convolutions and dense layers that read the channels."""
        return [m for m in self.members if m.side == "in"]

    def producers(self) -> list[Member]:
        """The convolutions and dense layers that write them, depthwise ones among them."""
        kinds = (nn.Conv2d, nn.Linear)
        return [m for m in self.members if m.side == "out" and isinstance(m.layer, kinds)]

    def norms(self) -> list[Member]:
        """The batch norms on the way that have a scale."""
        kind = nn.modules.batchnorm._BatchNorm
        return [m for m in self.members if isinstance(m.layer, kind) and m.layer.affine]

    def summed(self, member: Member, values: Tensor) -> Tensor:
        """Values of a member's side (size of the side,), summed by channel: float (width,)."""
        return torch.zeros(self.width).index_add_(0, member.of, values[member.at].float())


def rows(member: Member) -> Tensor:
    """The weights by index of the member's side: (size of the side, the rest)."""
    weight = member.layer.weight
    assert isinstance(weight, Tensor)
    if member.side == "in":
        weight = weight.transpose(0, 1)
    return weight.reshape(len(weight), -1)


def find(module: nn.Module, example: Tensor, where: str, keep: Sequence[str] = ()) -> list[Group]:
    """The groups of `survey`."""
    return survey(module, example, where, keep)[0]


def survey(
    module: nn.Module, example: Tensor, where: str, keep: Sequence[str] = ()
) -> tuple[list[Group], dict[str, str]]:
    """Every group whose channels can be removed; why those of other layers stay, by layer, which
    is logged.

    keep: names of layers (or patterns, or modules) whose own channels stay
    Raises UnsupportedError: nothing to prune. RecipeError: a name that matches nothing.
    """
    import torch_pruning as tp

    head = _head(module, example, where)
    stays = named(keep, every_layer(module), where)
    with _unmapped(), warnings.catch_warnings():  # `_refusal` tells of parameters that matter
        warnings.filterwarnings("ignore", "Unwrapped parameters", UserWarning)
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
    layers = dict(module.named_modules())
    names = {layer: name for name, layer in layers.items()}
    x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = list(tensors(module(x)))
    found, held, reasons, stay = [], False, list[str](), dict[str, str]()
    for layer, raw in _groups(graph, head):
        name = names.get(layer, graph._module2name.get(layer, "?"))
        reason = _refusal(graph, raw, set(layers.values())) if raw else CANNOT
        members = () if reason else tuple(_members(graph, raw, names))
        if not reason and not any(m.side == "in" for m in members):
            reason = "reaches the outputs, or is read by no layer"
        if not reason:
            group = Group(name, len(raw[0].idxs), members, graph, raw[0].dep)
            if any(m.name in stays for m in group.producers()):
                held = True
                stay |= dict.fromkeys(_written(graph, raw, names), HELD)
                continue
            reason = _untrue(module, group, x, before)
        if reason:
            reasons.append(f"{name} {reason}")
            stay |= dict.fromkeys([name, *_written(graph, raw, names)], reason)
            log.warning("%s: %s %s: kept", where, name, reason)
        else:
            found.append(group)
    if not found:
        hint = "the dependency graph needs convolutions or dense layers before the last one"
        if held:
            hint = "`keep` holds what there is"
        told = f": {'; '.join(reasons[:3])}" if reasons else ""
        what = f"found no layer whose channels can be removed{told}"
        raise UnsupportedError(where, what, hint)
    return found, stay


def _written(graph: Any, raw: Any, names: dict[nn.Module, str]) -> list[str]:
    """The convolutions and dense layers that write a group's channels; none of an unknown one."""
    return [
        names[layer]
        for dep, _ in raw or ()
        if isinstance(layer := dep.target.module, nn.Conv2d | nn.Linear)
        and layer in names
        and graph.is_out_channel_pruning_fn(dep.handler)
    ]


def edit(module: nn.Module, groups: Sequence[Group], kept: Sequence[Tensor], step: str) -> Edit:
    """The edit that leaves those channels of each group; "modules" is empty where all stay."""
    layers = dict(module.named_modules())
    names = {layer: name for name, layer in layers.items()}
    removed: dict[str, dict[str, set[int]]] = {}
    for group, keep in zip(groups, kept, strict=True):
        stays = set(keep.tolist())
        gone = [c for c in range(group.width) if c not in stays]
        if not gone:
            continue
        with _unmapped():
            raw = group.graph.get_pruning_group(group.root.target.module, group.root.handler, gone)
        for dep, indices in raw:
            name = names.get(dep.target.module)
            if name is None or _one_for_all(dep.target.module):
                continue  # an operation without weights: addition, reshape
            side = "out" if group.graph.is_out_channel_pruning_fn(dep.handler) else "in"
            removed.setdefault(name, {}).setdefault(side, set()).update(map(int, indices))
    modules = {name: _kept(layers[name], sides) for name, sides in removed.items()}
    return {"op": "keep_channels", "step": step, "modules": modules}


def best(scores: Sequence[Tensor], widths: Sequence[int]) -> list[Tensor]:
    """The channels of each group with the highest scores, as many as its width, in order."""
    return [
        torch.argsort(score, stable=True)[len(score) - width :].sort().values
        for score, width in zip(scores, widths, strict=True)
    ]


def width_of(layer: Any, side: str) -> int:
    """Channels of a layer's input or output side."""
    names = (f"{side}_channels", f"{side}_features", "num_features", "num_parameters")
    return int(next(getattr(layer, name) for name in names if hasattr(layer, name)))


@contextmanager
def _unmapped() -> Iterator[None]:
    """Let a concatenation whose sizes the library cannot tell stay unmapped, instead of failing.

    What leads through it is refused one by one: by what it is, or because it is not true.
    """
    from torch_pruning.dependency import index_mapping

    sized = index_mapping.update_concat_index_mapping

    def lenient(*arguments: Any) -> None:
        with suppress(TypeError):
            sized(*arguments)

    index_mapping.update_concat_index_mapping = lenient
    try:
        yield
    finally:
        index_mapping.update_concat_index_mapping = sized


def _groups(graph: Any, head: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """Each group by its first layer; None for one that the library fails on."""
    from torch_pruning import ops

    ignored, seen = {head, *graph.IGNORED_LAYERS_IN_TRACING}, set()
    for layer in list(graph.module2node):
        if layer in seen or layer in ignored:
            continue
        if not isinstance(layer, ops.TORCH_CONV | ops.TORCH_LINEAR):
            continue
        pruner = graph.get_pruner_of_module(layer)
        width = pruner.get_out_channels(layer) if pruner else None
        if width is None or width < 2:  # one channel is a gate of all: nothing of it can go
            continue
        try:
            with _unmapped():
                raw = graph.get_pruning_group(layer, pruner.prune_out_channels, list(range(width)))
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            yield layer, None
            continue
        written = {d.target.module for d, _ in raw if graph.is_out_channel_pruning_fn(d.handler)}
        seen |= written
        if not written & ignored:
            yield layer, raw


def _untrue(module: nn.Module, group: Group, x: Tensor, before: list[Tensor]) -> str:
    """Why the group is not what hangs together, by trying: half of its channels, drawn at random.

    f(x) without the channels = f(x) with zeros where they are read. "" where that holds.
    before: the tensors of f(x)
    """
    order = torch.randperm(group.width, generator=torch.Generator().manual_seed(0))
    gone, kept = order[: group.width // 2], order[group.width // 2 :].sort().values
    without = copy.deepcopy(module)
    try:
        replay(without, edit(module, [group], [kept], "trial"))
        with torch.no_grad(), _unread(group, gone):
            now, wanted = list(tensors(without(x))), list(tensors(module(x)))
    except (AttributeError, IndexError, KeyError, ModelError, RuntimeError, TypeError, ValueError):
        return "is needed whole: the network does not run without some of its channels"
    if [y.shape for y in now] != [y.shape for y in before]:
        return "changes the shape of the outputs"
    for y, z, own in zip(now, wanted, before, strict=True):
        off, moved = float((y - z).abs().max()), float((z - own).abs().max())
        if not off <= max(UNTRUE * moved, UNTRUE * 1e-3 * float(own.abs().max())):
            return "is reordered, or mixed by channels, on the way to what reads it"
    return ""


@contextmanager
def _unread(group: Group, channels: Tensor) -> Iterator[None]:
    """Zeros in place of the weights that read those channels."""
    held = []
    for member in group.consumers():
        weight: Any = member.layer.weight
        at = member.at[torch.isin(member.of, channels)]
        held.append((weight, at, weight.data[:, at].clone()))
        weight.data[:, at] = 0.0
    try:
        yield
    finally:
        for weight, at, values in reversed(held):
            weight.data[:, at] = values


def _members(graph: Any, raw: Any, names: dict[nn.Module, str]) -> Iterator[Member]:
    seen = set()
    for item in (raw[i] for i in range(len(raw))):
        layer = item.dep.target.module
        if layer not in names or _one_for_all(layer) or getattr(layer, "weight", None) is None:
            continue
        side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        key = (layer, side, tuple(item.idxs))
        if key not in seen:
            seen.add(key)
            at, of = torch.tensor(list(item.idxs)), torch.tensor(list(item.root_idxs))
            yield Member(names[layer], layer, side, at, of)


def _kept(layer: Any, sides: dict[str, set[int]]) -> dict[str, Any]:
    """What stays of one layer: indices by side, and the width it had."""
    kept: dict[str, Any] = {
        side: [i for i in range(width_of(layer, side)) if i not in gone]
        for side, gone in sides.items()
    }
    if "out" in kept and isinstance(layer, nn.Conv2d | nn.Linear):
        kept["was"] = width_of(layer, "out")
    return kept


def _refusal(graph: Any, group: Any, layers: set[nn.Module]) -> str:
    """Why the channels of a group have to stay, or ""."""
    from torch_pruning.ops import OPTYPE

    joined = any(dep.target.type == OPTYPE.CONCAT for dep, _ in group)
    for item in (group[i] for i in range(len(group))):
        layer, kind, indices = item.dep.target.module, item.dep.target.type, item.idxs
        if kind == OPTYPE.PARAMETER:
            return "hangs on a bare parameter"
        if kind in (OPTYPE.SPLIT, OPTYPE.SLICE, OPTYPE.UNBIND, OPTYPE.EXPAND):
            return "is split by channels"
        if _grouped(layer):
            return "feeds a grouped convolution"
        if layer in layers and not can_shrink(layer):
            return f"feeds a {type(layer).__name__}"
        if layer in layers and (why := altered(layer)):
            return f"hangs on a layer that {why}"
        if layer not in layers or _one_for_all(layer):
            continue
        side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        if max(indices, default=0) >= width_of(layer, side):
            return CANNOT
        if joined and len(indices) != len(group[0].idxs):
            return JOINED
        if None in item.root_idxs:
            return CANNOT
    return ""


def _grouped(layer: Any) -> bool:
    """A grouped convolution that is not depthwise."""
    groups = getattr(layer, "groups", 1)
    return groups > 1 and groups != getattr(layer, "out_channels", groups)


def _one_for_all(layer: Any) -> bool:
    """A PReLU with one slope for all channels: nothing of it goes when channels do."""
    return getattr(layer, "num_parameters", None) == 1


def _head(module: nn.Module, example: Tensor, where: str) -> nn.Module:
    """The last dense layer or convolution that runs: its outputs are the classes."""
    order: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda m, *_: order.append(m))
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        module.eval()(example)
    for hook in hooks:
        hook.remove()
    if not order:
        raise UnsupportedError(where, "has no convolution and no dense layer", "nothing to prune")
    return order[-1]
