"""Which of its outputs a network is trained on, where it returns several in train mode.

Auxiliary heads (GoogLeNet, Inception, torchvision's segmentation networks) make a network answer
with a tuple or a dict while it trains and with one tensor in eval mode. Trained on is the first,
or what a dict calls its logits; the others get no gradient of their own.

Pitfall: the first need not be the one that ships. Before training the containers are put into
train mode and the layers into eval mode: what then equals the answer of eval mode is the output
that ships, and where that is not the one trained on, training is refused.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from edgecv.behaviour import check_runs, differ, pictures, tensors, undisturbed
from edgecv.errors import StageError

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)
MAIN = ("logits", "out", "output", "main")  # of a dict, what is trained on; else its first


def first(result: Any) -> Tensor:
    """The logits in what a network returns: itself, or the first of several."""
    if isinstance(result, dict):
        main = next((key for key in MAIN if key in result), next(iter(result)))
        return first(result[main])
    if isinstance(result, list | tuple):
        return first(result[0])
    found: Tensor = result
    return found


def check_train_mode(module: nn.Module, shape: tuple[int, int, int], where: str) -> None:
    """Raises StageError where training would be of another output than the one that ships.

    shape: of an image, (C, H, W). The network's modes and state are left as they were.
    """
    import torch

    x = pictures(shape)
    modes = [(part, part.training) for part in module.modules()]
    try:
        with undisturbed(module), torch.no_grad():
            check_runs(module, x, where, "loading")
            ships = first(module.eval()(x)).detach().clone()
            for part in module.modules():
                part.training = bool(list(part.children()))
            beside = module(x)
            trains = _in_train_mode(module, x, where)  # last: it moves batch norms' statistics
    finally:
        for part, training in modes:
            part.training = training
    if isinstance(trains, torch.Tensor):
        if trains.shape != ships.shape:
            what = (
                f"answers {tuple(trains.shape)} in train mode and {tuple(ships.shape)} in eval mode"
            )
            raise StageError(where, what, "let both return the logits")
        return
    _check_several(where, trains, ships, beside)


def _in_train_mode(module: nn.Module, x: Tensor, where: str) -> Any:
    try:
        return module.train()(x)
    except Exception as e:
        what = f"its forward fails in train mode on {len(x)} pictures, with a {type(e).__name__}"
        raise StageError(where, what, "try `net.train()(x)` on such a batch") from e


def _check_several(where: str, trains: Any, ships: Tensor, beside: Any) -> None:
    """trains: returned in train mode; ships: in eval mode; beside: with layers in eval mode."""
    import torch

    kind, hint = type(trains).__name__, "return the main head's logits first, or alone"
    what = f"returns a {kind} in train mode and one tensor in eval mode"
    main = first(trains)
    if not isinstance(main, torch.Tensor) or main.shape != ships.shape:
        shape = tuple(main.shape) if isinstance(main, torch.Tensor) else type(main).__name__
        raise StageError(where, f"{what}; the first of the {kind} is {shape}, "
                         f"not {tuple(ships.shape)}", hint)  # fmt: skip
    others = [t for t in tensors(beside) if not differ([t], [ships])]
    if others and differ([first(beside)], [ships]):
        raise StageError(where, f"{what}, which is not the first of the {kind}", hint)
    log.warning("%s: %s: trained on the first of them", where, what)
