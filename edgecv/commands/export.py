"""`edgecv export`: a network to a bundle for each target, with no recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgecv.commands import export_output as output
from edgecv.commands.common import (
    add_jobs,
    add_limits,
    add_task,
    add_trust,
    decode_of,
    is_quiet,
)
from edgecv.errors import EdgecvError, RecipeError, missing
from edgecv.limits import NAMES, sentence
from edgecv.memory import keep_freed
from edgecv.terminal import print_json

if TYPE_CHECKING:
    from edgecv.api.export_options import ExportOptions


def register(command: Any) -> None:
    made = command(
        "export", export, "Export, quantize and compile one network for one target or several."
    )
    made.add_argument(
        "model",
        help="Model folder, .onnx, .tflite, OpenVINO .xml, TorchScript or .pt2 file, "
        "package.module:function or zoo name",
    )
    made.add_argument(
        "--target", required=True, metavar="NAME[,NAME]",
        help="device profiles (`edgecv targets`); what several can share is done once",
    )  # fmt: skip
    made.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        help="default: what a file comes in; int8 with --calibration, else fp32",
    )
    made.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="images, in any sub-folders; .npy of images; or .npz, an array for each input",
    )  # fmt: skip
    made.add_argument(
        "--evaluate",
        metavar="SOURCE",
        help="images to measure accuracy on: imagefolder:DIR; of detectors coco:ANNOTATIONS.json, "
        "yolo:data.yaml, voc:DIR; of segmentation masks:DIR; of numbers table:FILE.csv",
    )
    add_limits(made)
    add_trust(made)
    add_jobs(made)
    add_task(made)
    made.add_argument("--samples", type=int, default=256, help="calibration images used (256)")
    made.add_argument(
        "--keep-float", action="append", default=[], metavar="LAYER",
        help="a layer that int8 leaves out, by its name in messages and `edgecv bench --profile`",
    )  # fmt: skip
    made.add_argument(
        "--quantizer", choices=("edgecv", "nncf"),
        help="whose int8; nncf: OpenVINO's own, for its targets (default: edgecv's, of an OpenVINO "
        "IR nncf's; with limits the better one)",
    )  # fmt: skip
    made.add_argument(
        "--activations", choices=("hardswish", "relu6", "relu"),
        help="in the place of costlier ones; the network learns from itself on --calibration's "
        "images: minutes",
    )  # fmt: skip
    made.add_argument(
        "--activations-share", type=float, metavar="S",
        help="replace at most this share of the numbers that they make, where it harms least (1)",
    )  # fmt: skip
    made.add_argument("--input-size", metavar="N[xM]", help="input pixels, N or HxW")
    made.add_argument("--channels", type=int, metavar="C", help="default: the model's own, else 3")
    made.add_argument(
        "--mean", metavar="M[,M,M]", help="pixel mean, units of 0..255 or of 0..1 (default 0)"
    )
    made.add_argument("--std", metavar="S[,S,S]", help="pixel deviation, likewise (default 255)")
    made.add_argument(
        "--units", choices=("0..1", "0..255"),
        help="of --mean and --std; default: what they can only be (docs/preprocessing.md)",
    )  # fmt: skip
    made.add_argument(
        "--resize", choices=("crop", "stretch", "letterbox", "none"),
        help="how an image comes to the input's size (default: crop)",
    )  # fmt: skip
    made.add_argument(
        "--pad-value", type=int, metavar="P", help="of letterbox: the pixel around (114)"
    )
    made.add_argument(
        "--pad-at", choices=("centre", "corner"),
        help="of letterbox: where the image lies; corner is the upper left (default: centre)",
    )  # fmt: skip
    made.add_argument(
        "--color", choices=("rgb", "bgr", "grey"), help="order of the channels (default: rgb)"
    )
    made.add_argument(
        "--crop-pct", type=float, help="of crop: short side is resized to input-size / this (0.875)"
    )
    made.add_argument(
        "--interpolation", choices=("bicubic", "bilinear", "nearest"), help="default: bicubic"
    )
    made.add_argument(
        "--layout", choices=("NCHW", "NHWC"),
        help="of an .onnx file's image, where its shape does not tell (default NCHW)",
    )  # fmt: skip
    made.add_argument(
        "--input", action="append", default=[], metavar="NAME:SHAPE",
        help="shape of an input that is open, or an argument of a PyTorch network: image:1x3x64x64",
    )  # fmt: skip
    made.add_argument(
        "--output", action="append", default=[], metavar="NAME",
        help="an output of an .onnx file that stays (default: all)",
    )  # fmt: skip
    made.add_argument(
        "--until", action="append", default=[], metavar="NAME",
        help="a tensor or node at which an .onnx file is cut: it becomes an output",
    )  # fmt: skip
    made.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="images at once, where the network leaves it open (1)",
    )
    made.add_argument(
        "--weights", type=Path, metavar="FILE",
        help="state dict, checkpoint or .safetensors for the network that a function builds",
    )  # fmt: skip
    made.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line")
    made.add_argument("--opset", type=int, default=18, help="ONNX opset (18)")
    made.add_argument(
        "--arg", action="append", default=[], metavar="KEY=VALUE", help="argument of the builder"
    )
    made.add_argument("--name", help="file name of what is written (default: from the model)")
    made.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the bundle is written"
    )


def export(options: argparse.Namespace) -> int:
    try:
        from edgecv.console import Progress
        from edgecv.quick_export import export, step_words
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", "edgecv export") from None
    from edgecv.api.export import remarks
    from edgecv.api.export_options import request_of

    keep_freed()
    request = request_of(options.model, _targets(options.target), _words(options))
    words = step_words.of_export(bool(request.calibration), bool(request.evaluate))
    with Progress(is_quiet(options), words) as progress:
        found = export(request, options.out, progress, jobs=options.jobs)
    code = max(map(output.exit_code_of, found.values()))
    if options.json:
        shown = [{"target": name, **output.json_of(one)} for name, one in found.items()]
        print_json(shown[0] if len(shown) == 1 else {"targets": shown})
        return code
    made = {name: one for name, one in found.items() if not isinstance(one, EdgecvError)}
    if len(found) == 1:
        output.print_one(next(iter(made.values())))
    else:
        output.print_table(found)
    if len(found) > 1 and any(one.facts.made_up for one in made.values()):
        print("note: dB on made-up images, where outputs that hardly change read low: "
              "give --calibration for yours")  # fmt: skip
    for note in output.notes(made, several=len(found) > 1):
        print(note)
    for note in remarks(request, made):
        print(f"note: {note}")
    for one in made.values():
        if one.verdict:
            print(sentence(one.verdict))
    return code


def _targets(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise RecipeError("--target", f"{text!r} names no target", "cpu, or cpu,openvino,tflite")
    return tuple(names)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise RecipeError("--input-size", f"{text!r} is not a size", "224, or 192x256 (HxW)")
    return int(parts[0]), int(parts[-1])


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(p) for p in text.split(","))
    except ValueError:
        hint = "127 or 123.7,116.3,103.5"
        raise RecipeError(name, f"{text!r} is not a number, or numbers with commas", hint) from None


def _words(options: argparse.Namespace) -> ExportOptions:
    """The options as `edgecv.export` takes them."""
    from edgecv.api.export_options import AS_THEY_ARE

    found: Any = {
        name: getattr(options, name)
        for name in (*AS_THEY_ARE, *NAMES, "calibration", "labels", "weights", "keep_float",
                     "output", "until", "batch", "layout")
    }  # fmt: skip
    found["input_size"] = _size(options.input_size)
    found["mean"], found["std"] = (
        _numbers("--mean", options.mean), _numbers("--std", options.std)
    )  # fmt: skip
    found["decode"], found["arg"] = decode_of(options), _arguments(options.arg)
    found["input"] = _shapes(options.input)
    return cast("ExportOptions", found)


def _shapes(items: list[str]) -> dict[str, str]:
    """Of inputs by name."""
    shapes: dict[str, str] = {}
    for item in items:
        name, _, shape = item.rpartition(":")  # a name may hold one itself
        if not name or name in shapes:
            what = "is given twice" if name else "names no input"
            raise RecipeError(f"--input {item}", what, "--input images:1x3x640x640")
        shapes[name] = shape
    return shapes


def _arguments(items: list[str]) -> dict[str, Any]:
    from edgecv import strict_yaml

    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--arg {item}", "is not of the form key=value", "width=32")
        found[key] = strict_yaml.load(value, f"--arg {key}")[0]
    return found
