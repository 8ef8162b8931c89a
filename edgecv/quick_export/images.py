"""What calibrates and judges the network, and how images become its input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecv import pixel_units
from edgecv.data.arrays import SUFFIXES as ARRAYS
from edgecv.data.files import tell
from edgecv.errors import DataError, RecipeError
from edgecv.models import model_input
from edgecv.plan.recipe_data import Data
from edgecv.quick_export.request import OPTIONS, Request
from edgecv.runtime.spec import TensorSpec, image_of
from edgecv.yaml_validation import checked

SYNTHETIC = 32


def data_of(request: Request, known: dict[str, Any]) -> Data:
    size = request.size or tuple(known.get("size", (224, 224)))
    fixed = None if known.get("any_size") else known.get("size")
    if fixed and request.size and tuple(fixed) != request.size:
        height, width = fixed
        raise RecipeError(
            "--input-size",
            f"{request.size[0]}x{request.size[1]} given, the model takes {height}x{width}",
            "leave it out: the model says its own size",
        )
    if "bytes" in known and (request.mean or request.std):
        raise RecipeError("--mean, --std", f"{known['bytes']} takes pixels as they are (uint8) "
                          "and normalises them itself", "leave them out")  # fmt: skip
    by = 255.0 if _units(request) == "0..255" else 1.0
    mean, std = (
        [v / by for v in given] if given else [v / 255.0 for v in known.get(key) or (default,)]
        for key, given, default in (("mean", request.mean, 0.0), ("std", request.std, 255.0))
    )
    answers = (request.limits.accuracy_drop, request.limits.sqnr_db)
    held_back = not request.evaluate and any(limit is not None for limit in answers)
    images = f"images:{request.calibration}" if request.calibration else f"synthetic:{SYNTHETIC}"
    if request.calibration and request.calibration.suffix in ARRAYS:
        images = f"{'parted' if held_back else 'arrays'}:{request.calibration}"
    elif request.calibration and (others := model_input.others(known.get("inputs", ()))):
        if request.precision in (None, "int8"):
            raise _no_values(known["inputs"], others)
        images = f"synthetic:{SYNTHETIC}"  # to compare on, what others take is made up as well
    elif request.calibration and held_back:
        images = f"parted:{request.calibration}"
    return checked(
        Data,
        {
            "train": images,
            "test": request.evaluate or images,
            "size": size,
            "units": "0..1",
            "mean": mean,
            "std": std,
            **geometry(request, known),
        },
        OPTIONS,
    )


def geometry(request: Request, known: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, else the model's own as far as it goes with that; of Data's fields."""
    keys = ("resize", "pad_value", "pad_at", "color", "crop_pct", "interpolation", "channels")
    given = {k: v for k in keys if (v := getattr(request, k)) is not None}
    own = {k: v for k in keys if (v := known.get(k)) is not None}
    _tell_of_another_way(request.model, given, own)
    if "resize" in given:
        own = {k: v for k, v in own.items() if k not in ("crop_pct", "pad_value", "pad_at")}
    if given.get("channels", own.get("channels", 3)) != 3:
        own.pop("color", None)
    if given.get("color") == "grey" and "channels" not in given and own.get("channels", 1) != 1:
        what = f"grey is of 1 channel, and the model takes {own['channels']}"
        raise RecipeError("--color", what, "rgb or bgr")
    return {"channels": 1 if given.get("color") == "grey" else 3} | own | given


def _tell_of_another_way(model: str, given: dict[str, Any], own: dict[str, Any]) -> None:
    """Warn where a model says that its images are letterboxed, and others are asked for."""
    if own.get("resize") != "letterbox":
        return
    for key in ("resize", "pad_at", "pad_value"):
        if key in given and key in own and given[key] != own[key]:
            what = f"--{key.replace('_', '-')} {given[key]} is asked for, the model says {own[key]}"
            tell(model, f"{what}: its answers may suffer")
            return  # what is another way has no padding of its own


def _units(request: Request) -> pixel_units.Units:
    """Of the request's mean and std. Raises RecipeError where it cannot be told."""
    try:
        return request.units or pixel_units.told(request.mean, request.std, "0..255")
    except ValueError as e:
        raise RecipeError("--mean, --std", str(e), pixel_units.HINT) from None


def understood_as(request: Request, data: Data) -> str:
    """A sentence where mean and std were given in units of 0..1, or as pixels are."""
    if request.mean is None and request.std is None:
        return ""
    units = _units(request)
    as_it_is = request.std is not None and set(request.std) == {1.0}
    said = units == "0..1" or as_it_is
    return pixel_units.sentence(data.mean, data.std, units) if said else ""


def _no_values(inputs: Sequence[TensorSpec], others: str) -> DataError:
    image = image_of(inputs)
    of = f"are for {image.name!r} and " if image is not None else ""
    return DataError("--calibration", f"images {of}say nothing of {others}",
                     "give an .npz file with an array for each input, a row a sample; the image "
                     "as bytes")  # fmt: skip


def labels_of(path: Path | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """One label a line."""
    if path is None or isinstance(path, tuple):
        return path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        what = e.strerror if isinstance(e, OSError) else e
        raise DataError(str(path), f"cannot be read: {what}", "one label a line, UTF-8") from None
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise DataError(str(path), "holds no labels", "one label a line")
    return labels
