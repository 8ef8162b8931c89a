"""The recipe of one step that a request amounts to."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from edgecv import reading_graph, target, tasks
from edgecv.errors import DataError, RecipeError
from edgecv.graph_files import is_pinned
from edgecv.limits import unknown_drop
from edgecv.models import live_network, model_input
from edgecv.models.model_source import ModelSource, source_of
from edgecv.plan.recipe import Recipe
from edgecv.plan.recipe_data import Bench
from edgecv.plan.recipe_flow import Step, comes_as, offers, suits, takes
from edgecv.plan.recipe_input import (
    check_decode,
    labelled,
    with_tables,
)
from edgecv.quick_export.images import data_of, labels_of
from edgecv.quick_export.request import OPTIONS, Request
from edgecv.quick_export.task import check_outputs, check_task, task_for
from edgecv.stages.export import Export
from edgecv.stages.quantize import Quantize
from edgecv.stages.restructure import Restructure
from edgecv.yaml_validation import checked

ACTIVATIONS = "activations"  # what the step before is called


def recipe_of(request: Request) -> Recipe:
    """The recipe of one step that the request amounts to."""
    task = task_for(request)
    check_task(request, task)
    profiles = tuple(target.load(name) for name in dict.fromkeys(request.targets))
    for profile in profiles if request.precision else ():
        offers(profile, request.precision or "", "--precision")
    for profile in profiles:
        asked = request.decode.get("nms") == "graph"
        reading_graph.check(profile.backend, asked, f"--nms: target {profile.name!r}")
    source = model_of(request)
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
    data, labels = data_of(request, known), labels_of(request.labels)
    check_outputs(source, known, task, labels, decode, data)
    return Recipe(
        name=name,
        folder=Path(),
        model=source,
        data=data,
        seed=0,
        threads=1,
        bench=Bench(),
        steps=_steps(request, source, Step(name, "model", stage)),
        targets=profiles,
        labels=labels or tuple(known.get("labels") or ()) or None,
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


def model_of(request: Request) -> ModelSource:
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
