"""Images: one split of a data set as arrays on disk, ready for training and measuring.

A folder with `pixels.npy` (uint8, memory-mapped when read), `labels.npy` (int64) and
`classes.json`; `arrays.json` and `array-0.npy`, ... where a network has other inputs; boxes, maps
or numbers where they are what is true of the images (`edgecv.data.annotations`). No pickle: arrays
are read with allow_pickle=False.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.annotations import Boxes, Maps, Numbers, Truth
from edgecv.errors import DataError
from edgecv.samples import Samples

ARRAYS = "arrays.json"  # the names of what other inputs take
MADE_UP = "made-up"  # a file of this name marks a folder of made-up images
BLANK = "blank"  # and of this name one whose pixels stand for nothing


@dataclass(frozen=True)
class Images:
    """uint8 images of one size with their labels.

    pixels:  uint8 (N, H, W, C), possibly a read-only memory map
    labels:  int64 (N,), each in 0..len(classes)-1
    classes: names, in the order of the network's outputs; none for images without labels
    made_up: no photographs but noise: distances mean something on them, best classes do not
    arrays:  by name, real values (N, ...) for inputs of the network besides the image
    blank:   there are arrays alone, and the pixels stand for nothing
    truth:   boxes or maps, in pixels of the pictures as they were, or numbers; `labels` are zeros
             then

    Raises DataError where these do not hold.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    made_up: bool = False
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    blank: bool = False
    truth: Truth | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            seen = f"{self.pixels.dtype} {self.pixels.shape}"
            raise DataError("images", f"pixels must be uint8 (N, H, W, C), not {seen}")
        if self.labels.shape != self.pixels.shape[:1] or self.labels.dtype != np.int64:
            seen = f"{self.labels.dtype} {self.labels.shape} for {len(self.pixels)} images"
            raise DataError("images", f"labels must be int64, one for each image, not {seen}")
        if len(self.labels) == 0:
            raise DataError("images", "there are none")
        if self.classes:
            check_labels("images", self.labels, len(self.classes))
        if self.truth is not None and len(self.truth) != len(self.labels):
            seen = f"{len(self.truth)} for {len(self.labels)} images"
            raise DataError("images", f"boxes, maps or numbers: one for each image, not {seen}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> str:
        """What is true of each image, as `edgecv.data.source.Items.truth`; "" without labels."""
        if self.truth is not None:
            return type(self.truth).__name__
        return "index" if self.classes else ""

    @property
    def told(self) -> Any:
        """What is true of each image, as a task is judged by it: `truth`, or int64 (N,) of the
        class; None without labels."""
        return self.truth if self.truth is not None else self.labels if self.classes else None

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """(height, width) of each picture as it was; `size` where nobody kept it, for only what
        lies in a picture hangs on that."""
        if self.truth is None:
            return [size] * len(self)
        return [(int(h), int(w)) for h, w in self.truth.sizes]

    @property
    def samples(self) -> Samples:
        """All that a network may take of them."""
        return Samples(self.pixels, self.arrays, made_up=self.made_up, blank=self.blank)

    def save(self, folder: Path) -> None:
        """Write the files into `folder`, made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "pixels.npy", self.pixels, allow_pickle=False)
        save_labels(folder, self.labels, self.classes)
        if self.truth is not None:
            self.truth.save(folder)

    def save_labels(self, folder: Path) -> None:
        """Write the labels and the classes beside pixels that are there."""
        save_labels(folder, self.labels, self.classes)

    @staticmethod
    def load(folder: Path) -> Images:
        """Read a folder that `save` wrote. Pixels stay on disk until they are touched."""
        try:
            pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / "labels.npy", allow_pickle=False)
            classes = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
            arrays = _read_arrays(folder)
        except (OSError, ValueError) as error:
            raise DataError(str(folder), f"not a folder of images: {error}") from error
        made_up, blank = ((folder / mark).exists() for mark in (MADE_UP, BLANK))
        kinds = (Boxes, Maps, Numbers)
        held = next((kind for kind in kinds if (folder / kind.FILE).exists()), None)
        truth = held.load(folder) if held else None
        return Images(pixels, labels, classes, made_up, arrays, blank, truth)


MAX_OUTPUTS = 1_000_000  # a folder named by a number beyond it is no network's output


def as_outputs(test: Images, outputs: Sequence[str] | None) -> Images:
    """The same images, each label the index of the network's output of that name.

    outputs: names of the network's outputs. Without them, and where none of them is a number or
    they are the numbers from 0, a class named by a number is the output of that number, zeros
    before it or not ("0007" is 7). Boxes and maps keep their classes as they are there.
    Raises DataError: a class that is no output, names where outputs have none, or two classes that
    are one output.
    """
    names = tuple(outputs or ())
    if not names and test.truth is not None:
        return test
    if not names:
        names = _numbered(test.classes)
    index = OutputNames(names)
    taken: dict[int, str] = {}  # output -> class
    for c in test.classes:
        found = index.get(c)
        if found is None:
            close = difflib.get_close_matches(c, names, 1)
            other = "name folders by labels or numbers"
            if test.truth is not None:
                other = f"it has {len(names)}; --labels FILE names them in their order"
            hint = f"did you mean {close[0]!r}?" if close else other
            raise DataError("data.test", f"class {c!r} is no output of the network", hint)
        if found in taken:
            what = f"classes {taken[found]!r} and {c!r} are one output, {names[found]!r}"
            raise DataError("data.test", what, "put their images into one folder")
        taken[found] = c
    table = np.array(list(taken), np.int64)
    if test.truth is not None:
        return replace(test, truth=test.truth.renumbered(table, len(names)), classes=names)
    return replace(test, labels=table[test.labels], classes=names)


class OutputNames:
    """Which output a class folder is: by its name; by its number where no name is a number; of
    ImageNet's outputs also by its synset (n01440764)."""

    def __init__(self, names: Sequence[str]) -> None:
        from edgecv.models.zoo import published

        self._index = {name: i for i, name in enumerate(names)}
        numbered = all(name == str(i) for i, name in enumerate(names))
        self._by_number = numbered or not any(name.isdecimal() for name in names)
        self._count = len(names)
        if tuple(names) == published.labels():
            self._index |= {name: i for i, name in enumerate(published.synsets())}

    def get(self, name: str) -> int | None:
        if name.isdecimal() and self._by_number:
            return number if (number := _number(name)) < self._count else None
        return self._index.get(name)


def _numbered(classes: Sequence[str]) -> tuple[str, ...]:
    """The outputs "0", "1", ... up to the largest that a class names. Raises DataError."""
    words = [c for c in classes if not c.isdecimal()]
    if words:
        raise DataError(
            "data.test",
            f"class {words[0]!r} is a name, and the network's outputs have none",
            "give --labels FILE, a name a line in the outputs' order, or name folders by numbers",
        )
    largest = max(classes, key=_number)
    if _number(largest) >= MAX_OUTPUTS:
        raise DataError("data.test", f"class {largest!r} is no output of the network")
    return tuple(str(i) for i in range(_number(largest) + 1))


def _number(name: str) -> int:
    """What a decimal name means; Python refuses to read thousands of digits."""
    return int(name) if len(name) < 1000 else MAX_OUTPUTS


def save_labels(folder: Path, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write `labels.npy` and `classes.json`."""
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    text = json.dumps(list(classes), ensure_ascii=False, indent=0) + "\n"
    (folder / "classes.json").write_text(text, encoding="utf-8")


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what other inputs take beside pixels that are there."""
    for i, values in enumerate(arrays.values()):
        np.save(folder / f"array-{i}.npy", values, allow_pickle=False)
    (folder / ARRAYS).write_text(json.dumps(list(arrays)), encoding="utf-8")


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    if not (folder / ARRAYS).exists():
        return {}
    names = json.loads((folder / ARRAYS).read_text(encoding="utf-8"))
    files = (folder / f"array-{i}.npy" for i in range(len(names)))
    found = (np.load(path, mmap_mode="r", allow_pickle=False) for path in files)
    return dict(zip(names, found, strict=True))


def check_labels(where: str, labels: np.ndarray, classes: int) -> None:
    """Raises DataError, naming the first label that is not in 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        first = int(wrong[0])
        what = f"label {int(labels[first])} of image {first} is not in 0..{classes - 1}"
        raise DataError(where, what, f"{wrong.size} labels are out of range")


def check_same_classes(train: Images, test: Images) -> None:
    """Raises DataError unless a label means the same class in both splits.

    The test split may lack the last classes (its labels then still index the right names), but
    folders named differently would be scored against the wrong outputs.
    """
    absent = [c for c in train.classes if c not in test.classes]
    if absent and test.kind == "Numbers":
        what = f"has no column {absent[0]!r}"
        raise DataError("data.test", what, "both tables need the same columns")
    unknown = [c for c in test.classes if c not in train.classes]
    if unknown:
        what = f"has class {unknown[0]!r}, which train has not"
        if absent:
            what += f", and has no class {absent[0]!r}"
        raise DataError("data.test", what, "both splits need the same class names")
    if absent and test.classes != train.classes[: len(test.classes)]:
        what = f"has no class {absent[0]!r}"
        raise DataError("data.test", what, "both splits need the same class names")
    if test.classes != train.classes[: len(test.classes)]:
        pairs = zip(train.classes, test.classes, strict=False)
        odd = next((pair for pair in pairs if pair[0] != pair[1]), None)
        what = f"has {len(test.classes)} classes where train has {len(train.classes)}"
        if odd:
            what = f"class {odd[1]!r} stands where train has {odd[0]!r}"
        raise DataError("data.test", what, "both splits need the same class names")
