"""Networks between `edgecv.compress` and `edgecv.finish`: what travels with them, and how they come
back from a training loop that is not ours.

The images that `compress` was shown calibrate what training did not learn. They are normalised as
the loop has them, so the mean and std that ship are put to the test: p = x std + mean is a pixel.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from edgecv.api.export_options import ExportOptions
    from edgecv.models.edits import Edit

NAME = "edgecv_ready"  # the attribute of a network that holds it
KEPT = 64  # images
OFF, STRAY = 1.5, 0.01  # levels beyond 0..255, and the share of values that may be


@dataclass(frozen=True)
class Ready:
    """What `compress` knows of a network that it returned.

    images: float32 (N, C, H, W), normalised as the training loop has them
    edit:   its quantizers (`edgecv.methods.qat`), or None
    """

    images: np.ndarray
    edit: Edit | None

    def sized(self, words: ExportOptions) -> ExportOptions:
        """The words with the size and channels of the images, where they say none."""
        _, channels, height, width = self.images.shape
        return {"input_size": (height, width), "channels": channels, **words}


def of(module: Any) -> Ready | None:
    """What travels with a network; None where it did not come from `compress`.

    Raises RecipeError: it is no network at all.
    """
    from torch import nn

    from edgecv.models.folding import unwrapped

    if not isinstance(module, nn.Module):
        what = f"takes a name, a path or a torch.nn.Module, found {type(module).__name__}"
        raise RecipeError("model", what, "edgecv.export(net, ['cpu'], input_size=224, out='out')")
    found = getattr(unwrapped(module), NAME, None)
    return found if isinstance(found, Ready) else None


def sized(words: ExportOptions) -> ExportOptions:
    """The words of any other network. Raises RecipeError: they do not say what it takes."""
    if words.get("input_size") is None and not words.get("input"):
        what = "a torch.nn.Module does not say the size of its images"
        raise RecipeError("input_size", what, "input_size=224 or (height, width), or input={...}")
    return words


@contextmanager
def held(
    module: nn.Module, ready: Ready, words: ExportOptions
) -> Iterator[tuple[str, ExportOptions]]:
    """The name of a network that came back from training, and the words, meanwhile."""
    from edgecv.models import live_network

    words = ready.sized(words)
    with ExitStack() as stack:
        if ready.edit is None:
            yield stack.enter_context(live_network.held(module)), words
            return
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecv-finish-")))
        folder = room / type(module).__name__
        stack.enter_context(_folder(module, ready, folder))
        words.setdefault("precision", "int8")
        if words.get("calibration") is None:
            np.save(room / "images.npy", pixels_of(ready, words), allow_pickle=False)
            words["calibration"] = room / "images.npy"
        yield str(folder), words


@contextmanager
def _folder(module: nn.Module, ready: Ready, folder: Path) -> Iterator[None]:
    """A Model folder of a network with quantizers, whose float self is held meanwhile."""
    from edgecv.methods.qat.attach import plain
    from edgecv.methods.qat.biases import settle
    from edgecv.models import builder_trust, live_network
    from edgecv.models.folding import unwrapped
    from edgecv.models.model import Model

    assert ready.edit is not None
    trained = copy.deepcopy(unwrapped(module)).cpu().float().eval()
    settle(trained, ready.edit)
    _, channels, height, width = ready.images.shape
    takes = {"size": [height, width], "channels": channels}
    with (
        live_network.held(plain(copy.deepcopy(trained))) as builder,
        builder_trust.named([builder]),
    ):
        Model(builder, edits=(ready.edit,), input=takes).save(folder, trained)
        yield


def pixels_of(ready: Ready, words: ExportOptions) -> np.ndarray:
    """The images as pixels, uint8 (N, H, W, C), by the words' mean and std.

    Raises RecipeError: they are then no pixels, so that the network was trained on others.
    """
    from edgecv import pixel_units
    from edgecv.api.export_options import numbers

    mean, std = numbers(words.get("mean")), numbers(words.get("std"))
    try:
        units = words.get("units") or pixel_units.told(mean, std, "0..255")
    except ValueError as e:
        raise RecipeError("mean, std", str(e), pixel_units.HINT) from None
    by = 255.0 if units == "0..1" else 1.0
    shift, scale = (
        by * np.array(values).reshape(-1, 1, 1) if values else np.array(default)
        for values, default in ((mean, 0.0), (std, 255.0))
    )
    try:
        pixels = ready.images * scale + shift
    except ValueError:
        what = f"are for another number of channels than {ready.images.shape[1]}"
        raise RecipeError("mean, std", what, "one value, or one per channel") from None
    low, high = float(pixels.min()), float(pixels.max())
    if ((pixels < -OFF) | (pixels > 255 + OFF)).mean() > STRAY:
        what = f"make pixels of {low:.0f} to {high:.0f} of the images that compress was shown"
        hint = "give mean and std as training has them, or calibration=images"
        raise RecipeError("mean, std", what, hint)
    colours = pixels[:, ::-1] if words.get("color") == "bgr" else pixels
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
