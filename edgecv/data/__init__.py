"""Where images come from, by the word a recipe uses.

    imagefolder:PATH           one sub-folder for each class (edgecv.data.imagefolder)
    npz:PATH                   arrays (edgecv.data.npz)
    fashion-mnist[-sample]     registered sets (edgecv.data.fashion_mnist)
    package.module:function    a torch Dataset of yours (edgecv.data.function)
    coco:JSON, coco:JSON:IMAGES_DIR, yolo:DATA.yaml, yolo:DIR, voc:DIR
                               boxes (edgecv.data.coco, .yolo, .voc)
    masks:DIR, coco-maps:JSON  the class of each pixel (edgecv.data.masks, .coco_maps)
    table:FILE.csv             numbers (edgecv.data.table)
    shapes-boxes[:N], shapes-maps[:N]
                               made pictures with boxes or maps (edgecv.data.shapes)
    images:PATH, parted:PATH, synthetic:N
                               images without labels (edgecv.data.plain)
    arrays:PATH, parted:PATH.npz
                               an array for each input of a network (edgecv.data.arrays)

`materialise` decodes a split once, through the device's own resizing, into arrays on disk;
`fingerprint` says whether a split changed, without decoding it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.annotations import Boxes, Maps, Numbers, Truth
from edgecv.data.arrays import SUFFIXES as ARRAYS
from edgecv.data.decode import decode
from edgecv.data.files import calibration_images, tell
from edgecv.data.images import (
    BLANK,
    MADE_UP,
    Images,
    as_outputs,
    check_labels,
    check_same_classes,
    save_arrays,
    save_labels,
)
from edgecv.data.source import SPLITS, Items
from edgecv.errors import DataError, StoreError
from edgecv.runtime.preprocess import Preprocess

__all__ = [
    "Images",
    "Source",
    "as_outputs",
    "calibration_images",
    "check_same_classes",
    "decode",
    "fingerprint",
    "materialise",
    "names",
    "parse",
]

Progress = Callable[[int, int], None]

# words before a path
PATHS = ("imagefolder", "npz", "coco", "coco-maps", "yolo", "voc", "masks", "table", "images",
         "parted", "arrays")  # fmt: skip
# what is true of a kind's images, where it is no class of the whole
TRUTHS = {"plain": "", "arrays": "", "coco": "Boxes", "yolo": "Boxes", "voc": "Boxes",
          "masks": "Maps", "coco_maps": "Maps", "table": "Numbers",
          "shapes-boxes": "Boxes", "shapes-maps": "Maps"}  # fmt: skip
_SHAPES = ("shapes-boxes", "shapes-maps")  # a number of pictures may follow
_NAMES = ("fashion-mnist", "fashion-mnist-sample", *_SHAPES)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names() -> tuple[str, ...]:
    """The registered data sets."""
    return _NAMES


@dataclass(frozen=True)
class Source:
    """A parsed source: `kind` is the module of edgecv.data that reads `argument`."""

    kind: str
    argument: str

    @property
    def labelled(self) -> bool:
        """Whether its images have labels."""
        return bool(self.truth)

    @property
    def task(self) -> str | None:
        """The task that such labels are of where nobody says another, a name of `edgecv.tasks`;
        None elsewhere."""
        known = {"Boxes": "detection", "Maps": "segmentation", "Numbers": "regression"}
        return known.get(self.truth)

    @property
    def truth(self) -> str:
        """What is true of its images, as `Items.truth`; "": unknown."""
        word = self.argument.partition(":")[0] if self.kind == "shapes" else self.kind
        return TRUTHS.get(word, "index")

    def items(self, split: str, channels: int | None = None) -> Items:
        """The items of "train" or "test", for a network of so many channels. Raises DataError."""
        return self._module(split).items(self.argument, split, channels)

    def fingerprint(self, split: str) -> str:
        """SHA-256 (hex) that changes when the split's data do. Raises DataError."""
        return self._module(split).fingerprint(self.argument, split)

    def _module(self, split: str) -> Any:
        if split not in SPLITS:
            raise DataError("data", f"no split {split!r}", f"splits are {' and '.join(SPLITS)}")
        return importlib.import_module(f"edgecv.data.{self.kind}")


def parse(source: str) -> Source:
    """What `source` means; nothing is opened. Raises DataError for a word that means nothing."""
    kind, colon, argument = source.partition(":")
    if kind in _SHAPES:
        return Source("shapes", source)
    if source in _NAMES:
        return Source("fashion_mnist", source)
    if kind == "synthetic" and argument.isdecimal() and int(argument):
        return Source("plain", source)
    if colon and kind in PATHS:
        if not argument:
            raise DataError("data", f"{source!r} names no path", f"write {kind}:PATH")
        if kind == "parted" and Path(argument).suffix in ARRAYS:
            return Source("arrays", source)
        plain = kind in ("images", "parted")
        return Source("plain", source) if plain else Source(kind.replace("-", "_"), argument)
    if _FUNCTION.fullmatch(source):
        return Source("function", source)
    if source and _is_folder(source):
        raise DataError("data", f"{source!r} does not say what is in it", f"imagefolder:{source} "
                        "where each class has a folder; without labels data: {images: ...}, or "
                        f"--calibration {source}")  # fmt: skip
    close = difflib.get_close_matches(kind, (*PATHS, *_NAMES), n=1)
    sources = "imagefolder:PATH, npz:PATH, coco:JSON, yolo:DATA.yaml, voc:DIR, masks:DIR, "
    sources += "table:FILE.csv, "
    sources += "package.module:function, " + ", ".join(_NAMES)
    hint = f"did you mean {close[0]}?" if close else f"a source is one of {sources}"
    raise DataError("data", f"unknown source {source!r}", hint)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # too long to be a path
        return False


def fingerprint(source: str, split: str) -> str:
    """SHA-256 (hex) over names and content of the split "train" or "test"; nothing is decoded.

    Raises DataError where the source cannot be read.
    """
    return parse(source).fingerprint(split)


def materialise(
    source: str,
    split: str,
    size: tuple[int, int],
    channels: int | None,
    how: Mapping[str, Any],
    out: Path,
    progress: Progress | None = None,
) -> Images:
    """Decode a split, bring it to size and write it into the folder `out`; and open it.

    size:     (height, width) in pixels
    channels: of the network; None takes the data's own (an image folder: 3)
    how:      Preprocess's fields of geometry: crop_pct, interpolation, resize, ...
    progress: called with (images done, images in all)
    Pixels are written to a memory map, so a split larger than memory is fine.
    Raises DataError, naming the file or item at fault, and StoreError for a full disk.
    """
    items = parse(source).items(split, channels)
    if items.count == 0:
        raise DataError(source, "holds no images")
    channels = channels or items.channels or _channels(items.item(0)[0])
    if source.startswith("synthetic:") and how.get("resize") == "none":
        how = {}  # noise has no size of its own
    geometry = Preprocess(size, channels, (0.0,), (1.0,), **how).geometry
    pixels = _reserved(out / "pixels.npy", (items.count, *size, channels))
    labels = np.zeros(items.count, np.int64)
    sizes = np.zeros((items.count, 2), np.int32)
    truths: list[Any] = [None] * items.count

    def one(index: int) -> None:
        image, said = items.item(index)
        sizes[index] = image.shape[:2]
        if items.truth == "index":
            labels[index] = said
        else:
            truths[index] = said
        try:
            pixels[index] = geometry(image)
        except DataError as error:
            raise DataError(f"{source} item {index}", error.what, error.hint) from error

    for done in _run(one, items.count, items.parallel):
        if progress:
            progress(done, items.count)
    pixels.flush()
    for note in items.notes():
        tell(source, note)
    truth: Truth | None = None
    if items.truth == "Boxes":
        truth = Boxes.of(truths, sizes)
    elif items.truth == "Maps":
        truth = Maps.of(truths)
    elif items.truth == "Numbers":
        truth = Numbers.of(truths, sizes)
    classes = items.classes
    if classes is None:
        largest = int(labels.max()) if truth is None else truth.largest
        classes = tuple(str(k) for k in range(largest + 1))
    if classes:
        check_labels(source, labels, len(classes))
    for name in classes:
        _check_text(source, name)
    save_labels(out, labels, classes)
    if truth is not None:
        truth.save(out)
    if items.arrays:
        save_arrays(out, items.arrays)
    if items.blank:
        (out / BLANK).touch()
    if source.startswith("synthetic:"):
        (out / MADE_UP).touch()
    return Images.load(out)


def _reserved(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A writable uint8 memory map whose disk blocks are allocated, not promised.

    Touching a page of a sparse file on a full disk kills the process (SIGBUS); asking for the
    blocks beforehand is an error that can be reported.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS or Windows
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(str(path), f"cannot be written: {error.strerror}") from error
    return pixels


def _channels(image: np.ndarray) -> int:
    """What a network takes of such images: four are RGB and transparency, which is dropped."""
    found = 1 if image.ndim == 2 else image.shape[2]
    return 3 if found == 4 else found


def _check_text(source: str, name: str) -> None:
    """Raises DataError: a class's name that no file can hold; JSON knows half characters."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(source, f"class {name!a:.80} is no text", "name it in UTF-8") from None


def _run(one: Callable[[int], None], count: int, parallel: bool) -> Iterable[int]:
    """Do every index, yielding how many are done; the first error, by index, comes through."""
    if not parallel:
        for index in range(count):
            one(index)
            yield index + 1
        return
    # Pillow decodes outside the interpreter's lock
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(one, index) for index in range(count)]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                yield done
        finally:
            for future in futures:
                future.cancel()
