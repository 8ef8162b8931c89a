"""What published weights of the zoo expect of their input, and what their outputs are called.

A network scores what its authors say only on pixels normalised, resized and cropped as in its
training: EfficientNet-Lite with mean 0.5 and deviation 0.5 of 0..1 in place of (pixel - 127) / 128
loses little, with 0..255 scaled to 0..1 several points. Imports no torch.

Input: tensorflow/tpu, models/official/efficientnet/lite (the crop is size / (size + 32)). Names:
the 1000 synsets of ILSVRC 2012 in the order of their numbers, which is the outputs' order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

IMAGENET = 1000


@dataclass(frozen=True)
class Input:
    """size: (height, width) in pixels; mean, std in units of 0..255; crop_pct and interpolation as
    the runtime's Preprocess has them."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    channels: int = 3

    def sentence(self) -> str:
        """For the user: what is taken because nothing else was said."""
        numbers = [", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std)]
        height, width = self.size
        return (
            f"published at {height}x{width}; mean {numbers[0]} and std {numbers[1]} of 0..255, "
            f"crop {self.crop_pct:g}, {self.interpolation}"
        )


def _lite(side: int) -> Input:
    return Input((side, side), (127.0,), (128.0,), round(side / (side + 32), 4), "bicubic")


_INPUTS = {
    "efficientnet_lite0": _lite(224),
    "efficientnet_lite1": _lite(240),
    "efficientnet_lite2": _lite(260),
}


def with_weights() -> list[str]:
    """The networks of the zoo whose weights a package has."""
    return sorted(_INPUTS)


def of(name: str, args: Mapping[str, Any]) -> Input | None:
    """The input of a network built with its published weights; None without them."""
    return _INPUTS.get(name) if args.get("pretrained") is True else None


def known(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain values, with "labels" where the outputs are ImageNet's; {} for none."""
    found = of(name, args)
    if found is None:
        return {}
    own = args.get("classes", IMAGENET) == IMAGENET
    return {**asdict(found), "labels": labels() if own else None}


@cache
def labels() -> tuple[str, ...]:
    """ImageNet's 1000 names."""
    return tuple(line.partition(" ")[2] for line in _lines())


@cache
def synsets() -> tuple[str, ...]:
    """Their WordNet numbers ("n01440764"), as ImageNet's own folders are called."""
    return tuple(line.partition(" ")[0] for line in _lines())


def _lines() -> list[str]:
    return Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8").splitlines()
