"""The words of `edgecv.export`: the long options of the command of that name, with underscores."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args, get_type_hints

import numpy as np

from edgecv import limits, tasks
from edgecv.api.calling import StrPath, path_of
from edgecv.errors import RecipeError

if TYPE_CHECKING:
    from edgecv.graphs.onnx.pins import Pins
    from edgecv.quick_export import Request

# what is said of how a task reads outputs, and has a word of its own
DECODE = ("decoder", "confidence", "iou", "max_detections", "priors", "form", "background", "nms",
          "agnostic")  # fmt: skip
AS_THEY_ARE = ("precision", "name", "quantizer", "activations", "activations_share", "opset",
               "samples", "evaluate", "channels", "units", "resize", "pad_value", "pad_at", "color",
               "crop_pct", "interpolation", "task")  # fmt: skip


class ExportOptions(TypedDict, total=False):
    """All may be left out; None is as if it were.

    Of the result
        precision      default: what a file comes in; int8 with `calibration`, else fp32
        name           of the files; default: from the model
        keep_float     names of layers that int8 leaves out
        quantizer      whose int8; default "edgecv", of an OpenVINO IR "nncf"
        activations    put in the place of costlier ones; activations_share: of the numbers that
                       these make, at most, 0..1
        opset          of ONNX files, default 18
    Of images
        calibration    a folder of images, .npy of images, .npz of an array for each input; or
                       uint8 images (N, H, W, C) themselves, RGB or grey
        samples        of these, at most; default 256
        evaluate       labelled images, "imagefolder:DIR", "coco:FILE.json", ...: accuracy is judged
        labels         names of the classes in the order of the outputs, or a file of one a line
    Limits: BudgetError where nothing meets them
        accuracy_drop  points of the task's metric below fp32; latency_ms: the median call;
                       latency_ratio: of fp32's; size_mb: the engine's files, 10^6 bytes;
                       sqnr_db: of every output against float, at the least
    Of how pixels become input
        input_size     pixels, N or (height, width); channels: default 3
        mean, std      a number or one a channel, in units of 0..255 or of 0..1 (`units` says
                       which); default: the model's own, else 0 and 255
        resize         and pad_value, pad_at, color, crop_pct, interpolation: docs/preprocessing.md
    Of what outputs mean
        task           a name of `edgecv.tasks` or "none"; default: inferred
        decoder        and confidence, iou, max_detections, priors, form, background, nms, agnostic;
                       decode: any other field of the task (docs/detection.md)
    Of the network that comes in
        arg            arguments of the function that builds it; weights: its file of weights
        input          name -> shape of each input; batch: images at once
        output, until, layout   of .onnx files (docs/networks.md)
        trust          run the code that a Model folder names
    """

    precision: Literal["fp32", "fp16", "bf16", "int8"] | None
    name: str | None
    keep_float: Sequence[str] | None
    quantizer: Literal["edgecv", "nncf"] | None
    activations: Literal["hardswish", "relu6", "relu"] | None
    activations_share: float | None
    opset: int | None
    calibration: StrPath | np.ndarray | None
    samples: int | None
    evaluate: str | None
    labels: StrPath | Sequence[str] | None
    accuracy_drop: float | None
    latency_ms: float | None
    latency_ratio: float | None
    size_mb: float | None
    sqnr_db: float | None
    input_size: int | tuple[int, int] | None
    channels: int | None
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    units: Literal["0..1", "0..255"] | None
    resize: Literal["crop", "stretch", "letterbox", "none"] | None
    pad_value: int | None
    pad_at: Literal["centre", "corner"] | None
    color: Literal["rgb", "bgr", "grey"] | None
    crop_pct: float | None
    interpolation: Literal["bicubic", "bilinear", "nearest"] | None
    task: str | None
    decoder: str | None
    confidence: float | None
    iou: float | None
    max_detections: int | None
    priors: StrPath | None
    form: str | None
    background: int | None
    nms: Literal["runtime", "graph"] | None
    agnostic: bool | None
    decode: Mapping[str, Any] | None
    arg: Mapping[str, Any] | None
    weights: StrPath | None
    input: Mapping[str, Sequence[int] | str] | None
    batch: int | None
    output: Sequence[str] | None
    until: Sequence[str] | None
    layout: Literal["NCHW", "NHWC"] | None
    trust: bool


def check(options: Mapping[str, Any], function: str) -> None:
    """Raises TypeError, as Python does, for a word that `function` does not take; RecipeError for a
    value that is none of those there are."""
    hints = get_type_hints(ExportOptions)
    for word in options:
        if word not in hints:
            near = difflib.get_close_matches(word, hints, 1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {word!r}{hint}")
    choices = {word: [c for part in get_args(hint) for c in get_args(part)]
               for word, hint in hints.items() if "Literal" in str(hint)}  # fmt: skip
    choices["task"] = [*tasks.names(), tasks.NONE]
    for word, known in choices.items():
        if (value := options.get(word)) is not None and value not in known:
            raise RecipeError(word, f"is {value!r}", f"one of {', '.join(known)}")


def request_of(model: str, targets: Sequence[str], options: ExportOptions) -> Request:
    """What `edgecv.quick_export` is asked for. Raises RecipeError: a word has no such value, or
    says what another says."""
    from edgecv.quick_export import Request

    words: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    return Request(
        model=model,
        targets=tuple(targets),
        **{key: words[key] for key in AS_THEY_ARE if key in words},
        calibration=path_of(words.get("calibration")),
        weights=path_of(words.get("weights")),
        mean=numbers(words.get("mean")),
        std=numbers(words.get("std")),
        size=_size(words.get("input_size")),
        labels=_labels(words.get("labels")),
        keep_float=tuple(words.get("keep_float", ())),
        limits=limits.checked(words),
        decode=_decode(words),
        args=dict(words.get("arg", {})),
        pins=_pins(words),
    )


def numbers(value: float | Sequence[float] | None) -> tuple[float, ...] | None:
    """One value, or one per channel."""
    if value is None:
        return None
    values = (value,) if isinstance(value, int | float) else value
    return tuple(float(v) for v in values)


def _size(value: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise RecipeError("--input-size", f"{value!r} is not a size", "224, or (height, width)")
    return sides


def _labels(value: StrPath | Sequence[str] | None) -> Path | tuple[str, ...] | None:
    if value is None or isinstance(value, str | Path):
        return path_of(value)
    return tuple(value) if isinstance(value, Sequence) else Path(value)


def _decode(words: Mapping[str, Any]) -> dict[str, Any]:
    """How outputs are read. Raises RecipeError: one word says it twice."""
    found = {key: words[key] for key in DECODE if key in words}
    found |= {"priors": str(found["priors"])} if "priors" in found else {}
    for key, value in words.get("decode", {}).items():
        if key in found:
            raise RecipeError(f"decode: {key}", "is said twice", f"give {key} alone")
        found[key] = value
    return found


def _pins(words: Mapping[str, Any]) -> Pins:
    """What is said of a network that leaves its shapes open, or is cut."""
    from edgecv.graphs.onnx import pins

    said = {key: words[key] for key in pins.WORDS if key in words}
    return pins.read(said, lambda *keys: f"--{' '.join(keys)}")
