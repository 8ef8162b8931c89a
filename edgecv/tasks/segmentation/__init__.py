"""Semantic segmentation: the class of every pixel of an image, at the image's own resolution.

    scores of the network's cells -> bilinear, at the pixels' centres -> the best class

What lies beside the image in the input (padding) is left out first. A pixel that the network has
not seen (cut off by a crop), or of which it says NaN alone, is 255 in the map.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.tasks.base import Difference, Outputs, Parts, Score, Task
from edgecv.tasks.segmentation.resolution import IGNORED, Axis, best, nearest, resized

if TYPE_CHECKING:
    import torch

    from edgecv.data.annotations import Maps
    from edgecv.methods.training.plan import Plan
    from edgecv.runtime.placement import Placement
    from edgecv.runtime.spec import TensorSpec

_WHERE = "task segmentation"
HOLDS = ("scores", "logit", "probability", "indices")
_BINARY = {"logit": 0.0, "probability": 0.5}  # class 1 above it, class 0 else


class Segmented(NamedTuple):
    """What is on one image.

    map:    uint8 (H, W), the class of each pixel; 255: nothing is known of it
    scores: float32 (C, H, W), how probable each class is, where that was asked for
    nan:    pixels of which the network said NaN alone
    """

    map: np.ndarray
    scores: np.ndarray | None = None
    nan: int = 0


@dataclass(frozen=True)
class SegmentationTask(Task):
    """How a segmentation network's output is read.

    input:  (height, width) of the network's input in pixels
    output: its name; "": the network's first
    holds:  "scores": (1, C, h, w), logits or probabilities of C classes; "logit" and "probability":
            (1, 1, h, w), of class 1 against class 0; "indices": (1, 1, h, w) or (1, h, w), classes

    Raises ValueError: a value that it cannot have.
    """

    name: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "miou"
    points: ClassVar[str] = "mIoU"
    truth: ClassVar[str] = "Maps"
    asks: ClassVar[tuple[str, ...]] = ("scores",)
    figures: ClassVar[str] = "Pixel accuracy: the share of the pixels that are right."
    answers: ClassVar[str] = "pixels"
    best_class: ClassVar[bool] = True
    augments: ClassVar[tuple[str, ...]] = ("flip", "shift", "scale", "colour")

    input: tuple[int, int] = (0, 0)
    output: str = ""
    holds: str = "scores"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", tuple(self.input))  # JSON has no tuples
        if len(self.input) != 2 or not all(type(n) is int and n > 0 for n in self.input):
            raise ValueError(f"decode.input {self.input!r} is wrong: height and width above 0")
        if not isinstance(self.output, str):
            raise ValueError(f"decode.output {self.output!r} is wrong: a name")
        if self.holds not in HOLDS:
            raise ValueError(f"decode.holds {self.holds!r} is none of {', '.join(HOLDS)}")

    @classmethod
    def knobs(cls) -> tuple[str, ...]:
        return ("output", "holds")

    @classmethod
    def check(cls, said: Mapping[str, Any]) -> None:
        super().check({"input": (1, 1), **said})

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],
        classes: int | None,
        said: Mapping[str, Any],
    ) -> SegmentationTask:
        """said: output, holds"""
        said = {k: v for k, v in said.items() if v is not None}
        holds, output = said.get("holds"), said.get("output")
        if output and output not in [o.name for o in outputs]:
            names = ", ".join(o.name for o in outputs)
            raise UnsupportedError("task segmentation", f"no output {output!r}", f"one of {names}")
        chosen = [o for o in outputs if output in (None, o.name)]
        maps = {o.name: kind for o in chosen if (kind := _holds(o, size))}
        seen = ", ".join(f"{o.name} {'x'.join(map(str, o.shape))}" for o in outputs)
        if not maps:
            expected = f"1x{classes or 'C'}xhxw of the input's {size[0]}x{size[1]}, or 1xhxw"
            raise UnsupportedError(_WHERE, f"outputs {seen}, expected {expected}",
                                   "name another task, or leave --task out")  # fmt: skip
        # who names the output may have one of more classes than the data name
        counts = {o.name: o.shape[1] for o in chosen if maps.get(o.name) == "scores"}
        wanted = classes if output is None else None
        fits = {n: k for n, k in maps.items() if wanted in (None, counts.get(n, wanted))}
        if not fits:
            raise _other_count(counts, int(classes or 0))
        if len(fits) > 1:
            hint = f"--decode output={next(iter(fits))}, or output of the recipe's task"
            raise UnsupportedError(_WHERE, f"{seen}: more than one can be the map", hint)
        ((name, kind),) = fits.items()
        if kind == "one":
            _check_one(name, holds, wanted)
        elif holds not in (None, kind):
            what = f"{name} is {kind} ({seen}), and holds says {holds}"
            raise UnsupportedError(_WHERE, what, "leave holds out")
        try:
            return cls(size, name, holds or kind)
        except ValueError as error:
            raise UnsupportedError(_WHERE, str(error)) from None

    @classmethod
    def of_ends(cls, outputs: Sequence[TensorSpec], sigmoid: Collection[str]) -> dict[str, Any]:
        one = len(outputs) == 1 and outputs[0].shape[1:2] == (1,)
        return {"holds": "probability"} if one and outputs[0].name in sigmoid else {}

    # --- on devices too

    def read(
        self, outputs: Outputs, lies: Placement, size: tuple[int, int], **asked: Any
    ) -> Segmented:
        """asked: scores, whether the probability of each class is asked for.

        Raises UnsupportedError: the output is missing or has another shape, or scores are asked of
        a network that gives classes.
        """
        scores = bool(asked.get("scores"))
        if self.output and self.output not in outputs:
            what = f"there is no output {self.output!r}, but {', '.join(outputs)}"
            raise UnsupportedError("segmentation", what)
        z = outputs[self.output] if self.output else next(iter(outputs.values()))
        channels = z.reshape(-1, *z.shape[-2:])
        if z.ndim not in (3, 4) or (self.holds != "scores") != (len(channels) == 1):
            shape = "x".join(map(str, z.shape))
            raise UnsupportedError("segmentation", f"the output is {shape}, no {self.holds} of one "
                                   "image")  # fmt: skip
        placed = zip(size, lies.offset, lies.scale, self.input, channels.shape[1:], strict=True)
        rows, columns = (Axis.of(*side) for side in placed)
        if self.holds == "indices":
            if scores:
                raise UnsupportedError("segmentation", "the network gives classes and no scores")
            return Segmented(nearest(channels[0], rows, columns))
        with np.errstate(all="ignore"):
            if self.holds in _BINARY:
                channels = np.concatenate([np.full_like(channels, _BINARY[self.holds]), channels])
            found = best(channels, rows, columns)
            seen = int(rows.seen.sum()) * int(columns.seen.sum())
            nan = seen - int(np.count_nonzero(found != IGNORED))
            if not scores:
                return Segmented(found, None, nan)
            return Segmented(found, self._probable(resized(channels, rows, columns)), nan)

    def _probable(self, z: np.ndarray) -> np.ndarray:
        """float32 (C, H, W) of resized values; they are probabilities where they look so."""
        if self.holds == "probability":
            return np.stack([1.0 - z[1], z[1]])
        if self.holds == "scores" and z.min() >= 0 and np.abs(z.sum(0) - 1.0).max() < 0.01:
            return z
        z -= z.max(0)
        np.exp(z, out=z)
        z /= z.sum(0)
        return z

    def answer(
        self,
        read: Segmented,
        labels: Sequence[str],  # noqa: ARG002
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The map; with scores (map, scores)."""
        return read.map if read.scores is None else (read.map, read.scores)

    def to_json(self, read: Segmented, labels: Sequence[str]) -> dict[str, Any]:
        """{"size": [height, width], "share": {label: of the pixels, 0..1}}, largest share first"""
        counts = np.bincount(read.map.ravel(), minlength=256)
        order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k] and k != IGNORED]
        share = {labels[k] if k < len(labels) else str(k): counts[k] / read.map.size for k in order}
        return {"size": list(read.map.shape), "share": {k: float(v) for k, v in share.items()}}

    # --- on the host

    def score(self, reads: Iterable[Segmented], truth: Any, classes: Sequence[str]) -> Score:
        from edgecv.tasks.segmentation import metric

        return metric.score(reads, truth, classes)

    def told_by(
        self,
        reads: Sequence[Segmented],
        sizes: Sequence[tuple[int, int]],  # noqa: ARG002
    ) -> Maps | None:
        """The maps."""
        from edgecv.tasks.segmentation import metric

        return metric.told_by(reads)

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        from edgecv.tasks.segmentation import metric

        return metric.difference(before, after, alpha)

    def interval(self, parts: Parts, alpha: float) -> tuple[float, float]:
        from edgecv.tasks import paired
        from edgecv.tasks.segmentation.metric import value_of

        return paired.interval(value_of, parts, len(parts["there"]), alpha)

    def same(self, before: Segmented, after: Segmented) -> tuple[int, int]:
        """Pixels of one class in both maps, and pixels of which either says something."""
        said = (before.map != IGNORED) | (after.map != IGNORED)
        return int((said & (before.map == after.map)).sum()), int(said.sum())

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Plan, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[Any]]:
        from edgecv.tasks.segmentation import augment

        return augment.augmented(pixels, truths, plan, rng)

    def loss(self, outputs: Any, truths: Sequence[Any]) -> torch.Tensor:
        from edgecv.tasks.segmentation import loss

        return loss.loss(loss.of_classes(outputs, self.holds), truths)

    def drawn(self, image: np.ndarray, read: Segmented, labels: Sequence[str]) -> np.ndarray:
        from edgecv.tasks import drawing

        return drawing.masks(image, read.map, labels)


def _other_count(counts: Mapping[str, int], classes: int) -> UnsupportedError:
    """Of networks whose maps have other channels than there are classes. counts: of each map"""
    told = " and ".join(f"{name} has {n} channels" for name, n in counts.items())
    hint = "a name for each channel: --labels FILE, or classes.txt of the data"
    if classes + 1 in counts.values():
        hint += "; is the one more the background? it is class 0, or the last"
    return UnsupportedError(_WHERE, f"{told}, and there are {classes} classes", hint)


def _check_one(name: str, holds: str | None, classes: int | None) -> None:
    """Raises UnsupportedError: one value a pixel of which nobody says what it means, or that tells
    two classes apart where there are others."""
    if holds not in HOLDS[1:]:
        hint = ", ".join(f"holds={word}" for word in HOLDS[1:])
        raise UnsupportedError(_WHERE, f"{name} has 1 channel: one value a pixel may mean much",
                               f"say --decode {hint}")  # fmt: skip
    if holds != "indices" and classes not in (None, 2):
        hint = "a channel is needed for each class"
        hint = "name both, what is none of it first" if classes == 1 else hint
        what = f"{name} has 1 channel, which tells 2 classes apart, and there are {classes}"
        raise UnsupportedError(_WHERE, what, hint)


def _holds(output: TensorSpec, size: tuple[int, int]) -> str:
    """What an output can hold: "scores", "indices" or "one" value a pixel; "": it is no map."""
    shape = output.shape
    if len(shape) not in (3, 4) or shape[0] != 1 or not all(isinstance(n, int) for n in shape):
        return ""
    h, w = shape[-2:]
    # cells cover the input evenly: 1/s of each side, rounded up by strided convolutions
    if min(h, w) < 2 or h > size[0] or w > size[1] or abs(size[0] / h - size[1] / w) > max(
        size[0] / h / h, size[1] / w / w
    ):  # fmt: skip
        return ""
    if len(shape) == 3 or shape[1] == 1:
        whole = output.dtype.lstrip("u").startswith("int") and output.scale is None
        return "indices" if whole else "one"
    return "scores" if shape[1] < IGNORED else ""
