"""w ← g(v), once: every network comes in as plain float32 layers on the CPU.

Weights that a hook or a parametrization computes before each call (`weight_norm` and
`spectral_norm` of either form, `torch.nn.utils.prune`, any registered parametrization) become the
plain parameters that they are in eval mode, bit for bit, so that no room meets a weight that is
not there to read, to cut or to save. `torch.compile` and DataParallel are taken off. Half and
double precision become float32. What cannot be had so is refused by the layer's name.

Pitfall: what trains on from here trains w and not v; a network that is to be trained in its own
parametrization is trained before it comes in.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgecv.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)
# Ends of the names that weights have before they are folded.
BEFORE = ("_g", "_v", "_orig", "_mask", "_u")


def folded(
    module: nn.Module, where: str, weights: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """The network with plain float32 weights on the CPU, in eval mode; changed in place.

    weights: of a file that was written before its weights were folded; what of it belongs to a
    hook or a parametrization is loaded first (`renamed` has the rest)
    Raises ModelError naming a layer that is quantized already, has no weights yet, or whose
    weights cannot be computed.
    """
    import torch

    # Its fused kernel of a whole encoder layer passes over the layers inside: over what replaces
    # them, and what watches them. Without it the same products run one by one.
    torch.backends.mha.set_fastpath_enabled(False)
    module = unwrapped(module)
    _evaluate(module, where)
    _check(module, where)
    computed = {name for name, _ in module.named_parameters() if _is_computed(name, module)}
    if weights and computed & weights.keys():
        module.load_state_dict(dict(weights), strict=False)
    module = _float32(module, where)
    count: Counter[str] = Counter()
    for name, part in module.named_modules():
        try:
            with torch.no_grad():
                count.update(_fold(part))
        except Exception as e:
            what = f"computes weights of its own that cannot be had: {type(e).__name__}"
            raise ModelError(f"{where}: layer {name!r}", what, "return plain layers") from e
        _check_rest(name, part, where)
    for kind, number in sorted(count.items()):
        log.info("%s: weights of %d layers behind %s are plain from here on", where, number, kind)
    return module


def renamed(weights: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """`weights` by the names of a folded network: computed ones are taken from the network."""
    own = module.state_dict()
    parts = dict(module.named_modules())
    old = {name for name in weights.keys() - own.keys() if _was_computed(name, parts)}
    if not old:
        return dict(weights)
    kept = {name: value for name, value in weights.items() if name not in old}
    return {name: own[name] for name in own.keys() - kept.keys()} | kept


def _was_computed(name: str, parts: Mapping[str, nn.Module]) -> bool:
    """Whether a file's name is of a weight that was computed: "0.weight_g" where 0 is a layer."""
    owner, _, _ = name.partition(".parametrizations.")
    if owner != name:
        return owner in parts
    owner, _, leaf = name.rpartition(".")
    layer = parts.get(owner)
    return any(leaf.endswith(end) and hasattr(layer, leaf.removesuffix(end)) for end in BEFORE)


def _is_computed(name: str, module: nn.Module) -> bool:
    """Whether a parameter is what a hook or a parametrization computes a weight from."""
    if ".parametrizations." in f".{name}":
        return True
    owner, _, leaf = name.rpartition(".")
    layer = module.get_submodule(owner)
    return any(leaf == f"{getattr(h, 'name', '')}{end}" or leaf == f"{_tensor_name(h)}{end}"
               for h in layer._forward_pre_hooks.values() for end in BEFORE)  # fmt: skip


def _tensor_name(hook: Any) -> str:
    return str(getattr(hook, "_tensor_name", ""))


def unwrapped(module: Any) -> nn.Module:
    """The network inside torch.compile's, DataParallel's or an averaged model's wrapper."""
    import torch
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        if isinstance(
            module, DataParallel | DistributedDataParallel | torch.optim.swa_utils.AveragedModel
        ):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def _evaluate(module: nn.Module, where: str) -> None:
    """Put a network into eval mode. Raises ModelError where its own train() or eval() prevents it.

    A layer that keeps itself in train mode (its own class says so) is taken as it is.
    """
    for mode, returned in (("train()", module.train()), ("eval()", module.eval())):
        if returned is not module:
            what = f"its {mode} returns {type(returned).__name__}, not the network"
            raise ModelError(where, what, "end its train() and eval() with `return self`")
    for name, part in module.named_modules():
        if part.training and not list(part.children()) and not part.eval().training:
            what = "stays in train mode when the network is put into eval mode"
            hint = "let the network's own train() and eval() reach it: super().train(mode)"
            raise ModelError(f"{where}: layer {name!r} ({type(part).__name__})", what, hint)


def _check(module: nn.Module, where: str) -> None:
    from torch.nn.parameter import is_lazy

    for name, part in module.named_modules():
        place = f"{where}: layer {name!r}" if name else where
        if ".quantized" in type(part).__module__ and type(part).__module__.startswith("torch."):
            what = f"is quantized already ({type(part).__name__})"
            raise ModelError(place, what, "give the float network: `quantize` does the rest")
        for key, value in (
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
        ):
            if is_lazy(value):
                what = f"has no {key} yet: it is made when the first image comes"
                raise ModelError(place, what, "run one image through before returning the network")
            if value.is_complex():
                raise ModelError(place, f"has complex numbers in {key!r}", "no engine has those")
            if value.device.type == "meta":
                raise ModelError(place, f"has no values in {key!r} (device meta)", "load weights")


def _float32(module: nn.Module, where: str) -> nn.Module:
    """On the CPU, and in float32 where it was in another precision, which is said."""
    import torch

    held = {str(v.dtype).removeprefix("torch.") for v in _values(module) if v.is_floating_point()}
    others = sorted(held - {"float32"})
    if others:
        log.warning("%s: holds %s weights: taken in float32", where, " and ".join(others))
        module = module.float()
        for part in module.modules():  # of old hooks, which hold their weight as an attribute
            for key, value in list(vars(part).items()):
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    part.__dict__[key] = value.detach().float()
    if any(v.device.type != "cpu" for v in _values(module)):
        module = module.cpu()
    return module


def _values(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _fold(part: nn.Module) -> list[str]:
    """Make a module's computed weights plain, in place; what they were computed by."""
    from torch.nn.utils import (
        parametrize,
        prune,
        remove_spectral_norm,
        remove_weight_norm,
        spectral_norm,
        weight_norm,
    )

    done = []
    if parametrize.is_parametrized(part):
        parametrizations: Any = part.parametrizations
        for name in list(parametrizations):
            kinds = [type(p).__name__.strip("_") for p in parametrizations[name]]
            trained = [p.requires_grad for p in parametrizations[name].parameters(recurse=False)]
            parametrize.remove_parametrizations(part, name, leave_parametrized=True)
            _keep_frozen(part, name, any(trained))
            done.append(" and ".join(kinds))
    hooks: list[Any] = list(part._forward_pre_hooks.values())
    for hook in hooks:
        kind: Any = type(hook)
        if kind.__module__ == "torch.nn.utils.weight_norm":
            trained = [getattr(part, f"{hook.name}_g").requires_grad]
            remove_weight_norm(part, hook.name)
            _keep_frozen(part, hook.name, any(trained))
            done.append(weight_norm.__name__)
        elif kind.__module__ == "torch.nn.utils.spectral_norm":
            trained = [getattr(part, f"{hook.name}_orig").requires_grad]
            remove_spectral_norm(part, hook.name)
            _drop_loading(part)
            _keep_frozen(part, hook.name, any(trained))
            done.append(spectral_norm.__name__)
        elif isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            trained = [getattr(part, f"{name}_orig").requires_grad]
            prune.remove(part, name)
            _keep_frozen(part, name, any(trained))
            done.append("a pruning mask")
    return done


def _drop_loading(part: Any) -> None:
    """Take off what spectral_norm does to a state that is loaded: torch 2.13 leaves it there."""
    for hooks in (part._load_state_dict_pre_hooks, part._state_dict_hooks):
        for key, hook in list(hooks.items()):
            if type(getattr(hook, "hook", hook)).__module__ == "torch.nn.utils.spectral_norm":
                del hooks[key]


def _keep_frozen(part: nn.Module, name: str, trained: bool) -> None:
    """A parameter of its own, contiguous as others are, that trains if what it came from did."""
    from torch import nn

    value = getattr(part, name)
    setattr(part, name, nn.Parameter(value.detach().clone(), requires_grad=trained))


def _check_rest(name: str, part: nn.Module, where: str) -> None:
    """Raises ModelError where a hook that is not known computes a weight."""
    import torch

    for key in ("weight", "bias"):
        value = vars(part).get(key)
        if isinstance(value, torch.Tensor) and part._forward_pre_hooks:
            raise ModelError(
                f"{where}: layer {name!r}",
                f"has a {key} that a hook computes before every call",
                "make it a parameter before the network is returned",
            )
