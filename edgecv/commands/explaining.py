"""`edgecv why`: why a bundle is not faster, or not right, and what its integers cost."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.commands.common import Bar, existing, seconds
from edgecv.errors import RecipeError
from edgecv.terminal import print_json

BUNDLE = ".edgecv"


def register(command: Any) -> None:
    why = command(
        "why", run_why, "Say why a bundle is not faster, or not right, and what mends it."
    )
    why.add_argument(
        "bundle", type=existing,
        help=".edgecv file; with --images or --evaluate also a quantized .onnx file",
    )  # fmt: skip
    why.add_argument(
        "--against",
        type=existing,
        metavar="FLOAT",
        help="what it ought to beat, the fp32 bundle of the same network as a rule; with --images "
        "or --evaluate also the float .onnx file",
    )
    images = why.add_mutually_exclusive_group()
    images.add_argument(
        "--images", type=existing, metavar="DIR",
        help="say what int8 costs, by tensor and mechanism, on these images: answers that stay as "
        "the float network's (minutes)",
    )  # fmt: skip
    images.add_argument(
        "--evaluate", metavar="SOURCE",
        help="the same in the task's metric, on labelled images, as `edgecv export` takes them",
    )  # fmt: skip
    why.add_argument("--samples", type=int, metavar="N", help="images of them (default: 128)")
    why.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")
    why.add_argument(
        "--budget",
        type=seconds,
        default=20.0,
        metavar="20s",
        help="time for measuring mended graphs (20s)",
    )


def run_why(options: argparse.Namespace) -> int:
    from edgecv import child
    from edgecv.benchmark.calibration import ONE_THREAD
    from edgecv.diagnosis.why.rounding.words import show as show_rounding
    from edgecv.diagnosis.why.words import show

    _check(options)
    data: dict[str, Any] = {}
    if bundled := options.bundle.suffix == BUNDLE:
        rival = options.against if options.against and options.against.suffix == BUNDLE else None
        job = {
            "bundle": str(options.bundle),
            "against": str(rival) if rival else None,
            "threads": options.threads,
            "budget_s": options.budget,
        }
        with Bar("why", quiet=options.json) as bar:
            data = child.call("edgecv.diagnosis.why.explain", job, "why", bar, ONE_THREAD)
        if not options.json:
            show(data)
    if source := _source(options):
        job = {
            "network": str(options.bundle), "against": str(options.against), "images": source,
            "samples": options.samples,
        }  # fmt: skip
        with Bar("why", quiet=options.json) as bar:
            found = child.call("edgecv.diagnosis.why.rounding.report", job, "why", bar, ONE_THREAD)
        data["rounding"] = found
        if not options.json:
            show_rounding(found, bundled)
    if options.json:
        print_json(data)
    return 0


def _source(options: argparse.Namespace) -> str:
    """The images that int8 is judged on, as `edgecv.data` takes them; "" for none."""
    return f"images:{options.images}" if options.images else options.evaluate or ""


def _check(options: argparse.Namespace) -> None:
    """Raises RecipeError: what is asked for does not go together."""
    if options.threads < 1:
        raise RecipeError("--threads", f"is {options.threads}", "at least 1")
    if options.samples is not None and not 1 <= options.samples <= 1_000_000:
        raise RecipeError("--samples", f"is {options.samples}", "at least 1")
    for path in filter(None, (options.bundle, options.against)):
        if path.is_dir():
            raise RecipeError(str(path), "is a folder, not a bundle", "give a .edgecv file")
    asked = _source(options)
    if asked and options.against is None:
        what = "the float network that int8 is compared with is not given"
        raise RecipeError("--against", what, "its fp32 bundle, or the float .onnx file")
    if options.samples is not None and not asked:
        raise RecipeError("--samples", "no images are given", "--images or --evaluate")
    for path in filter(None, (options.bundle, options.against)):
        if not asked and path.suffix == ".onnx":
            hint = "give a bundle, or --images or --evaluate for what its integers cost"
            raise RecipeError(str(path), "is a file, and a bundle is what is timed", hint)
