"""`edgecv.predict`: what a bundle says of pictures, films and a camera. Works on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv import source_trust
from edgecv.api.bench import check_is_file
from edgecv.api.calling import StrPath, errors, one_or_several, path_of
from edgecv.errors import EdgecvError, RecipeError

if TYPE_CHECKING:
    from edgecv.predicting.answers import Predictor
    from edgecv.predicting.saving import Kept
    from edgecv.predicting.sources import Source


@dataclass(frozen=True)
class Answer:
    """What was said of one picture.

    image:       its file, or the film or camera that it is a frame of
    predictions: plain JSON, as `edgecv predict --json` prints it (docs/predict.md): of a classifier
                 [{"index", "label", "score"}, ...], of a detector with "box" in pixels, ...
    latency_ms:  of "preprocess", "engine" and "decode"
    frame:       from 0, and time_s from the beginning, of a film; None of a picture
    saved:       where it is kept; None where nothing is
    """

    image: str
    predictions: Any
    latency_ms: Mapping[str, float]
    frame: int | None = None
    time_s: float | None = None
    saved: Path | None = None


def predict(
    bundle: StrPath,
    images: StrPath | Sequence[StrPath],
    *,
    save: StrPath | None = None,
    confidence: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    agnostic: bool | None = None,
    threshold: float | None = None,
    top: int | None = None,
    every: int = 1,
    threads: int | None = None,
    trust: bool = False,
    failed: dict[str, EdgecvError] | None = None,
) -> Iterator[Answer]:
    """Answer pictures, films or a camera with a bundle, one after the other, as they are asked for.

    images:     image files, folders of them, films (.mp4, .mov, .mkv, ...), "camera:0"
    save:       a folder for them with what was said drawn on; of a network without a task its
                outputs as .npz
    confidence, iou, threshold: 0..1; max_detections, top, agnostic: what the bundle's task asks;
                None: as the bundle says
    every:      of films and of a camera, one frame of so many
    threads:    of the engine (default 1)
    trust:      compile a bundle of C source
    failed:     where a dict is given, the error of a picture that cannot be read is put there by
                its name, and the others are answered

    Raises at once RecipeError (a number out of range, a word that the task does not ask),
    StoreError (`save` cannot be written to), BundleError, DataError (no such file),
    MissingExtraError, EngineError, TrustError; and while it
    answers DataError: a picture that cannot be read; StoreError.
    """
    asked = {"confidence": confidence, "iou": iou, "max_detections": max_detections,
             "agnostic": agnostic, "threshold": threshold, "top": top}  # fmt: skip
    with errors("predict"), source_trust.telling(trust):
        check(Path(bundle), asked, every, threads)
        listed = [str(image) for image in one_or_several(images)]
        found = opened(Path(bundle), listed, path_of(save), asked, every, threads)
    return _answers(*found, failed)


def _answers(
    predictor: Predictor, sources: Sequence[Source], kept: Kept | None,
    failed: dict[str, EdgecvError] | None,
) -> Iterator[Answer]:  # fmt: skip
    from edgecv.predicting.answering import answered

    with errors("predict"), closing(answered(predictor, sources, kept)) as found:
        for one in found:
            if one.error is not None:
                if failed is None:
                    raise one.error
                failed[one.name] = one.error
            elif one.answer is not None and one.picture is not None:
                frame, time_s = one.picture.frame, one.picture.time_s
                said, latency = one.answer.predictions, one.answer.latency_ms
                yield Answer(one.name, said, latency, frame, time_s, one.path)


def check(bundle: Path, asked: Mapping[str, Any], every: int, threads: int | None) -> None:
    """Raises RecipeError: a number out of range, a folder in place of a bundle."""
    check_is_file(bundle)
    counts = {"max_detections": asked["max_detections"], "top": asked["top"], "every": every,
              "threads": threads}  # fmt: skip
    for key, value in counts.items():
        if value is not None and value < 1:
            raise RecipeError(f"--{key.replace('_', '-')}", f"is {value}", "at least 1")
    for key in ("confidence", "iou", "threshold"):
        if (value := asked[key]) is not None and not 0 <= value <= 1:
            raise RecipeError(f"--{key}", f"is {value}", "a number in 0..1")


def opened(
    bundle: Path, images: Sequence[str], save: Path | None, asked: Mapping[str, Any], every: int,
    threads: int | None,
) -> tuple[Predictor, list[Source], Kept | None]:  # fmt: skip
    """The bundle on its engine, what it is to answer, and the folder for answers."""
    from edgecv.files import check_folder
    from edgecv.predicting.answers import Predictor
    from edgecv.predicting.saving import Kept
    from edgecv.predicting.sources import source
    from edgecv.runtime.archive import read_bundle

    if save:
        check_folder(save, "--save")
    predictor = Predictor(read_bundle(bundle), threads, **asked)
    sources = [source(text, predictor.channels, every, save) for text in images]
    kept = None
    if save:
        kept = Kept(save, [path for s in sources for path in s.files], predictor.arrays)
    return predictor, sources, kept
