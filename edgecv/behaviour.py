"""What no look at a network's layers tells, seen by running it: does f(x) depend on x alone?

    random   f(x) ≠ f(x): dropout left on, noise, a state that every call changes
    mixing   f([x, y]) ≠ [f(x), f(y)]: a BatchNorm without running statistics or left in train mode,
             a mean over the batch

A random network has no answer that a device could be held to. One that mixes its batch has one,
to a single picture, which is what devices run; but it cannot be trained, nor its accuracy told,
in batches.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)
FAR = 1e-3  # of what varies between two pictures; the same sums in another order differ by less
LEAST = 1e-4  # of the largest answer
PICTURES = 2
MIXES = "it mixes the batch"
TRIES = 16  # of a network that draws random numbers


def check_random(module: nn.Module, where: str, shape: tuple[int, int, int]) -> None:
    """Raises ModelError naming a layer, where one image (C, H, W) is answered in two ways.

    One that draws random numbers without their being seen in its answers is warned of. The module
    is in eval mode, and its state is left as it was.
    """
    x = pictures(shape)[:1]
    with undisturbed(module):
        a, first = _run(module, x, 0), _drawn()
        b, second = _run(module, x, 1), _drawn()
        draws = first != second and first != _drawn(0)
        for seed in range(2, TRIES if draws else 2):
            if differ(a[0], b[0]):
                break
            b = _run(module, x, seed)
    if differ(a[0], b[0]):
        layer = _first(module, a[1], b[1])
        seen = f", as layer {layer} shows first" if layer else ""
        raise ModelError(
            where,
            f"answers one picture in two ways in eval mode{seen}: it is random, or keeps a state",
            "dropout, noise and stochastic depth have to heed `self.training`",
        )
    if draws:
        log.warning("%s: draws random numbers in eval mode; %d calls agreed", where, TRIES)


def _drawn(seed: int | None = None) -> bytes:
    """Where the random generators stand: torch's, and Python's and numpy's (seeded anew before)."""
    import torch

    if seed is not None:
        _seed(seed)
    state = np.random.get_state()
    return bytes(torch.get_rng_state().numpy()) + repr((random.getstate(), state)).encode()


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def mixing(module: nn.Module, shape: tuple[int, int, int]) -> str:
    """Why a network's answers to a batch are not those to its pictures; "" where they are.

    Reads as the end of "network X ...". The module is in eval mode; its state is left as it was.
    """
    x = pictures(shape)
    with undisturbed(module):
        singles = [_run(module, one[None], 1) for one in x]
        try:
            together = _run(module, x, 1)
        except Exception:  # of the user's own code, whatever it is
            return "takes one picture at a time: it fails on two"
    apart = _joined([s[0] for s in singles])
    if [t.shape for t in apart] == [t.shape for t in together[0]] and not differ(
        apart, together[0]
    ):
        return ""
    seen = {name: _joined([s[1].get(name, []) for s in singles]) for name in singles[0][1]}
    layer = _first(module, seen, together[1])
    at = f", from layer {layer} on" if layer else ""
    return f"answers two pictures together otherwise than one by one{at}: {MIXES}"


Run = tuple[list["Tensor"], dict[str, list["Tensor"]]]


def _run(module: nn.Module, x: Tensor, seed: int) -> Run:
    """Its outputs, and by name those of its innermost layers in their order."""
    import torch

    names = {
        part: name for name, part in module.named_modules()
        if not list(part.children()) and not isinstance(part, torch.jit.ScriptModule)
    }  # fmt: skip
    seen: dict[str, list[Tensor]] = {}

    def keep(part: nn.Module, _: Any, result: Any) -> None:
        seen.setdefault(names[part], [t.detach().clone() for t in tensors(result)])

    hooks = [part.register_forward_hook(keep) for part in names]
    _seed(seed)
    try:
        with torch.no_grad():
            found = [t.detach().clone() for t in tensors(module(x))]
    finally:
        for hook in hooks:
            hook.remove()
    return found, seen


def check_of_images(module: nn.Module, where: str) -> None:
    """Raises ModelError naming the first layer of volumes: images (N, C, H, W) are trained on, and
    memory is laid out for their four axes."""
    volumes = (name for name, weight in module.named_parameters() if weight.ndim > 4)
    if (name := next(volumes, None)) is not None:
        layer = name.rpartition(".")[0]
        kind = type(module.get_submodule(layer)).__name__
        what = f"layer {layer!r} ({kind}) is of volumes (N, C, D, H, W)"
        hint = "networks of images (N, C, H, W) are trained and changed: use 2-d layers"
        raise ModelError(where, what, hint)


@contextmanager
def tracking(module: nn.Module) -> Iterator[Callable[[], str]]:
    """Yields a function that says which layer was running when something was raised."""
    import torch

    stack: list[str] = []

    def enter(part: nn.Module, _: Any) -> None:
        stack.append(f"layer {names[part]!r} ({type(part).__name__})")

    def leave(*_: Any) -> None:
        stack.pop()

    scripts = torch.jit.ScriptModule  # takes no hooks
    named = ((p, name) for name, p in module.named_modules() if not isinstance(p, scripts))
    names = {part: name for part, name in named if name}
    hooks = [part.register_forward_pre_hook(enter) for part in names]
    hooks += [part.register_forward_hook(leave) for part in names]
    try:
        yield lambda: stack[-1] if stack else ""
    finally:
        for hook in hooks:
            hook.remove()


Shapes = list[tuple[int, ...]]


def check_runs(module: nn.Module, x: Tensor, where: str, done: str) -> Shapes:
    """The shapes of what a network returns for x (N, C, H, W), in eval mode.

    done: what was done to it ("pruning"). Raises UnsupportedError naming the layer it stops at.
    """
    import torch

    with torch.no_grad(), tracking(module.eval()) as inside:
        try:
            return [tuple(y.shape) for y in tensors(module(x))]
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as e:
            at = f", at {inside()}" if inside() else ""
            hint = "its forward reads layers in a way that cannot be followed: leave those out"
            raise UnsupportedError(where, f"the network does not run after {done}{at}", hint) from e


def tensors(result: Any) -> Iterator[Tensor]:
    """The tensors in what a network returns: alone, or in containers."""
    import torch

    from edgecv.outputs import members

    yield from (value for _, value in members(result) if isinstance(value, torch.Tensor))


def _first(module: nn.Module, a: dict[str, list[Tensor]], b: dict[str, list[Tensor]]) -> str:
    """The first layer whose outputs differ, with its class."""
    for name in a:
        if name in b and differ(a[name], b[name]):
            return f"{name!r} ({type(module.get_submodule(name)).__name__})"
    return ""


def _joined(parts: list[list[Tensor]]) -> list[Tensor]:
    """Outputs to one picture each, as one batch."""
    import torch

    return [torch.cat(each) if each[0].ndim else torch.stack(each)
            for each in zip(*parts, strict=False)]  # fmt: skip


def differ(a: list[Tensor], b: list[Tensor]) -> bool:
    for x, y in zip(a, b, strict=False):
        if x.shape != y.shape:
            return True
        if not x.numel():
            continue
        x, y = x.double(), y.double()
        varies = float((x - x.mean(0, keepdim=True)).abs().max()) if x.ndim else 0.0
        far = max(FAR * varies, LEAST * float(x.abs().max()))
        if not float((x - y).abs().max()) <= far and bool(x.isfinite().all()):
            return True
    return False


@contextmanager
def as_trained(module: nn.Module) -> Iterator[None]:
    """The network answers in the form that it trains in (a detector's raw maps), with its layers
    in eval mode: nothing that they keep moves."""
    kept = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in kept:
            part.training = bool(list(part.children()))
        yield
    finally:
        for part, training in kept:
            part.training = training


def pictures(shape: tuple[int, int, int]) -> Tensor:
    import torch

    return torch.randn(PICTURES, *shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """The generator and the network's own state are afterwards what they were."""
    import torch

    kept = {name: value.clone() for name, value in module.state_dict().items()}
    generators = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(generators[0])
    np.random.set_state(generators[1])
    for name, value in module.state_dict().items():
        if not torch.equal(value, kept[name]):
            value.copy_(kept[name])
