"""What a network's outputs mean: how they are read, judged, learned and drawn.

A task is one file of this folder (or a folder with `__init__.py`) that holds one subclass of Task;
`edgecv.tasks` finds it by listing. A value of it is how one network's outputs are read: its fields
are what a manifest holds under "decode", plain JSON.

Imported on devices: numpy and the standard library only, at import, in `read` and in `answer`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgecv.errors import UnsupportedError

if TYPE_CHECKING:
    from typing import Self

    import torch

    from edgecv.methods.training.plan import Plan
    from edgecv.runtime.placement import Placement
    from edgecv.runtime.spec import TensorSpec

Outputs = Mapping[str, np.ndarray]  # of one image, by name, real values (1, ...), channels first
Parts = Mapping[str, np.ndarray]  # of a score: arrays that say what each image adds to it
# Parameters of training that change a picture with which nothing moves (`augment.augmented`).
PICTURE_ALONE = ("flip", "shift", "colour")


@dataclass(frozen=True)
class Score:
    """How right a network's answers are.

    value:     the task's metric, 0..1
    samples:   images
    per_class: the same of each class by its name; None where no image has it
    more:      other figures by name (ap50, recall, pixel_accuracy), each 0..1 but the task's
               `amounts`
    parts:     what `Task.difference` compares two networks of the same images by
    """

    value: float
    samples: int
    per_class: Mapping[str, float | None] = field(default_factory=dict)
    more: Mapping[str, float] = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """By how much a network's metric lies below another's on the same images.

    drop:   before - after, in units of the metric (0..1)
    bounds: two-sided interval of the drop at 1 - 2 alpha
    p:      probability of such a drop or a larger one between equals
    summary: counts that a reader understands, a phrase
    enough: about how many images would show this drop at alpha
    """

    drop: float
    bounds: tuple[float, float]
    p: float
    summary: str
    enough: int = 0


@dataclass
class NotNumbers:
    """How often a network said NaN where a box or a class should be; such answers are dropped.

    images: of how many that were read; of: read; answers: boxes or pixels
    """

    images: int = 0
    of: int = 0
    answers: int = 0

    def watch(self, reads: Iterable[Any]) -> Iterator[Any]:
        """The same, counted as they pass."""
        for read in reads:
            self.add(read)
            yield read

    def add(self, read: Any) -> None:
        """read: what `Task.read` gave."""
        nan = int(getattr(read, "nan", 0))
        self.of, self.images, self.answers = (
            self.of + 1, self.images + (nan > 0), self.answers + nan
        )  # fmt: skip

    def sentence(self) -> str:
        """Empty where there was none."""
        if not self.answers:
            return ""
        where = f"in {self.images:,} of {self.of:,} images"
        return f"the network says NaN {where}: {self.answers:,} of its answers are left out"


@dataclass(frozen=True)
class Task:
    """How one network's outputs are read. Frozen; fields are JSON values.

    name:   the word of a recipe's `task:`, of `--task` and of the manifest
    metric: its name in results.json
    points: how a table calls it
    asks:   what a call may change, in its order: `bundle(image, *asked)`
    truth:  what labels are, the class of `edgecv.data.annotations`, or "index": one class an image
    figures:    what the other figures of its score mean, sentences
    answers:    what `same` counts, a noun; "" where two answers are not compared
    best_class: whether the answer is the best of several scores, of an image or of each pixel
    rows:   what a row of numbers is: scores of "classes" that exclude each other, or "values"
    augments: the parameters of training by which `augmented` changes pictures
    amounts:  first words of those of `Score.more` that are no shares of 1, but in the labels' own
              units: "mae" of "mae angle [deg]"
    """

    name: ClassVar[str] = ""
    metric: ClassVar[str] = ""
    points: ClassVar[str] = ""
    truth: ClassVar[str] = ""
    asks: ClassVar[tuple[str, ...]] = ()
    figures: ClassVar[str] = ""
    answers: ClassVar[str] = ""
    best_class: ClassVar[bool] = False
    rows: ClassVar[str] = "classes"
    augments: ClassVar[tuple[str, ...]] = (*PICTURE_ALONE, "scale", "mosaic")
    amounts: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def truths(cls) -> tuple[str, ...]:
        """The kinds of labels that it is judged by and learns from, as `truth` calls them."""
        return (cls.truth,)

    @classmethod
    def width(cls, classes: int) -> int:
        """How many outputs a network has for so many names."""
        return classes

    def described(self) -> dict[str, Any]:
        """What a manifest holds: every field that is not its default's."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    @classmethod
    def knobs(cls) -> tuple[str, ...]:
        """What a user may say of how outputs are read, in a recipe's `task:`."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """The task of a manifest. Raises ValueError: a key or a value that it does not have."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(described.keys() - known):
            word = unknown[0] if unknown[0].isprintable() else ascii(unknown[0])
            raise ValueError(f"decode.{word} is none of {', '.join(sorted(known))}")
        try:
            return cls(**described)
        except TypeError as e:
            raise ValueError(f"decode: {e}") from None

    @classmethod
    def check(cls, said: Mapping[str, Any]) -> None:
        """Raises ValueError: what a user says of how outputs are read cannot be, whatever they
        are."""
        cls.of({k: v for k, v in said.items() if v is not None})

    @classmethod
    def of_said(cls, said: Mapping[str, Any]) -> Self:
        """The task with what a user says, None where nothing is. Raises UnsupportedError."""
        try:
            return cls.of({k: v for k, v in said.items() if v is not None})
        except ValueError as error:
            raise UnsupportedError(f"task {cls.name}", str(error)) from None

    def manifest(self) -> dict[str, Any]:
        """The keys of a manifest that say all of it, beside "task"."""
        return {"decode": self.described()}

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> Task:
        """The opposite of `manifest`. Raises ValueError."""
        return cls.of(manifest.get("decode") or {})

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],
        classes: int | None,
        said: Mapping[str, Any],
    ) -> Task:
        """The value that reads these outputs: what the user said, the rest told by shapes.

        outputs: channels first; size: (height, width) of the input; classes: how many, where known.
        Raises UnsupportedError: outputs that it cannot read (which shape was expected), or that
        more than one reading fits (how to say which).
        """
        raise NotImplementedError

    @classmethod
    def of_ends(
        cls,
        outputs: Sequence[TensorSpec],  # noqa: ARG003
        sigmoid: Collection[str],  # noqa: ARG003
    ) -> dict[str, Any]:
        """What `of_graph` is told beside what the user says. sigmoid: names of the outputs that a
        sigmoid makes."""
        return {}

    def check_reads(
        self, outputs: Sequence[TensorSpec], images: Sequence[Mapping[str, np.ndarray]]
    ) -> None:
        """Raises UnsupportedError: what is read of a float network's answers to photographs cannot
        be, as another decoder's outputs would say. outputs: as `of_graph` takes them; images: the
        outputs of each, by name."""

    # --- on devices too

    def read(self, outputs: Outputs, lies: Placement, size: tuple[int, int], **asked: Any) -> Any:
        """What the network says of one image, as arrays in pixels of the image.

        outputs: of one image; lies: where the image lies in the input; size: (height, width) of
        the image in pixels; asked: what a call may change (confidence, iou, ...)
        """
        raise NotImplementedError

    def answer(self, read: Any, labels: Sequence[str]) -> Any:
        """What `bundle(image)` gives, of what `read` gave."""
        raise NotImplementedError

    def to_json(self, read: Any, labels: Sequence[str]) -> Any:
        """The same as plain JSON."""
        raise NotImplementedError

    # --- on the host

    def ready(self) -> None:
        """Raises MissingExtraError: what `score` needs is not installed."""

    def asks_graph(self) -> bool:
        """Whether the file itself is to do what `read` does: by in_graph.py in the task's folder,

            attached(model, answers, task) -> Task

        which puts nodes behind an onnx.ModelProto, in place, and gives the value that reads what
        is left. answers: the model's outputs, of some images, each as `read` takes them. Raises
        UnsupportedError: there are no such nodes.
        """
        return False

    def judging(self) -> Mapping[str, Any]:
        """What `read` is asked with where answers are judged."""
        return {}

    def score(self, reads: Iterable[Any], truth: Any, classes: Sequence[str]) -> Score:
        """The metric of what `read` gave of each image, against what is true, in its order."""
        raise NotImplementedError

    def told_by(self, reads: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> Any:  # noqa: ARG002
        """What is true of the images where what a network says of them is taken for the truth, as
        `score` takes it: another network's score is how faithful it is to that one, and no labels
        are needed. None where the task has no such truth, or the network says nothing.

        reads: as they are judged (`judging`), of each image; sizes: (height, width) of each
        """
        return None

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        """Two networks on the same images. Raises ValueError: parts of other images."""
        raise NotImplementedError

    def doubts(self, score: Score) -> Sequence[str]:  # noqa: ARG002
        """What makes a score say less than it seems to, a sentence each."""
        return ()

    def interval(
        self,
        parts: Parts,  # noqa: ARG002
        alpha: float,  # noqa: ARG002
    ) -> tuple[float, float] | None:
        """Two-sided interval of the metric at 1 - 2 alpha, 0..1; None where nobody has said one."""
        return None

    def same(self, before: Any, after: Any) -> tuple[int, int]:
        """Of what two networks say of one image as they are deployed (`read`): how many answers
        both give, and how many either of them gives."""
        raise NotImplementedError

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Plan, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[Any]]:
        """A training batch, uint8 (N, H, W, C), changed at random with what is true of it, in
        pixels of the input."""
        raise NotImplementedError

    def loss(self, outputs: Any, truths: Sequence[Any]) -> torch.Tensor:
        """What training minimises of one batch, a scalar.

        outputs: what the module returned; truths: of each image, in pixels of the input
        """
        raise NotImplementedError

    def drawn(self, image: np.ndarray, read: Any, labels: Sequence[str]) -> np.ndarray:
        """The image, uint8 (H, W, 3), with what was read drawn on it; a new array. Needs Pillow."""
        raise NotImplementedError
