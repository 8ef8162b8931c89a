"""`package.module:function`: a function of yours that returns a torch Dataset.

It is called with `split="train"` or `split="test"` if it takes that argument. Items are
(image, label): a Pillow image, a uint8 array (H, W) or (H, W, C), or a float tensor (C, H, W) in
0..1 as torchvision's ToTensor makes it. Images are not to be normalised or augmented: edgecv does
both, and keeps the images it was given. `dataset.classes` names the classes if it is there.

A label is a whole number; of a detector {"boxes": (M, 4) x0 y0 x1 y1 in pixels, "labels": (M,)},
and "iscrowd" and "area" where there are such, as torchvision has it; of segmentation the map of
classes (H, W), 255 for what counts for nothing; of numbers a row (K,) of floats, which
`dataset.classes` names. The first item says which of the four it is.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import user_code
from edgecv.data.annotations import IGNORED, PictureBoxes
from edgecv.data.faults import Faults, mended
from edgecv.data.source import Items
from edgecv.errors import DataError

PROBES = 64  # items that the fingerprint reads


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The dataset's items. Raises DataError for what is not a dataset of images."""
    dataset, faults = _dataset(argument, split), Faults()
    classes = getattr(dataset, "classes", None)
    names = tuple(str(name) for name in classes) if classes is not None else None

    def pair(index: int) -> tuple[Any, Any]:
        where = f"{argument} item {index}"
        found = _called(where, lambda: dataset[index])
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise DataError(where, f"is {type(found).__name__}, not a pair (image, label)")
        return found[0], found[1]

    first = pair(0)[1]
    truth, count = _kind(first), len(names or ())
    if truth == "Numbers":
        count = count or len(first)

    def item(index: int) -> tuple[np.ndarray, Any]:
        where, (image, said) = f"{argument} item {index}", pair(index)
        pixels = _pixels(where, image)
        if (kind := _kind(said)) != truth:
            raise DataError(where, f"is labelled by {_WORDS[kind]}, item 0 by {_WORDS[truth]}")
        if truth == "index":
            return pixels, _label(where, said)
        of = {"Boxes": _boxes, "Maps": _map, "Numbers": _row}[truth]
        return pixels, of(where, said, pixels.shape[:2], count, faults)

    return Items(len(dataset), item, names, channels=None, notes=faults.sentences, truth=truth)


def fingerprint(argument: str, split: str) -> str:
    """SHA-256 over the module's source, the length and up to 64 items spread over the dataset.

    Reading every item would decode everything; a change that touches none of these is not seen.
    Raises DataError where an item is not the same twice: augmented data cannot be kept.
    """
    source = items(argument, split)
    module_file = sys.modules[argument.partition(":")[0]].__file__
    digest = hashlib.sha256(f"{argument} {split} {source.count}".encode())
    digest.update(Path(module_file).read_bytes() if module_file else b"")
    for index in np.unique(np.linspace(0, source.count - 1, min(PROBES, source.count), dtype=int)):
        image, label = source.item(int(index))
        digest.update(f"{image.shape} {_written(label)} ".encode())
        digest.update(image.tobytes())
        if index == 0 and not np.array_equal(image, source.item(0)[0]):
            what = "differs between two reads"
            raise DataError(f"{argument} item 0", what, "leave augmentation to the train stage")
    return digest.hexdigest()


def _called(where: str, step: Callable[[], Any]) -> Any:
    """Runs code that is not ours: whatever it raises becomes a DataError with that as its cause."""
    try:
        return step()
    except Exception as error:
        what = f"it raised {type(error).__name__}: {error}"
        raise DataError(where, what, "--traceback shows where") from error


def _function(argument: str) -> Any:
    module_name, _, name = argument.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        what = f"{module_name} is a part of Python and gives no images"
        raise DataError(argument, what, "a function of your own that returns a Dataset")
    user_code.allow(module_name)
    try:
        module = _called(argument, lambda: importlib.import_module(module_name))
    except DataError as error:
        absent = error.__cause__
        # a module that is there, but imports something that is not, keeps its own error
        if isinstance(absent, ModuleNotFoundError) and module_name.startswith(absent.name or " "):
            hint = "a source is imagefolder:PATH, npz:PATH, a registered name, or module:function"
            raise DataError(argument, f"no module named {absent.name!r}", hint) from absent
        raise
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(argument, f"{module_name} has no function {name!r}")
    return function


def _dataset(argument: str, split: str) -> Any:
    function = _function(argument)
    keys = {"split": split} if "split" in inspect.signature(function).parameters else {}
    dataset = _called(argument, lambda: function(**keys))
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        what = f"returned {type(dataset).__name__}, not a dataset with a length and items"
        raise DataError(argument, what, "return a torch.utils.data.Dataset")
    if len(dataset) == 0:
        raise DataError(argument, f"the {split} dataset is empty")
    return dataset


def _pixels(where: str, image: Any) -> np.ndarray:
    """uint8 (H, W) or (H, W, C) from a Pillow image, an array or a tensor."""
    if hasattr(image, "detach"):  # a tensor, by its manner: torch need not be imported here
        return _from_tensor(where, image.detach().cpu().numpy())
    if hasattr(image, "convert"):
        grey = image.mode in ("L", "1")
        image = image.convert("L" if grey else "RGB")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        hint = "a Pillow image, a uint8 array (H, W, C), or a float tensor (C, H, W) in 0..1"
        raise DataError(where, f"the image is {array.dtype} {array.shape}", hint)
    return array


def _from_tensor(where: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or (array.shape[0] not in (1, 3) and array.shape[0] >= min(array.shape[1:])):
        raise DataError(where, f"the tensor has shape {array.shape}, not (C, H, W)")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # this way round NaN is refused too
            what = f"the tensor reaches from {low:.3g} to {high:.3g}, not within 0..1"
            raise DataError(where, what, "leave normalisation to the recipe's mean and std")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(where, f"the tensor is {array.dtype}, not float 0..1 or uint8")
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _label(where: str, label: Any) -> int:
    if getattr(label, "shape", None) == (1,):
        label = label[0]
    try:
        number = int(label)
    except (TypeError, ValueError) as error:
        raise DataError(where, f"the label {label!r} is not an integer") from error
    if number != label:
        raise DataError(where, f"the label {label!r} is not an integer")
    return number


_WORDS = {"index": "a number", "Boxes": "boxes", "Maps": "a map", "Numbers": "a row of numbers"}


def _kind(label: Any) -> str:
    """What a label is, as `Items.truth` says it."""
    if isinstance(label, dict) and "boxes" in label:
        return "Boxes"
    if hasattr(label, "convert") or getattr(label, "ndim", 0) in (2, 3):
        return "Maps"
    if getattr(label, "shape", None) == (1,) and "int" in str(getattr(label, "dtype", "")):
        return "index"  # a class in an array of its own
    row = isinstance(label, list | tuple) or getattr(label, "ndim", 0) == 1
    return "Numbers" if row else "index"


def _written(label: Any) -> str:
    """A label as text that changes when it does."""
    if isinstance(label, PictureBoxes):
        return " ".join(np.asarray(v).tobytes().hex() for v in vars(label).values())
    return label.tobytes().hex() if isinstance(label, np.ndarray) else str(label)


def _numbers(where: str, values: Any) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.dtype.kind not in "iufb":
        raise DataError(where, f"{array.dtype} are no numbers")
    return array


def _boxes(
    where: str, said: dict[str, Any], size: tuple[int, int], classes: int, faults: Faults
) -> PictureBoxes:
    boxes = _numbers(f"{where} boxes", said["boxes"]).reshape(-1, 4)
    index = _numbers(f"{where} labels", said.get("labels", [])).reshape(-1)
    if len(index) != len(boxes):
        raise DataError(where, f"has {len(boxes)} boxes and {len(index)} labels")
    for k in index.tolist():
        if k != int(k) or k < 0 or (classes and k >= classes):
            raise DataError(where, f"a box is of class {k:g}", f"there are {classes or 'no'} names")
    more = {key: _numbers(f"{where} {key}", said[key]).reshape(-1)
            for key in ("iscrowd", "area") if key in said}  # fmt: skip
    for key, values in more.items():
        if len(values) != len(boxes):
            raise DataError(where, f"has {len(boxes)} boxes and {len(values)} of {key}")
    crowd = more["iscrowd"].astype(bool) if "iscrowd" in more else None
    return mended(boxes, index.astype(np.int64), size, faults, crowd, more.get("area"))


def _row(
    where: str,
    said: Any,
    size: tuple[int, int],  # noqa: ARG001
    classes: int,
    faults: Faults,  # noqa: ARG001
) -> np.ndarray:
    found = _numbers(where, said).astype(np.float64)
    if found.ndim != 1 or len(found) != classes:
        raise DataError(where, f"has {found.size} numbers, not {classes}", "as many as names")
    if not np.isfinite(found).all():
        raise DataError(where, "holds NaN or infinity", "leave the item out of the dataset")
    return found


def _map(
    where: str,
    said: Any,
    size: tuple[int, int],
    classes: int,
    faults: Faults,  # noqa: ARG001
) -> np.ndarray:
    found = _numbers(f"{where} map", said)
    found = found[0] if found.ndim == 3 and len(found) == 1 else found
    if found.shape != size or found.dtype.kind == "f":
        what = f"the map is {found.dtype} {found.shape}, not whole numbers {size}"
        raise DataError(where, what)
    wrong = (found != IGNORED) & ((found < 0) | (found >= (classes or IGNORED)))
    if wrong.any():
        what = f"a pixel is of class {found[wrong][0]}"
        raise DataError(where, what, f"there are {classes or 'at most 255'} names")
    return found.astype(np.uint8)
