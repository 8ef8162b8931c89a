"""`edgecv.compress`: a smaller network, or one that learns its integers, for a loop of your own.

net = edgecv.compress(net, images, macs=0.5, quantize=True)
...                                             # your loop trains it
edgecv.finish(net, ["cpu"], out="out/")
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from edgecv.api.calling import Progress, one_or_several, public, telling
from edgecv.api.ready import KEPT, NAME, Ready, of
from edgecv.errors import RecipeError, UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgecv.context import Context
    from edgecv.stages.prune import Prune

Method = Literal["apoz", "bn_scale", "fpgm", "l1", "l2", "lamp", "random", "thinet"]
WHERE = "compress"


@public
def compress(
    module: nn.Module,
    example: torch.Tensor,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    size_mb: float | None = None,
    latency_ratio: float | None = None,
    latency_ms: float | None = None,
    targets: str | Sequence[str] = "cpu",
    method: Method = "thinet",
    scope: Literal["layer", "global"] = "layer",
    keep: Sequence[str] = (),
    align: int | None = None,
    quantize: bool = False,
    weight_bits: int = 8,
    activation_bits: int = 8,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of a network with fewer channels, with quantizers, or both, in train mode and on the
    device of the original, which is left as it is. Its parameters are new ones: make the optimizer
    of the copy. Its forward takes and returns what the original's does.

    example:       images as the training loop has them, normalised: float32 (N, C, H, W); criteria
                   and quantizers look at all of them, so give some 256 of the training set
    ratio:         share of every layer's channels to remove; macs, latency_ratio: share to reach of
                   what it costs now, 0..1; size_mb: of its weights, 10^6 bytes; latency_ms: a call
    targets:       where times are measured (the first that runs here), and whose widths are kept
    method:        what makes a channel important (docs/stages.md#prune), of those without labels
    keep:          layers whose channels stay: names or patterns ("stage1.*")
    align:         widths are multiples of this; default: the targets' own
    quantize:      put quantizers (LSQ) with weight_bits and activation_bits of 2..8 where int8
                   engines round: their steps are parameters, and are learned with the weights.
                   Processors without VNNI want weight_bits=7
    progress:      called as progress(done, total, note) while times are measured

    Raises RecipeError: nothing is asked for, or two costs are; an example of another shape or
    dtype; UnsupportedError: the network cannot be pruned or quantized; BudgetError: the smallest
    network costs more than is asked for; TargetError, ModelError.
    """
    import torch

    from edgecv.methods.qat.attach import has_quantizers
    from edgecv.models import live_network
    from edgecv.models.folding import folded, unwrapped
    from edgecv.models.model import check_outputs

    costs = {"ratio": ratio, "macs": macs, "size_mb": size_mb, "latency_ratio": latency_ratio,
             "latency_ms": latency_ms}  # fmt: skip
    asked = {name: value for name, value in costs.items() if value is not None}
    if not asked and not quantize:
        raise RecipeError(WHERE, "nothing is asked for", "give macs=0.5, or quantize=True")
    if method not in get_args(Method):
        what = f"{method!r} is no criterion without labels"
        raise RecipeError("method", what, f"one of {', '.join(get_args(Method))}")
    if of(module) and has_quantizers(unwrapped(module)):
        raise RecipeError("module", "has quantizers already", "compress the float network")
    images = _checked(example)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with live_network.held(module) as name:
        called = live_network.called(name)
        network = folded(live_network.copied(name), called)
    check_outputs(network, called, (torch.from_numpy(images[:1]),), None, trains=False)
    if asked:
        given = {**asked, "method": method, "scope": scope, "keep": tuple(keep), "align": align}
        _prune(network, images, given, one_or_several(targets), telling(progress))
    edit = None
    if quantize:
        edit = _with_quantizers(network, images, weight_bits, activation_bits)
    setattr(network, NAME, Ready(images[:KEPT].copy(), edit))
    return network.to(device).train()


def _checked(example: Any) -> np.ndarray:
    """float32 (N, C, H, W). Raises RecipeError."""
    import torch

    if not isinstance(example, torch.Tensor) or example.ndim != 4 or not len(example):
        found = f"{type(example).__name__} {tuple(getattr(example, 'shape', ()))}"
        hint = "images as the training loop has them"
        raise RecipeError("example", f"takes float32 (N, C, H, W), found {found}", hint)
    images = example.detach().cpu().to(torch.float32).numpy()
    if not np.isfinite(images).all():
        raise RecipeError("example", "holds NaN or infinity", "are mean, std as in training?")
    return images


def _prune(
    network: nn.Module, images: np.ndarray, asked: dict[str, Any], targets: list[str],
    progress: Callable[..., None],
) -> None:  # fmt: skip
    """Remove channels, in place, and measure batch norms anew."""
    from edgecv.methods.pruning.rounds import Pruning
    from edgecv.methods.pruning.tuning import recalibrate
    from edgecv.models.model import Model
    from edgecv.stages.prune import Prune
    from edgecv.yaml_validation import checked

    words = {key: key for key in asked}
    stage: Prune = checked(Prune, {**asked, "samples": len(images), "finetune_epochs": 0}, words)
    with tempfile.TemporaryDirectory(prefix="edgecv-compress-") as room:
        context = _context(images, targets, Path(room), progress)
        Pruning(stage, Model(WHERE), network, context).remove(1, Path(room))
        if len(images) > 1:  # one image has no variance
            recalibrate(network, context, stage.samples)


def _context(
    images: np.ndarray, targets: list[str], room: Path, progress: Callable[..., None]
) -> Context:
    """What stages know of a run, of images that are normalised already: they are laid on 256 levels
    over their own range, channel by channel, and mean and std lead back."""
    from edgecv import target
    from edgecv.context import Context
    from edgecv.data.images import Images
    from edgecv.measuring.run import Measuring
    from edgecv.runtime.preprocess import Preprocess

    low, high = images.min((0, 2, 3)), images.max((0, 2, 3))
    span = np.where(high > low, high - low, 1.0).astype(np.float64)
    levels = (images - low[:, None, None]) * (255.0 / span)[:, None, None]
    pixels = np.rint(levels).astype(np.uint8).transpose(0, 2, 3, 1)
    mean, std = -low * 255.0 / span, 255.0 / span
    size = (images.shape[2], images.shape[3])
    takes = Preprocess(size, images.shape[1], tuple(map(float, mean)), tuple(map(float, std)))
    held = Images(np.ascontiguousarray(pixels), np.zeros(len(pixels), np.int64), ())
    held.save(room / "images")
    profiles = tuple(target.load(name) for name in dict.fromkeys(targets))
    out = room / "out"
    out.mkdir()
    return Context(
        out=out, seed=0, preprocess=takes, images=lambda _: held,
        folders={"train": room / "images", "test": room / "images"},
        alignment=math.lcm(*(t.alignment for t in profiles)), targets=profiles, progress=progress,
        where=WHERE, doing=Measuring(),
    )  # fmt: skip


def _with_quantizers(
    network: nn.Module, images: np.ndarray, weight_bits: int, activation_bits: int
) -> dict[str, Any]:
    """Put quantizers into a float network, in place; the edit that does it again."""
    import torch

    from edgecv.methods.qat.initialisation import prepare

    for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if type(bits) is not int or not 2 <= bits <= 8:
            raise RecipeError(name, f"is {bits!r}", "a whole number from 2 to 8")
    sample = torch.from_numpy(images)
    with torch.no_grad():
        said = network.eval()(sample[:1])
    if not isinstance(said, torch.Tensor):
        what = f"returns a {type(said).__name__}: quantizers are learned of one output"
        raise UnsupportedError(WHERE, what, "edgecv.export(net, ..., calibration=images)")
    return prepare(network, sample, WHERE, "lsq", weight_bits, activation_bits)
