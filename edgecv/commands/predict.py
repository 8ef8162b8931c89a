"""`edgecv predict`: what a bundle says of pictures, films and a camera. Works on a device."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.commands.common import Bar, add_trust, existing
from edgecv.errors import DataError
from edgecv.terminal import print_json_line, printable

if TYPE_CHECKING:
    from edgecv.predicting.answering import Answered
    from edgecv.predicting.answers import Answer, Predictor
    from edgecv.predicting.saving import Kept
    from edgecv.predicting.sources import Picture
    from edgecv.tasks.base import NotNumbers


# of the task, where it asks
ASKED = ("confidence", "iou", "max_detections", "agnostic", "threshold", "top")


def register(command: Any) -> None:
    made = command(
        "predict",
        run_predict,
        "Answer pictures, films or a camera with a bundle. Pictures that cannot be read are told "
        "and skipped: exit code 2 where there were any.",
        json_=False,
    )
    made.add_argument("bundle", type=existing, metavar="BUNDLE", help=".edgecv file")
    made.add_argument(
        "images", nargs="+", metavar="IMAGE|DIR|VIDEO|CAMERA",
        help="image files, folders of them, films (.mp4, .mov, .mkv, .avi, ...), or camera:0",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print one line of JSON for each image")
    made.add_argument(
        "--save", type=Path, metavar="DIR",
        help="keep pictures and films with what was said drawn on them; of a network without a "
        "task its outputs as .npz",
    )  # fmt: skip
    made.add_argument(
        "--confidence",
        type=float,
        metavar="C",
        help="least score of what is found, 0..1 (default: as the bundle says)",
    )
    made.add_argument(
        "--iou",
        type=float,
        metavar="I",
        help="overlap from which of two boxes the surer stays, 0..1 (likewise)",
    )
    made.add_argument(
        "--max-detections", type=int, metavar="N", help="boxes of one image, at the most (likewise)"
    )
    made.add_argument(
        "--agnostic",
        action="store_const",
        const=True,
        help="boxes of different classes suppress each other too (likewise)",
    )
    made.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="least score of a label, or of yes, 0..1 (likewise)",
    )
    made.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="classes that a classifier says of one image (default 10)",
    )
    made.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="of films and of a camera, one frame of N (default 1)",
    )
    made.add_argument("--threads", type=int, metavar="N", help="engine threads (default 1)")
    add_trust(made)


def run_predict(options: argparse.Namespace) -> int:
    """0, or 2 where a picture or a film could not be read."""
    from edgecv.api.predict import check, opened
    from edgecv.predicting.answering import answered
    from edgecv.tasks.base import NotNumbers

    asked = {key: getattr(options, key) for key in ASKED}
    check(options.bundle, asked, options.every, options.threads)
    predictor, sources, kept = opened(
        options.bundle, options.images, options.save, asked, options.every, options.threads
    )
    with Bar(f"{options.bundle.stem}") as bar:
        counts = [s.count for s in sources]
        total = None if None in counts else sum(c or 0 for c in counts)
        run = _Run(predictor, bar, options.json, total, NotNumbers())
        with closing(answered(predictor, sources, kept)) as answers:
            for one in answers:
                run.say(one)
    _close(run, kept)
    return 2 if run.failed else 0


@dataclass
class _Run:
    """total: pictures; None where only the end tells. latency: of each that was answered."""

    predictor: Predictor
    bar: Bar
    json: bool
    total: int | None
    lost: NotNumbers
    failed: int = 0
    latency: list[dict[str, float]] = field(default_factory=list)

    def say(self, one: Answered) -> None:
        if one.error is not None:
            self._fail(one.name, one.error)
        elif one.answer is not None and one.picture is not None:
            self._say(one.picture, one.answer, one.path)

    def _fail(self, name: str, error: DataError) -> None:
        self.failed += 1
        self.bar.clear()
        what = str(error) if error.where.startswith(name) else f"{name}: {error}"
        print(printable(f"error: {what}"), file=sys.stderr)
        if self.json:
            print_json_line({"image": name, "task": self.predictor.task, "error": str(error)})

    def _say(self, picture: Picture, answer: Answer, path: Path | None) -> None:
        from edgecv.predicting.answers import told

        self.latency.append(dict(answer.latency_ms))
        self.lost.add(answer.read)
        at = "" if picture.time_s is None else f" {picture.time_s:.3f} s"
        done = len(self.latency) + self.failed
        if self.json:
            line: dict[str, Any] = {"image": picture.name}
            if picture.frame is not None:
                line |= {"frame": picture.frame, "time_s": round(picture.time_s or 0.0, 6)}
            line |= {"task": self.predictor.task, "predictions": answer.predictions}
            line["latency_ms"] = {k: round(v, 4) for k, v in answer.latency_ms.items()}
            print_json_line(line | ({"saved": str(path)} if path else {}))
        else:
            self.bar.clear()
            print(f"{picture.name}{at}: {told(answer.predictions)}")
        self.bar(done, self.total or 0, f"{done}/{self.total or '?'} {picture.name}{at}")


def _close(run: _Run, kept: Kept | None) -> None:
    """How many, and the median time of each part."""
    from statistics import median

    from edgecv.predicting.answers import PARTS
    from edgecv.text_table import table

    if sentence := run.lost.sentence():
        print(f"note: {sentence}", file=sys.stderr)
    if not run.latency:
        return
    medians = [f"{median(row[part] for row in run.latency):.2f}" for part in PARTS]
    print()
    table(
        ("images", "failed", *(f"{part} ms" for part in PARTS)),
        [(str(len(run.latency)), str(run.failed), *medians)],
        right=range(5),
    )
    if kept:
        print(f"saved in {kept.folder}")
