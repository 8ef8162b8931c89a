"""What commands share."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecv import tasks
from edgecv.api import running
from edgecv.errors import RecipeError
from edgecv.limits import NAMES, Limits, checked
from edgecv.terminal import printable


def existing(text: str) -> Path:
    """An argparse type: a path that is there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path


def names(text: str) -> list[str]:
    """An argparse type: "cpu" or "cpu,openvino"."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not cpu, or cpu,openvino")
    return found


def seconds(text: str) -> float:
    """An argparse type: "30s", "2m" or "30" in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min)?", text.strip())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: 30s or 2m")
    return float(match[1]) * (60.0 if match[2] in ("m", "min") else 1.0)


class Bar:
    """One line of progress on a terminal; elsewhere nothing but the lines of `step`. Standard
    library only."""

    def __init__(self, title: str, quiet: bool = False, width: int = 24) -> None:
        self.title, self.width, self.quiet = title, width, quiet
        self.live = not quiet and sys.stderr.isatty()
        self.drawn = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self.drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self.drawn = False

    def __call__(self, done: float, total: float, note: str = "") -> None:
        if not self.live:
            return
        full = round(self.width * min(1.0, done / total)) if total else 0
        bar = "━" * full + "─" * (self.width - full)
        print(f"\r\x1b[K{self.title} {bar} {printable(note)}", end="", file=sys.stderr, flush=True)
        self.drawn = True

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One of the things that take long: a line when it is done, without a terminal one when it
        begins too, as a log that says nothing looks like one that hangs."""
        title, began = self.title, time.monotonic()
        self.title = f"{title} {printable(what)}"
        if not self.live:
            self._say(f"… {what}")
        try:
            yield
        except BaseException:
            self._say(f"✗ {what}")
            raise
        else:
            self._say(f"✓ {what}  {time.monotonic() - began:.1f} s")
        finally:
            self.title = title

    def _say(self, line: str) -> None:
        self.clear()
        if not self.quiet:
            print(printable(line), file=sys.stderr, flush=True)


def _count(text: str) -> int:
    """An argparse type: 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes: 1 or more")
    return int(text)


def add_jobs(command: Any) -> None:
    """Options of commands that make many things: how many at once, and what is said meanwhile."""
    command.add_argument(
        "--jobs", type=_count, metavar="N",
        help="steps that are done at once, each in a process of its own; measurements are alone "
        "(default: as many as there are cores for)",
    )  # fmt: skip
    add_quiet(command)


def add_quiet(command: Any) -> None:
    """`--quiet`, of a command that works long."""
    command.add_argument(
        "-q", "--quiet", action="store_true", help="say nothing but the result and errors"
    )


def is_quiet(options: argparse.Namespace) -> bool:
    """Whether there is to be no progress; where --quiet says so, warnings are not said either."""
    if options.quiet:
        logging.getLogger("edgecv").setLevel(logging.ERROR)
    return bool(options.quiet or options.json)


def add_limits(command: Any) -> None:
    """The options that limit what a command makes; it fails (1) where nothing meets them."""
    for option, unit, text in (
        (
            "--accuracy-drop",
            "POINTS",
            "of the task's metric (top-1, mAP, mIoU) that may be lost against fp32, e.g. 0.2",
        ),
        ("--latency-ms", "MS", "the median call, at the most"),
        ("--latency-ratio", "R", "of fp32's latency on the same engine, at the most, e.g. 0.5"),
        ("--size-mb", "MB", "the engine's files, at the most"),
        ("--sqnr-db", "DB", "of every output against float, at the least, e.g. 30"),
    ):
        command.add_argument(option, type=float, metavar=unit, help=text)


# What is said of how a task reads outputs: option -> (type, what it means).
DECODE: dict[str, tuple[type, str]] = {
    "decoder": (str, "how a detector's outputs hold boxes, where their shapes do not say it"),
    "confidence": (float, "the least score of what is answered, 0..1"),
    "iou": (float, "boxes of one class that overlap by more are one, 0..1"),
    "max_detections": (int, "how many at most"),
    "priors": (str, "of SSD: an .npy file of its boxes, (P, 4), where shapes do not tell them"),
    "form": (str, "how boxes and priors are written: cxcywh, TensorFlow's cycxhw, xyxy, ..."),
    "background": (int, "the column of scores that is no class: 0 or -1"),
}


def add_task(command: Any) -> None:
    """`--task` and how its outputs are read."""
    command.add_argument(
        "--task", choices=(*tasks.names(), tasks.NONE),
        help="what bundle(image) answers: classes, boxes, maps, numbers; none: the outputs by name "
        "(default: inferred)",
    )  # fmt: skip
    for name, (kind, text) in DECODE.items():
        option = f"--{name.replace('_', '-')}"
        command.add_argument(option, type=kind, metavar="NAME" if kind is str else "N", help=text)
    command.add_argument(
        "--nms", choices=("runtime", "graph"),
        help="graph: boxes are decoded and suppressed in the file itself (default: the runtime's)",
    )  # fmt: skip
    command.add_argument(
        "--agnostic", action="store_true", default=None,
        help="boxes that overlap are one, whatever their classes",
    )  # fmt: skip
    command.add_argument(
        "--decode", action="append", default=[], metavar="KEY=VALUE",
        help="any other field of how the task reads outputs: outputs=[boxes, scores], "
        "holds=logit, threshold=0.7",
    )  # fmt: skip


def decode_of(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_task`'s options say of reading outputs. Raises RecipeError: one says it twice."""
    names = (*DECODE, "agnostic", "nms")
    found = {name: value for name in names if (value := getattr(options, name)) is not None}
    for item in options.decode:
        key, equals, text = item.partition("=")
        if not equals or not key or key in found:
            what = "is said twice" if key in found else "is not of the form key=value"
            raise RecipeError(f"--decode {item}", what, "--decode outputs=[boxes, scores]")
        from edgecv import strict_yaml

        found[key] = strict_yaml.load(text, f"--decode {key}")[0]
    return found


def add_trust(command: Any) -> None:
    """`--trust`, of a command that opens Model folders."""
    command.add_argument(
        "--trust",
        action="store_true",
        help="run the code that a Model folder or a bundle of C source names",
    )


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits given on the command line. Raises RecipeError."""
    return checked({name: getattr(options, name) for name in NAMES})


def runner(
    options: argparse.Namespace, progress: Callable[..., None]
) -> Callable[[str, dict[str, Any], str], dict[str, Any]]:
    """run(module, job, where): a child module's answer, from this machine or from --device."""
    return running.runner(place(options), progress)


def place(options: argparse.Namespace) -> running.Place:
    """Where `--device` and what belongs to it say that jobs run."""
    if not getattr(options, "device", None):
        return running.Place()
    budget = getattr(options, "budget", 0.0)
    return running.Place(options.device, options.ssh_config, options.python, budget)
