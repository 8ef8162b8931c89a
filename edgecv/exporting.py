"""One network to a bundle for each target, with no recipe: what `edgecv export` does.

The command's options become a recipe of one step, so that export and run share every line of code
that matters; its results live in a temporary store and what is asked for is copied out.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgecv import backends as engines
from edgecv import (
    live_network,
    model_input,
    pipeline,
    pixel_units,
    reading_graph,
    results,
    target,
    tasks,
    zoo,
)
from edgecv.data.arrays import SUFFIXES as ARRAYS
from edgecv.data.files import tell
from edgecv.errors import BundleError, DataError, EdgecvError, RecipeError
from edgecv.execute import Reporter
from edgecv.graph_files import is_pinned
from edgecv.graphs.onnx.pins import Pins
from edgecv.limits import Limits, judge
from edgecv.measuring import facts as kept
from edgecv.measuring.facts import BundleFacts
from edgecv.model_source import ModelSource, source_of
from edgecv.recipe import NO_LIMITS, Recipe
from edgecv.recipe_data import Bench, Data
from edgecv.recipe_flow import Step, comes_as, offers, suits, takes
from edgecv.recipe_input import (
    check_decode,
    check_truth,
    labelled,
    task_of,
    unknown_drop,
    with_tables,
)
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.spec import TensorSpec, image_of
from edgecv.stages.export import Export
from edgecv.stages.quantize import Quantize
from edgecv.stages.restructure import Restructure
from edgecv.store import Store, disk_errors, publish
from edgecv.yaml_validation import checked

SYNTHETIC = 32
ACTIVATIONS = "activations"  # what the step before is called
# fields of tasks that have an option of their own
SHORT = ("decoder", "confidence", "iou", "max_detections", "agnostic", "priors", "form",
         "background", "nms")  # fmt: skip
# Field of a checked type -> the option that sets it.
OPTIONS = {
    "size": "--input-size",
    **{f: f"--{f.replace('_', '-')}" for f in (
        "samples", "opset", "mean", "std", "interpolation", "channels", "crop_pct", "keep_float",
        "name", "resize", "pad_value", "pad_at", "color", "units",
    )},
    "engine": "--quantizer",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What to export and how images become its input.

    model: a Model folder, a graph file, module:function or a zoo name; args: its builder's
    precision: None takes what a graph file comes in, else int8 with calibration and fp32 without
    targets: device profiles; what they can share is done once
    mean, std: in units of 0..255 pixels, or of 0..1 where they can be nothing else, or where
           `units` says so (`edgecv.pixel_units`); None takes the Model folder's own, or what
           published weights of the zoo expect, else 0 and 255
    resize, pad_value, pad_at, color, crop_pct, interpolation: as the runtime's Preprocess; None
           takes the Model folder's own, or its default
    size:  input side in pixels; None takes what the model says, else 224
    labels: names of the classes, or a file of one a line
    evaluate: source of test images ("imagefolder:DIR"), whose accuracy is measured
    keep_float: layers that int8 leaves out, by name
    quantizer: "edgecv" or "nncf", `engine` of the stage quantize; None leaves it to that
    activations: "hardswish", "relu6" or "relu" in the place of costlier ones (stage restructure);
          activations_share: of the numbers that these make, at most; None is all
    task: a name of `edgecv.tasks` or "none", for what `open_bundle(...)(image)` answers; None is
          inferred. decode: what is said of how its outputs are read, fields of the task's value
    limits:   what the result must meet; it is then compared with fp32, and timed
    pins:     what an .onnx file leaves open, and where it is cut; its size is `size`
    weights:  a file of weights for the network that a function or the zoo builds
    """

    model: str
    targets: tuple[str, ...]
    precision: str | None = None
    calibration: Path | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    units: pixel_units.Units | None = None
    resize: str | None = None
    pad_value: int | None = None
    pad_at: str | None = None
    color: str | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    labels: Path | tuple[str, ...] | None = None
    samples: int = 256
    keep_float: tuple[str, ...] = ()
    quantizer: str | None = None
    activations: str | None = None
    activations_share: float | None = None
    opset: int = 18
    name: str | None = None
    evaluate: str | None = None
    limits: Limits = NO_LIMITS
    args: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    decode: dict[str, Any] = field(default_factory=dict)
    pins: Pins = field(default_factory=Pins)
    weights: Path | None = None


@dataclass(frozen=True)
class Exported:
    """What was written. facts: as `edgecv.packing` found them.

    verdict: on the limits (`edgecv.limits.judge`), when there were any
    """

    bundle: Path
    files: tuple[Path, ...]
    facts: BundleFacts
    verdict: dict[str, Any] | None = None
    as_they_are: bool = False  # the file itself says what its pixels are
    understood: str = ""  # how mean and std were taken, where that was not to be taken for granted


def export(
    request: Request,
    out: Path,
    reporter: Reporter | None = None,
    store: Path | None = None,
    jobs: int | None = 1,
) -> dict[str, Exported | EdgecvError]:
    """Export, quantize, compile, prove, and write a bundle with the engine's files beside it for
    each target: what was written, or why it could not be, by target in the order asked for.

    store: a folder that keeps the steps for the exports to come; without it nothing is kept
    jobs: steps that are done at once, as `pipeline.run` has it
    Raises EdgecvError where no target got a bundle; nothing is written to `out` then.
    """
    pipeline.check_space(out)
    recipe = _recipe(request)
    with tempfile.TemporaryDirectory(prefix="edgecv-export-") as room:
        compare = bool(request.limits)
        kept_in = Store(store or Path(room))
        with _in_options():
            outcome = pipeline.run(recipe, out, reporter, kept_in, compare, jobs)
        step = recipe.steps[-1]
        ends = {t.name: f"bundle:{step.name}@{t.name}" for t in recipe.targets}
        failed: dict[str, EdgecvError] = {}
        for node in outcome.expansion.nodes.values():  # what limits are judged by counts too
            if node.kind in ("bundle", "measure") and node.target and node.id in outcome.failures:
                failed.setdefault(node.target.name, outcome.failures[node.id])
        if len(failed) == len(ends):
            raise next(iter(failed.values()))
        rows = results.collect(outcome)["results"] if compare else []
        names = {t: _file_name(request, recipe, t, out) for t in ends}
        found: dict[str, Exported | EdgecvError] = {}
        for t, end in ends.items():
            if t in failed:
                found[t] = failed[t]
                continue
            written = _write(outcome.folders[end], names[t], out)
            own = [r for r in rows if (r["step"], r["target"]) == (step.name, t)]
            found[t] = replace(
                written,
                as_they_are=request.std is None and recipe.data.std != (1.0,),
                understood=_understood(request, recipe.data),
                verdict=judge(request.limits, own) if compare else None,
            )
        return found


@contextmanager
def _in_options() -> Iterator[None]:
    """An error of a recipe's key names the option that stands for it."""
    try:
        yield
    except EdgecvError as e:
        e.where = {"data.test": "--evaluate", "data.train": "--calibration"}.get(e.where, e.where)
        raise


def _file_name(request: Request, recipe: Recipe, target: str, out: Path) -> str:
    """What the files are called: with the target's name where files for several share the folder.

    A name of the user's own is taken as it is for one target, unless another target's bundle has
    it already.
    """
    if request.name is None or len(recipe.targets) > 1:
        return f"{recipe.name}.{target}"
    path = out / f"{request.name}.edgecv"
    if not path.exists() or _target_of(path) == target:
        return request.name
    return f"{request.name}.{target}"


def _target_of(bundle: Path) -> str | None:
    """The target that a bundle was made for; None where it is no bundle."""
    try:
        return str(read_bundle(bundle).manifest["target"])
    except BundleError:
        return None


def _write(folder: Path, name: str, out: Path) -> Exported:
    facts = kept.read(folder)
    files = []
    with disk_errors(out):
        for source in sorted((folder / "engine").iterdir()):
            path = out / source.name.replace("model", name, 1)
            if engines.facts(facts.engine).folder:
                path = out / name / source.name
                path.parent.mkdir(parents=True, exist_ok=True)
            publish(source, path)
            files.append(path)
        bundle = out / f"{name}.edgecv"
        publish(folder / facts.bundle, bundle)
    return Exported(bundle, tuple(files), facts)


def _recipe(request: Request) -> Recipe:
    """The recipe of one step that the request amounts to."""
    task = _task(request)
    _check_task(request, task)
    profiles = tuple(target.load(name) for name in dict.fromkeys(request.targets))
    for profile in profiles if request.precision else ():
        offers(profile, request.precision or "", "--precision")
    for profile in profiles:
        asked = request.decode.get("nms") == "graph"
        reading_graph.check(profile.backend, asked, f"--nms: target {profile.name!r}")
    source = _source(request)
    for profile in profiles:
        takes(profile, source, "--target")
    known = model_input.known(source, request.size)
    precision = request.precision or ("int8" if request.calibration else known.get("precision"))
    precision = precision or "fp32"
    for profile in profiles:
        offers(profile, precision, "--precision")
    if known.get("precision") == "int8" and precision != "int8":
        raise RecipeError("--precision", f"{source.name} comes quantized",
                          "give --precision int8: it keeps the integers it came with, or bring the "
                          "float file")  # fmt: skip
    for option, given in (("keep-float", request.keep_float), ("quantizer", request.quantizer)):
        if given and precision != "int8":
            raise RecipeError(f"--{option}", f"all of {precision} is float", "leave it out")
    name = request.name or f"{_stem(source)}-{precision}"
    if precision != "fp32":
        own = known.get("precision") == "int8" or bool(known.get("learned"))
        if request.calibration is None and precision == "int8" and not own:
            raise DataError(
                "--calibration", "int8 needs images to calibrate on", "give a folder of images"
            )
        knobs = {
            "name": name,
            "precision": precision,
            "samples": request.samples,
            **({"keep_float": request.keep_float} if request.keep_float else {}),
            **({"engine": request.quantizer} if request.quantizer else {}),
            **request.limits.asked(),
        }
        stage = checked(Quantize, knobs, OPTIONS)
        if request.quantizer:
            for profile in profiles:
                suits(profile, stage, "--quantizer")
    else:
        stage = checked(Export, {"name": name, "opset": request.opset}, OPTIONS)
    images = bool(request.evaluate) and labelled(str(request.evaluate))
    read = not tasks.of_classes(task)
    if read and request.limits.accuracy_drop is not None and not images:
        raise unknown_drop(str(task), "--accuracy-drop", "--evaluate")
    decode = with_tables(request.decode, Path(), lambda key: f"--{key}")
    if decode:
        check_decode(str(task), decode, f"--task {task}")
    return Recipe(
        name=name,
        folder=Path(),
        model=source,
        data=_data(request, known),
        seed=0,
        threads=1,
        bench=Bench(),
        steps=_steps(request, source, Step(name, "model", stage)),
        targets=profiles,
        labels=_labels(request.labels) or tuple(known.get("labels") or ()) or None,
        task=task,
        decode=decode,
        limits=request.limits,
    )


def _steps(request: Request, source: ModelSource, last: Step) -> tuple[Step, ...]:
    """The last one behind that which replaces activations, where that is asked for."""
    if request.activations is None:
        if request.activations_share is not None:
            raise RecipeError("--activations-share", "no activation is named", "add --activations")
        return (last,)
    if comes_as(source) == "graph" or request.calibration is None:
        what = "takes an .onnx file or a PyTorch network, and images to learn from"
        hint = "give --calibration" if request.calibration is None else "bring it as .onnx"
        raise RecipeError("--activations", what, hint)
    said = {"into": request.activations, "share": request.activations_share}
    said = {key: value for key, value in said.items() if value is not None}
    stage = checked(Restructure, said, {"into": "--activations", "share": "--activations-share"})
    return Step(ACTIVATIONS, "model", stage), replace(last, source=ACTIVATIONS)


def _task(request: Request) -> str | None:
    """What the network is for: as is said; else by the zoo, where its network does one thing alone;
    by labels to judge it by; by what is said of how outputs are read, where one task reads so; and
    by the zoo's classifiers. None where nothing tells it."""
    if request.task is not None:
        return request.task
    name = request.model.removeprefix("zoo:")
    own = zoo.task(name) if name in zoo.names() else None
    if not tasks.of_classes(own):
        return own
    if request.evaluate and (found := task_of(request.evaluate)):
        return found
    read = [n for n in tasks.names() if request.decode.keys() <= {*tasks.task(n).knobs()}]
    return read[0] if request.decode and len(read) == 1 else own


def _check_task(request: Request, task: str | None) -> None:
    """Raises RecipeError: what is said of reading outputs is of another task, or of none; images
    to judge a task by that say something else."""
    named = request.task or (task if request.decode else None)
    if request.evaluate:
        check_truth(named, request.evaluate, "--evaluate")
    known = tasks.task(str(task)).knobs() if task in tasks.names() else ()
    for key in request.decode:
        if key in known:
            continue
        reads = [n for n in tasks.names() if key in tasks.task(n).knobs()]
        hint = f"say --task {' or --task '.join(reads)}" if reads else "docs/detection.md"
        hint = f"it has {', '.join(known)}" if known else hint
        whose = f"task {task} has none" if task else "no task is given"
        raise RecipeError(f"--{_option(key)}", whose, hint)


def _option(key: str) -> str:
    """How the command line says a field of a task."""
    return key.replace("_", "-") if key in SHORT else f"decode {key}"


def _source(request: Request) -> ModelSource:
    """What the request names, with its pins. Raises RecipeError where it is no .onnx file."""
    source, said = source_of(request.model, request.args, Path()), request.pins.to_json()
    taken = {"module": ("input", "batch"), "zoo": ("batch",)}.get(source.kind, ())
    said = {k: v for k, v in said.items() if k not in taken and v != "NCHW"}
    if said and not is_pinned(source.kind):
        word = next(iter(said))
        raise RecipeError(f"--{word}", f"is for .onnx files, and {request.model} is none",
                          "leave it out, or export the network to ONNX first")  # fmt: skip
    if request.weights is not None and source.kind not in ("module", "zoo"):
        raise RecipeError("--weights", f"{request.model} holds weights of its own",
                          "give the module:function that builds the network")  # fmt: skip
    return replace(source, pins=request.pins, weights=request.weights)


def _stem(source: ModelSource) -> str:
    """A file name from "zoo", "pkg.mod:make", "net.onnx" or a Model folder."""
    if source.is_graph or source.kind == "folder":
        return cleaned(Path(source.name).resolve().stem)
    if live_network.is_live(source.name):
        return cleaned(live_network.called(source.name))
    return cleaned(source.name.rpartition(":")[0].rpartition(".")[2] or source.name)


def cleaned(name: str) -> str:
    """A name as a step and its files can have it: "my model (1)" is "my-model-1", "été" is "ete".

    Of a name without any such letter stays "model" and a digest, so that two are not one.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    found = re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._")[:100]
    return found or f"model-{sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def _data(request: Request, known: dict[str, Any]) -> Data:
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
            **_geometry(request, known),
        },
        OPTIONS,
    )


def _geometry(request: Request, known: dict[str, Any]) -> dict[str, Any]:
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


def _understood(request: Request, data: Data) -> str:
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


def _labels(path: Path | tuple[str, ...] | None) -> tuple[str, ...] | None:
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
