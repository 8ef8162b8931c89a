"""`edgecv why`: why a bundle is not faster, or not right, and what its integers cost."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.commands.common import Bar, existing, seconds
from edgecv.terminal import print_json


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
    from edgecv.api import why
    from edgecv.diagnosis.why.rounding.words import show as show_rounding
    from edgecv.diagnosis.why.terminal import show

    bundle, against = options.bundle, options.against
    source = why.source(options.images, options.evaluate)
    why.check(bundle, against, source, options.samples, options.threads)
    data: dict[str, Any] = {}
    if bundled := bundle.suffix == why.BUNDLE:
        with Bar("why", quiet=options.json) as bar:
            data = why.explained(bundle, against, options.threads, options.budget, bar)
        if not options.json:
            show(data)
    if source:
        with Bar("why", quiet=options.json) as bar:
            found = why.rounding(bundle, against, source, options.samples, bar)
        data["rounding"] = found
        if not options.json:
            show_rounding(found, bundled)
    if options.json:
        print_json(data)
    return 0
