"""What a recipe's `data:` leaves to be settled before anything runs: what the network itself says
of its input, whether its images have labels, and which steps cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import data as datasets
from edgecv import pixel_units, tasks
from edgecv.errors import DataError, ModelError, RecipeError, one_line
from edgecv.graph_files import FILES
from edgecv.limits import unknown_drop
from edgecv.models import model_input
from edgecv.models.model_source import ModelSource, is_file
from edgecv.models.zoo import published
from edgecv.plan.recipe_data import Data
from edgecv.plan.recipe_flow import Step
from edgecv.runtime import npy
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.spec import image_of
from edgecv.stages.base import Limited
from edgecv.yaml_validation import Where

# What a model's own word counts for where the recipe says nothing; and what hangs on `resize`.
_TRAINED = ("size", "mean", "std", "resize", "crop_pct", "pad_value", "pad_at", "interpolation",
            "color", "channels")  # fmt: skip
_OF_RESIZE = ("crop_pct", "pad_value", "pad_at")
_SCALED = {"mean": (0.0,), "std": (255.0,)}  # where images have no labels and nobody says more
MADE_UP = "synthetic:32"
MOST_PRIORS = 100_000

Settled = tuple[Data, tuple[str, ...] | None, tuple[str, ...]]


def settled(
    data: Data, model: ModelSource, steps: Sequence[Step], where: Where, task: str | None = None
) -> Settled:
    """The data with what the model says in place of what the recipe leaves out; names of the
    network's outputs, or None; and notes of what was taken.

    task: what the network is for, as the recipe says; None where it does not
    Raises RecipeError: no size, and none to be found; a step that needs labels, and images without;
    a limit on accuracy, and a network without classes.
    """
    if task == tasks.NONE:
        _check_limits("a network of no task", steps, where)
    meant = task or task_of(data.train, data.test)
    reads = None if tasks.of_classes(meant) else str(meant)
    if reads:
        _check_task(reads, data, steps, where)
    else:
        _check_read(steps, where)
    if not labelled(data.train):
        _check_steps(steps, where)
    if data.images is None:
        check_truth(task, data.test, where("data", "test"))
        return _as_trained(data, model, _expected(data, model), where)
    size = None if data.size is None else data.height_width
    known = model_input.known(model, size)
    _check_input(data, model, known, where)
    outputs = known.get("outputs")
    if outputs and not reads and kinds(outputs)[outputs[0].name] != "classes":
        _check_limits(f"output {outputs[0].name!r} {outputs[0].shape}", steps, where)
    data, made_up = _with_images(data, known, steps, where)
    data, _, notes = _as_trained(data, model, _SCALED | known, where)
    return data, tuple(known.get("labels") or ()) or None, (*made_up, *notes)


def labelled(source: str) -> bool:
    """Whether images of that source have labels; nothing is opened."""
    with suppress(DataError):  # a word that means nothing is told where it is looked for
        return datasets.parse(source).labelled
    return True


def task_of(*sources: str) -> str | None:
    """The task that the labels of those images are of; None where they do not say it."""
    for source in sources:
        with suppress(DataError):
            if (found := datasets.parse(source).task) is not None:
                return found
    return None


_CALLED = {"index": "classes", "Boxes": "boxes", "Maps": "maps", "Numbers": "numbers"}
_SOURCES = {"index": "imagefolder:DIR", "Boxes": "coco:JSON, yolo:DIR or voc:DIR",
            "Maps": "masks:DIR", "Numbers": "table:FILE.csv"}  # fmt: skip


def check_truth(task: str | None, source: str, where: str) -> None:
    """Raises RecipeError: what is true of those images is not what the task is judged by."""
    if task not in tasks.names():
        return
    with suppress(DataError):
        parsed, wanted = datasets.parse(source), tasks.task(str(task)).truths()
        said = "" if parsed.kind == "function" else parsed.truth  # a Dataset says it itself
        if said and said not in wanted and all(kind in _CALLED for kind in wanted):
            by = " or ".join(_CALLED[kind] for kind in wanted)
            what = f"{source} says {_CALLED[said]}, and {task} is judged by {by}"
            raise RecipeError(where, what, "; ".join(_SOURCES[kind] for kind in wanted))


def with_tables(
    decode: Mapping[str, Any], folder: Path, where: Callable[[str], str]
) -> dict[str, Any]:
    """The same with the rows of the .npy file that `priors` names. Raises RecipeError."""
    if not isinstance(name := decode.get("priors"), str):
        return dict(decode)
    try:
        rows = npy.read((folder / name).read_bytes())
    except (OSError, ValueError, TypeError):
        hint = "np.save(FILE, np.ascontiguousarray(rows)): floats (P, 4)"
        raise RecipeError(where("priors"), f"{name} is no plain .npy file", hint) from None
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind != "f" or len(rows) > MOST_PRIORS:
        what = f"{name} is {rows.dtype} {rows.shape}"
        raise RecipeError(where("priors"), what, f"floats (P, 4), P up to {MOST_PRIORS:,}")
    if not np.isfinite(rows).all():
        raise RecipeError(where("priors"), f"{name} holds NaN or infinity", "numbers alone")
    return {**decode, "priors": rows.tolist()}


def check_decode(task: str, decode: Mapping[str, Any], where: str) -> None:
    """Raises RecipeError: a value that cannot be, whatever the network's outputs are."""
    try:
        tasks.task(task).check(decode)
    except (ValueError, TypeError) as error:
        raise RecipeError(where, one_line(error)) from None


def _check_steps(steps: Sequence[Step], where: Where) -> None:
    """Raises RecipeError for the first step that learns from labels, or is judged by them."""
    for i, step in enumerate(steps):
        if step.stage.learns_labels():
            word = step.stage.word
            what = f"{word} learns from labels and is judged by them, and the data has none"
            hint = "labelled images: data.train and data.test; without, only quantize and export"
            raise RecipeError(where("stages", i, word), what, hint)


def _check_read(steps: Sequence[Step], where: Where) -> None:
    """Raises RecipeError: a parameter that training of classes would not read."""
    for i, step in enumerate(steps):
        if why := step.stage.unread("classification"):
            raise RecipeError(where("stages", i, step.stage.word), why)


def _check_task(task: str, data: Data, steps: Sequence[Step], where: Where) -> None:
    """Raises RecipeError: a step that networks of that task cannot go through, or a limit on a drop
    that nothing is known of."""
    for i, step in enumerate(steps):
        word = step.stage.word
        if why := step.stage.unfit(task):
            raise RecipeError(where("stages", i, word), f"is not for task {task}: {why}")
        limited = isinstance(step.stage, Limited) and step.stage.limits.accuracy_drop is not None
        if limited and not labelled(data.test):
            raise unknown_drop(task, where("stages", i, word, "accuracy_drop"), "data.test")


def _check_input(data: Data, model: ModelSource, known: dict[str, Any], where: Where) -> None:
    """Raises RecipeError where the recipe asks for an image that the file does not take."""
    if image_of(known.get("inputs") or ()) is None:
        return
    name = Path(model.name).name
    if data.size is not None and tuple(known["size"]) != data.height_width:
        given, own = ("x".join(map(str, v)) for v in (data.height_width, known["size"]))
        what = f"{given} given, {name} takes {own}"
        raise RecipeError(where("data", "size"), what, "leave it out: the model says its own size")
    if data.channels not in (None, known["channels"]):
        what = f"{name} takes {known['channels']} channels, found {data.channels}"
        key = "channels" if "channels" in data.model_fields_set else "color"
        raise RecipeError(where("data", key), what, "leave it out: the model says its own")


def _check_limits(what: str, steps: Sequence[Step], where: Where) -> None:
    """Raises RecipeError: a limit on the accuracy of what has no classes."""
    for i, step in enumerate(steps):
        if isinstance(step.stage, Limited) and step.stage.limits.accuracy_drop is not None:
            place = where("stages", i, step.stage.word, "accuracy_drop")
            raise RecipeError(place, f"{what} has no best class", "limit sqnr_db, latency or size")


def _with_images(
    data: Data, known: dict[str, Any], steps: Sequence[Step], where: Where
) -> tuple[Data, tuple[str, ...]]:
    """The data, with made-up images in place of photographs for a network of other inputs besides.

    Raises RecipeError: int8 of them, or of made-up images, which would be calibrated on nothing.
    """
    source, others = datasets.parse(data.train), model_input.others(known.get("inputs") or ())
    photographs = source.kind == "plain" and not source.argument.startswith("synthetic:")
    integers = any(getattr(s.stage, "precision", "") == "int8" for s in steps)
    calibrates = integers and known.get("precision") != "int8"
    place = where("data", "images")
    if photographs and others:
        if calibrates:
            what = f"images say nothing of {others}"
            raise RecipeError(place, what, "an .npz file with an array for each input, a row a "
                              "sample; the image as bytes")  # fmt: skip
        note = f"data: images say nothing of {others}: all inputs are made up to compare on"
        return data.model_copy(update={"train": MADE_UP, "test": MADE_UP}), (note,)
    if calibrates and source.argument.startswith("synthetic:"):
        what = "int8 needs images to calibrate on, and these are made up"
        raise RecipeError(place, what, "give a folder of images like those on the device")
    return data, ()


def _as_trained(data: Data, model: ModelSource, expected: dict[str, Any], where: Where) -> Settled:
    """Where the recipe says nothing, pixels become input as the network's weights expect: those of
    a Model folder, or published ones of the zoo; and the size is the model's own. Also notes that
    say so. Raises RecipeError: no size, and none to be found."""
    given = data.model_fields_set
    if data.size is None and "size" not in expected:
        what = f"key 'size' is missing, and {Path(model.name).name} does not say its own"
        raise RecipeError(where("data"), what, "size: 224, or [height, width], in pixels")
    taken: dict[str, Any] = {}
    for key in _TRAINED:
        free = getattr(data, key) is None if key in ("size", "channels") else key not in given
        if key in expected and free:
            value = expected[key]
            taken[key] = tuple(v / 255.0 for v in value) if key in ("mean", "std") else value
    if given & {"resize", *_OF_RESIZE}:  # another way's padding or crop says nothing
        taken = {k: v for k, v in taken.items() if k not in ("resize", *_OF_RESIZE)}
    if data.channels not in (None, 3):
        taken.pop("color", None)
    changed: dict[str, Any] = {k: v for k, v in taken.items() if v != getattr(data, k)}
    notes: tuple[str, ...] = ()
    units = data.units or "0..1"
    if given & {"mean", "std"} and (units == "0..255" or set(data.std) == {1.0}):
        notes = (f"data: {pixel_units.sentence(data.mean, data.std, units)}",)
    if not changed:
        return data, None, notes
    if "size" in changed:
        changed["size"] = tuple(changed["size"])
    by_model = {k: v for k, v in changed.items() if expected[k] is not _SCALED.get(k)}
    if len(by_model) < len(changed):
        notes += ("data: pixels are scaled to 0..1; give mean and std if it was trained otherwise",)
    if by_model:
        said = ", ".join(f"{key} {_said(value)}" for key, value in by_model.items())
        name = Path(model.name).name
        expects = f"the weights of {name} expect" if data.images is None else f"{name} says"
        notes += (f"data: {said}, as {expects} (the recipe says none)",)
    return data.model_copy(update=changed), None, notes


def _said(value: Any) -> str:
    many = isinstance(value, tuple | list)
    return " ".join(f"{v:.4g}" for v in value) if many else f"{value}"


def _expected(data: Data, model: ModelSource) -> dict[str, Any]:
    """What the model says of its input beside labelled images, as a runtime Preprocess names it:
    mean and std in units of 0..255. Raises ModelError: a file that is to say its size and cannot
    be read."""
    if model.kind == "zoo":
        found = published.known(model.name, model.args)
    elif model.kind == "folder" and is_file(Path(model.name) / "model.json"):
        from edgecv.models.model import Model

        found = {}
        with suppress(ModelError):  # damaged: said when it is opened
            found = dict(Model.read(Path(model.name)).input)
    elif model.kind in ("program", *FILES) and data.size is None:
        found = model_input.known(model, None)
        if model.kind in FILES and image_of(found["inputs"]) is None:
            return {}
        return {k: v for k, v in found.items() if k == "size"}
    else:
        return {}
    return {k: v for k, v in found.items() if k != "channels"}  # the data's own
