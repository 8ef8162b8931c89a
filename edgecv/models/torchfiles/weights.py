"""Tensors by name out of other people's files: state dicts, checkpoints, safetensors.

torch.load reads with `weights_only=True` and in no other way: its unpickler knows tensors, numbers,
strings and containers, and calls nothing else. A file that needs more is refused with the name of
what it needs.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgecv.errors import ModelError, one_line
from edgecv.models.torchfiles import kinds, pickles

# Where checkpoints keep their weights; the averaged ones, which are meant to ship, first.
PLACES = (
    "ema_state_dict", "state_dict_ema", "model_ema", "ema", "params_ema", "state_dict",
    "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights",
)  # fmt: skip
SAVE = "save its weights alone: torch.save(model.state_dict(), 'weights.pt')"


def read(path: Path) -> dict[str, Any]:
    """What the file holds, on the CPU; large tensors stay in the file until they are copied.

    Raises ModelError: no such file, damaged, a network and not its weights, code.
    """
    where, kind = path.name, kinds.kind(path)
    if kind == "safetensors":
        return dict(_safetensors(path))
    if kind in ("torchscript", "program"):
        word = "TorchScript" if kind == "torchscript" else "a program of torch.export"
        what = f"is {word}: a network and not its weights alone"
        raise ModelError(where, what, f"give it as the network itself: edgecv export {where}")
    zipped = zipfile.is_zipfile(path)
    if zipped:
        kinds.check_sums(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (*kinds.ZIP_ERRORS, pickle.UnpicklingError, AttributeError, TypeError, IndexError,
            AssertionError, ImportError, MemoryError) as e:  # fmt: skip
        raise _refusal(path, e) from None
    if isinstance(found, Mapping):
        return {str(key): value for key, value in found.items() if isinstance(key, str)}
    raise ModelError(where, f"holds a {type(found).__name__}, not weights by name", SAVE)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as e:
        what = f"is no whole .safetensors file: {one_line(e, 120)}"
        raise ModelError(path.name, what, "truncated? copy it again") from None


def _refusal(path: Path, error: Exception) -> ModelError:
    """Why torch.load would not have it."""
    where = path.name
    try:
        code = pickles.foreign(_names(path))
    except (*kinds.ZIP_ERRORS, StopIteration):
        return ModelError(where, "is damaged: its pickle is cut off", "copy it again")
    if not code:
        why = one_line(error, 120)
        return ModelError(where, f"is damaged: {why}", "copy it again, or save it again")
    if any(name.startswith("torch.nn.") or name.startswith("torch.fx.") for name in code):
        own = next((n for n in code if not n.startswith(("torch.", "builtins"))), code[0])
        return ModelError(where, f"is a pickled module ({own}): code, which is never loaded", SAVE)
    shown = ", ".join(code[:3]) + (f" and {len(code) - 3} more" if len(code) > 3 else "")
    what = f"holds objects beside its weights ({shown}): a pickle of those is code, never loaded"
    return ModelError(where, what, SAVE)


def _names(path: Path) -> Iterator[str]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield from pickles.names(file)
        return
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
        with archive.open(name) as file:
            yield from pickles.names(file)


def states(data: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(place, tensors by name) of every state dict in a checkpoint; the likeliest first.

    place: "" is the file itself, "ema.model" the value of "model" in that of "ema"
    """
    known = [key for key in PLACES if key in data]
    for key in (*known, *(key for key in data if key not in known)):
        if isinstance(data[key], Mapping):
            inner = {k: v for k, v in data[key].items() if isinstance(k, str)}
            yield from states(inner, f"{place}.{key}" if place else key)
    if own := {key: value for key, value in data.items() if isinstance(value, Tensor)}:
        yield place, own
