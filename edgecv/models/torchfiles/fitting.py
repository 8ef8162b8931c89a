"""Other people's weights into a network: the names of a file are not always the network's.

A state dict may lie inside a checkpoint ("ema", "state_dict", "model"), and its names may stand
behind what wrapped the network while it trained ("module.", "model.", "_orig_mod.", "ema.").
Taken is what fits whole: every weight of the network, of its own shape. Nothing is filled in by
half; what is missing, too much or of another shape is listed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgecv.errors import ModelError, one_line
from edgecv.models.torchfiles.weights import SAVE, read, states

log = logging.getLogger(__name__)
WRAPPERS = ("ema", "ema_model", "model_ema", "module", "model", "_orig_mod", "net", "network")
DEEP = 3  # wrappers inside each other: "model.module._orig_mod."
SHOWN = 3
COUNTER = "num_batches_tracked"  # of batch norms: inference does not read it, old files lack it


@dataclass(frozen=True)
class Fit:
    """How one state dict fits behind one prefix.

    tensors:  by the network's names
    missing, shapes, extra: a phrase on each that is not in the file, has another shape, or stands
              behind the prefix and is not the network's
    outside:  names of the file before which the prefix does not stand
    """

    place: str
    prefix: str
    tensors: dict[str, Tensor]
    missing: list[str]
    shapes: list[str]
    extra: list[str]
    outside: list[str]

    @property
    def whole(self) -> bool:
        return not (self.missing or self.shapes or self.extra)

    @property
    def told(self) -> str:
        """What of the file it is: "ema", "model.*", "ema: module.*"."""
        return ": ".join(part for part in (self.place, self.prefix and f"{self.prefix}*") if part)


def fill(module: nn.Module, path: Path, where: str) -> None:
    """Load a file's weights into a network in place. where: what errors call the network.

    Raises ModelError as `weights.read`, and where nothing in the file fits the network whole.
    """
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    found = [fit for place, state in states(read(path)) for fit in _fits(own, state, place)]
    if not found:
        raise ModelError(path.name, "holds no tensors by name", SAVE)
    whole = [fit for fit in found if fit.whole]
    if not whole:
        raise _misfit(min(found, key=_far), len(own), path.name, where)
    taken = whole[0]
    _check_numbers(taken, path.name)
    _tell(taken, whole, path.name)
    try:
        module.load_state_dict(taken.tensors, strict=False)
    except RuntimeError as e:  # a layer that loads in a way of its own
        why = one_line(e, 200)
        raise ModelError(path.name, f"does not fit {where}: {why}", "load it in the builder") from e


def _fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str) -> Iterator[Fit]:
    """One for each prefix that could be taken off, none first. What wraps the network here is
    taken off its own names too."""
    wrapped = ""
    while (word := _only_wrapper(own, wrapped)) and not any(k.startswith(word) for k in state):
        wrapped = word
    for prefix in ("", *_prefixes(state)):
        yield _fit(own, state, place, prefix, wrapped)


def _only_wrapper(own: Mapping[str, Tensor], before: str) -> str:
    """The wrapper that stands before all of the network's own names; "" where none does."""
    first = next(iter(own), "")[len(before) :].partition(".")[0]
    word = f"{before}{first}."
    return word if first in WRAPPERS and all(k.startswith(word) for k in own) else ""


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Wrappers that stand before names of the file."""
    found: list[str] = []
    last = [""]
    for _ in range(DEEP):
        longer = (f"{before}{word}." for before in last for word in WRAPPERS)
        last = [prefix for prefix in longer if any(name.startswith(prefix) for name in state)]
        found += last
    return found


def _fit(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str, prefix: str, wrapped: str
) -> Fit:
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    mine = {name.removeprefix(wrapped): (name, value) for name, value in own.items()}
    tensors: dict[str, Tensor] = {}
    missing, shapes = [], []
    for name, (full, value) in mine.items():
        given = inner.get(name)
        if given is None:
            missing.append(name)
        elif given.shape != value.shape and {given.numel(), value.numel()} != {1}:
            shapes.append(f"{name!r} {_size(given)}, here {_size(value)}")
        elif given.is_floating_point() != value.is_floating_point() or given.is_complex():
            kinds = (str(t.dtype).removeprefix("torch.") for t in (given, value))
            shapes.append(f"{name!r} in {', here in '.join(kinds)}")
        else:
            tensors[full] = given.reshape(value.shape)
    have = {own[name].data_ptr() for name in tensors if own[name].numel()}
    lacking = [
        f"{name!r} {_size(mine[name][1])}" for name in missing
        if not name.endswith(COUNTER) and mine[name][1].data_ptr() not in have  # tied: once is all
    ]  # fmt: skip
    extra = [f"{n!r} {_size(v)}" for n, v in inner.items()
             if n not in mine and not n.endswith(COUNTER)]  # fmt: skip
    outside = [n for n in state if not n.startswith(prefix)]
    return Fit(place, prefix, tensors, lacking, shapes, extra, outside)


def _far(fit: Fit) -> tuple[int, int]:
    """How far from fitting: what cannot be had, then what is too much."""
    return len(fit.missing) + len(fit.shapes), len(fit.extra)


def _misfit(fit: Fit, count: int, file: str, where: str) -> ModelError:
    parts = []
    if fit.missing:
        parts.append(f"{len(fit.missing)} of {count} weights are not in it: {_some(fit.missing)}")
    if fit.shapes:
        parts.append(f"{len(fit.shapes)} are of another shape: {_some(fit.shapes)}")
    if fit.extra:
        parts.append(f"{len(fit.extra)} are not the network's: {_some(fit.extra)}")
    told = f"{file} ({fit.told})" if fit.told else file
    hint = "give the builder the arguments it was trained with, or load the file in the builder"
    return ModelError(told, f"does not fit {where}: {'; '.join(parts)}", hint)


def _check_numbers(fit: Fit, file: str) -> None:
    for name, value in fit.tensors.items():
        if value.is_quantized or value.layout != torch.strided:
            what = "is a sparse or quantized tensor"
            raise ModelError(f"{file}: {name!r}", what, "save the float network's weights")


def _tell(taken: Fit, whole: Sequence[Fit], file: str) -> None:
    others = [repr(fit.told) if fit.told else "the file's own names" for fit in whole[1:]]
    if others:
        log.warning("%s: taken is %r, and not %s, which fits too", file, taken.told, others[0])
    if taken.outside:
        names = [repr(name) for name in taken.outside]
        log.warning("%s: %d tensors beside the network's are left out: %s",
                    file, len(names), _some(names))  # fmt: skip
    kinds = {str(v.dtype).removeprefix("torch.") for v in taken.tensors.values()
             if v.is_floating_point()} - {"float32"}  # fmt: skip
    if kinds:
        log.warning("%s: holds %s weights: taken in float32", file, " and ".join(sorted(kinds)))


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
