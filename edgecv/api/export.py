"""`edgecv.export`: a network to a bundle for each target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from edgecv import source_trust
from edgecv.api.calling import Progress, Steps, StrPath, one_or_several, public, spelled
from edgecv.api.export_options import ExportOptions, check, request_of
from edgecv.errors import BudgetError, EdgecvError, RecipeError

if TYPE_CHECKING:
    from torch import nn

    from edgecv.quick_export import Exported, Request
    from edgecv.runtime.bundle import Bundle as Opened


@dataclass(frozen=True)
class Bundle:
    """A .edgecv file that was made, and what is known of it. It is a path (`os.PathLike`).

    path:        the bundle; files: the engine's own files beside it
    target:      the device profile; engine: what computes it there; precision: "int8", ...
    size_bytes:  of the bundle; engine_bytes: of the engine's files in it
    sqnr_db:     of its outputs against the float network, the worst of several; None: not known
    metric:      {"name", "value" (0..1), "samples"} on `evaluate`'s images, or None; "reference":
                 fp32's value on the same engine and images, where this is not fp32 itself
    executed:    precision -> layers that the engine ran in it; {} where it did not run here
    reason:      why it did not run here; "" where it did
    notes:       what was found on the way, a sentence each
    data:        everything, as `edgecv export --json` prints it
    """

    path: Path
    files: tuple[Path, ...]
    target: str
    engine: str
    precision: str
    size_bytes: int
    engine_bytes: int
    sqnr_db: float | None
    metric: Mapping[str, Any] | None
    executed: Mapping[str, int]
    reason: str
    notes: tuple[str, ...]
    data: Mapping[str, Any] = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.path)

    def open(self, threads: int | None = None) -> Opened:
        """The network on its engine, as `edgecv.open_bundle` gives it."""
        from edgecv.runtime.bundle import open_bundle

        return open_bundle(self.path, threads)


@public
def export(
    model: StrPath | nn.Module,
    targets: str | Sequence[str],
    *,
    out: StrPath,
    progress: Progress | None = None,
    failed: dict[str, EdgecvError] | None = None,
    jobs: int | None = 1,
    **options: Unpack[ExportOptions],
) -> list[Bundle]:
    """Export, quantize, compile and prove a network: a bundle for each target, in their order.

    model:    a zoo name, "module:function", a graph file, a Model folder; or a torch.nn.Module,
              with `input_size` (one image, float32 (1, C, H, W)) or `input` (several, by name)
    targets:  names of device profiles (`edgecv targets`); what they can share is done once
    out:      the folder for the bundles and the engines' files, made if it is not there
    progress: called as progress(done, total, note), in steps
    failed:   where a dict is given, the error of a target that got no bundle, or none within the
              limits, is put there by the target's name, and the others are returned
    jobs:     steps that are done at once, each in a process of its own, measurements alone; None:
              as many as there are cores for. A network that is an object is worked on in this one
    options:  the words of `edgecv.api.export_options.ExportOptions`

    Raises EdgecvError of the first target that failed, once all were tried: UnsupportedError,
    MissingExtraError, BudgetError (its nearest bundle is in `out`), ...; RecipeError, ModelError,
    DataError before anything is made.
    """
    from edgecv import quick_export

    check(options, "edgecv.export")
    trust = options.pop("trust", False)
    with taken(model, options) as (name, words), source_trust.telling(trust):
        request = request_of(name, one_or_several(targets), words)
        found = quick_export.export(request, Path(out), Steps(progress), jobs=jobs)
    written = {t: one for t, one in found.items() if not isinstance(one, EdgecvError)}
    notes = tuple(map(spelled, remarks(request, written)))
    made: list[Bundle] = []
    errors: dict[str, EdgecvError] = {}
    for target, one in found.items():
        error = one if isinstance(one, EdgecvError) else _unmet(one)
        if error:
            errors[target] = error
        else:
            made.append(described(target, written[target], notes))
    if failed is not None:
        failed.update(errors)
    elif errors:
        raise next(iter(errors.values()))
    return made


def _unmet(made: Exported) -> BudgetError | None:
    """The limits that it does not meet."""
    from edgecv.limits import sentence

    if not made.verdict or made.verdict["met"]:
        return None
    return BudgetError(str(made.bundle), sentence(made.verdict), "allow more, or less of the rest")


def remarks(request: Request, made: Mapping[str, Exported]) -> Iterator[str]:
    """What to know of a request where something was taken that it does not say, a sentence each."""
    from edgecv.models import zoo
    from edgecv.models.zoo import published

    name = request.model.removeprefix("zoo:")
    if request.model in zoo.names() and not (request.weights or request.args.get("pretrained")):
        yield "a zoo network without --arg pretrained=true has random weights"
    if expected := published.of(name, request.args):
        yield f"what is not given is as {name}'s weights were {expected.sentence()}"
    elif not any(one.as_they_are for one in made.values()) and (
        request.mean is None and request.std is None and not _says_itself(Path(request.model))
    ):
        yield "pixels are scaled to 0..1; give --mean and --std if it was trained otherwise"
    yield from dict.fromkeys(one.understood for one in made.values() if one.understood)
    for drawn in dict.fromkeys(one.random for one in made.values() if one.random):
        yield (
            f"the weights of {request.model} are random (built twice, {drawn} differ): give "
            "--weights FILE with trained ones"
        )


def _says_itself(model: Path) -> bool:
    """Whether it is a Model folder, which holds how pixels become its input."""
    return model.is_dir() and (model / "model.json").exists()


def described(target: str, made: Exported, notes: Sequence[str]) -> Bundle:
    """What was written for a target. notes: of all together"""
    from edgecv.runtime.archive import read_bundle

    facts = made.facts
    against = facts.parity["float"] or facts.parity["graph"]
    return Bundle(
        path=made.bundle,
        files=made.files,
        target=target,
        engine=facts.engine,
        precision=str(read_bundle(made.bundle).manifest["precision"]),
        size_bytes=facts.size_bytes,
        engine_bytes=facts.engine_bytes,
        sqnr_db=against["sqnr_db"] if against else None,
        metric=facts.metric,
        executed=facts.executed,
        reason=facts.reason,
        notes=tuple(dict.fromkeys((*facts.notes, *facts.warnings, *notes))),
        data=data_of(made),
    )


def data_of(made: Exported) -> dict[str, Any]:
    """Plain JSON of what was written for a target."""
    files = [str(p) for p in made.files]
    more = {"bundle": str(made.bundle), "files": files, "limits": made.verdict}
    return {**made.facts.to_json(), **more}


@contextmanager
def taken(
    model: StrPath | nn.Module, options: ExportOptions
) -> Iterator[tuple[str, ExportOptions]]:
    """The name of a network and the words meanwhile, with what comes as an object held or written
    where names can be given of it."""
    with ExitStack() as stack:
        words = options.copy()
        calibration = words.get("calibration")
        if not isinstance(calibration, str | os.PathLike | None):
            words["calibration"] = stack.enter_context(_written(calibration))
        if isinstance(model, str | os.PathLike):
            yield os.fspath(model), words
            return
        from edgecv.api import ready
        from edgecv.models import live_network

        if known := ready.of(model):
            name, words = stack.enter_context(ready.held(model, known, words))
        else:
            name, words = stack.enter_context(live_network.held(model)), ready.sized(words)
        yield name, words


@contextmanager
def _written(images: Any) -> Iterator[Path]:
    """A file of images that are given as an array. Raises RecipeError: they are no such array."""
    import numpy as np

    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim in (3, 4):
        with tempfile.TemporaryDirectory(prefix="edgecv-images-") as room:
            path = Path(room) / "images.npy"
            np.save(path, images, allow_pickle=False)
            yield path
        return
    what = f"takes a path or uint8 images (N, H, W, C), found {type(images).__name__}"
    if isinstance(images, np.ndarray):
        what = f"takes uint8 (N, H, W, C), found {images.dtype} {images.shape}"
    raise RecipeError("--calibration", what, "pixels of 0..255 as they are, before mean and std")
