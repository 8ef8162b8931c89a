"""How each kind of node is made: inputs' folders in, a result folder out."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import data as datasets
from edgecv import edits, layer_selection, tasks
from edgecv.behaviour import MIXES
from edgecv.benchmark.machine import cpu_features
from edgecv.data.images import Images
from edgecv.errors import ModelError, RecipeError
from edgecv.graph import OWN, Graph
from edgecv.graph_files import SOURCE, graph_file, loader
from edgecv.measuring import facts
from edgecv.measuring.jobs import MeasureJob, PackJob, ProfileJob
from edgecv.measuring.run import Measuring
from edgecv.model_source import TORCH, ModelSource
from edgecv.nodes import Expansion, Node
from edgecv.recipe import Recipe
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import image_of, plain
from edgecv.stages.base import Context
from edgecv.store import digest
from edgecv.target import Target

log = logging.getLogger(__name__)
BATCH = 32  # pictures that a network which mixes them is shown together


@dataclass(frozen=True)
class Work:
    """One node to make.

    inputs:   role -> folder of a finished result
    images:   split -> folder of decoded images
    progress: called as progress(done, total, note)
    """

    expansion: Expansion
    node: Node
    inputs: dict[str, Path]
    images: dict[str, Path]
    out: Path
    progress: Callable[..., None]

    def preprocess(self) -> Preprocess:
        pixels = Images.load(self.images["train"]).pixels
        given = self.expansion.input()
        channels = int(pixels.shape[-1])
        for key in ("mean", "std"):
            if len(given[key]) not in (1, channels):
                what = f"{len(given[key])} values for images of {channels} channels"
                raise RecipeError(f"data.{key}", what, "give one value, or one per channel")
        return Preprocess(channels=channels, **given)

    def context(self) -> Context:
        recipe = self.expansion.recipe
        return Context(
            out=self.out,
            seed=recipe.seed,
            preprocess=self.preprocess(),
            images=lambda split: Images.load(self.images[split]),
            folders=self.images,
            labels=recipe.labels or Images.load(self.images["train"]).classes or self._judged(),
            inputs={r: self.inputs[r] for r in ("teacher", "student") if r in self.inputs}
            | self.node.facts.get("files", {}),
            target=self.node.target,
            threads=recipe.threads,
            alignment=recipe.alignment,
            targets=recipe.listed,
            progress=self.progress,
            where=self.node.step or self.node.id,
            doing=Measuring(),
            network=Path(recipe.model.name).name,
            task=recipe.task,
            decode=recipe.decode,
        )

    def _judged(self) -> tuple[str, ...] | None:
        """Names of what boxes, maps or numbers are judged by, where nothing else says them."""
        folder = self.images.get("test")
        test = Images.load(folder) if folder and self.expansion.recipe.task else None
        return (test.classes or None) if test is not None and test.truth is not None else None

    @property
    def on(self) -> Target:
        """The target of a node that has one."""
        assert self.node.target is not None
        return self.node.target


def make(work: Work) -> None:
    """Make a node's result in work.out. Raises EdgecvError."""
    MAKERS[work.node.kind](work)


def _data(work: Work) -> None:
    options = work.expansion.recipe.data
    split = work.node.facts["split"]
    datasets.materialise(
        work.expansion.source(split),
        split,
        options.height_width,
        options.channels,
        options.geometry(),
        work.out,
        work.progress,
    )
    if split == "test":
        train, test = Images.load(work.images["train"]), Images.load(work.out)
        if train.classes or not test.classes:
            datasets.check_same_classes(train, test)
        else:  # images that only calibrate say nothing of the network's outputs
            named = datasets.as_outputs(test, work.expansion.recipe.labels)
            named.save_labels(work.out)
            if named.truth is not None and named.truth is not test.truth:
                named.truth.save(work.out)  # boxes and maps hold their classes themselves


def _model(work: Work) -> None:
    """The network as it comes: built with the seed, or copied from where the user has it."""
    source = work.node.facts["model"]
    if source.kind in TORCH:
        _torch_file(work, source)
        return
    if source.is_graph:
        _graph_file(work, source)
        return
    import torch

    from edgecv.examples import TAKES, examples
    from edgecv.model import Model, check_finite, check_outputs

    preprocess, images = work.preprocess(), Images.load(work.images["train"])
    labels = work.expansion.recipe.labels or images.classes
    classes = len(labels) or None
    torch.set_num_threads(work.expansion.recipe.threads)
    torch.manual_seed(work.expansion.recipe.seed)
    if source.kind == "folder":
        model, module = Model.load(Path(source.name))
    else:
        builder, args = source.name, dict(source.args)
        if source.kind == "zoo":
            builder = f"zoo:{source.name}"
            args = {"channels": preprocess.channels, **args}
            wide = tasks.width(work.expansion.recipe.task, classes) if classes else None
            args = {"classes": wide, **args} if wide else args
        model = Model(builder, args)
        module = model.build(file=source.weights)
    check_finite(module, model.builder)
    trains = any(step.stage.produces == "model" for step in work.expansion.recipe.steps)
    if taken := source.pins.to_json():  # of several inputs, or of a batch
        if trains:
            what = "says what its inputs are: networks of one image are trained and changed"
            raise ModelError(model.builder, what, "only quantize and export it")
        model = model.with_facts(TAKES, taken)
    example = tuple(examples(module, taken, preprocess, model.builder).values())
    check_outputs(
        module, model.builder, example, classes, trains, _reads(work, preprocess, classes)
    )
    mixes = ""
    if len(example) == 1 and example[0].ndim == 4:
        mixes = _check_behaviour(work.expansion.recipe, model.builder, module, preprocess)
    if mixes:
        model = model.with_facts("model", {"mixes": mixes})
    _check_layer_names(work.expansion.recipe, module)
    for name in _timed_in_float(work.expansion.recipe):
        log.warning("%s: is timed in fp32 and ships in int8: `precision: int8` times that", name)
    described = Model(
        model.builder, model.args, model.edits, preprocess.to_json(), labels or None, model.facts
    )
    described.save(work.out, module)


def _reads(work: Work, preprocess: Preprocess, classes: int | None) -> Any:
    """How another task than classification reads what the network returns; None of a classifier."""
    from edgecv.task_score import task_of

    recipe = work.expansion.recipe
    if tasks.of_classes(recipe.task):
        return None
    return lambda result: task_of(str(recipe.task), result, preprocess.size, classes, recipe.decode)


def _check_behaviour(recipe: Recipe, where: str, module: Any, preprocess: Preprocess) -> str:
    """How a network mixes its batch; "" where it does not, or takes no batch.

    Raises ModelError for one that is random, or that mixes its batch and is to be trained or judged
    in batches; where it is exported alone it answers as devices ask, and that is said.
    """
    from edgecv.behaviour import check_random, mixing

    shape = (preprocess.channels, *preprocess.size)
    check_random(module, where, shape)
    if not (why := mixing(module, shape)):
        return ""
    if any(step.stage.produces == "model" for step in recipe.steps):
        raise ModelError(
            where,
            why,
            "use a BatchNorm with running statistics, in eval mode, or `export` it alone",
        )
    log.warning("%s: %s; what is exported takes one picture at a time", where, why)
    return why if MIXES in why else ""


def _check_layer_names(recipe: Recipe, module: Any) -> None:
    """Raises RecipeError now for a name that a step would look for in vain, hours later."""
    every, same = layer_selection.layers(module), {"model"}
    for step in recipe.steps:
        if step.source in same:
            layer_selection.named(step.stage.layer_names(), every, step.name)
            if not step.stage.renames and step.student is None:
                same.add(step.name)


def _timed_in_float(recipe: Recipe) -> Iterator[str]:
    """Steps that measure a float network of which int8 alone ships: other widths are fast there."""
    for step in recipe.steps:
        readers = [s.stage for s in recipe.steps if s.source == step.name]
        integers = [getattr(s, "precision", "") == "int8" and s.per_target for s in readers]
        floats = getattr(step.stage, "precision", "") == "fp32" and not step.stage.ship
        if floats and integers and all(integers) and step.stage.measures(recipe.targets):
            yield step.name


def _graph_file(work: Work, source: ModelSource) -> None:
    """A clean copy and not the file: weights that lie beside it come along, and what is wrong
    with it is said under its own name."""
    preprocess, path = work.preprocess(), Path(source.name)
    pins = replace(source.pins, size=preprocess.size)
    graph = import_module(loader(source.kind)).load(path, work.out, pins)
    _check_input(path.name, graph, preprocess)
    _check_normalisation(path.name, graph, preprocess)
    images = Images.load(work.images["train"])
    recipe = work.expansion.recipe
    classifies = images.truth is None and recipe.task in (None, "classification")
    if tuple(graph.facts.get("input", {}).get("labels") or ()) == recipe.labels:
        # a file that names its classes may hold boxes: nobody has said that it classifies
        classifies &= kinds(graph.outputs)[graph.outputs[0].name] == "classes"
    classes = len(recipe.labels or images.classes) if classifies else 0
    shape = plain(graph.outputs[0]).shape or (1,)
    outputs = shape[1] if len(shape) == 4 else shape[-1]
    if classes and outputs != classes:
        raise ModelError(
            path.name,
            f"has {outputs} outputs and the data {classes} classes",
            "use the data it was made for; data: {images: FOLDER} asks for no classes",
        )
    kept = graph.copied(work.out, SOURCE)
    for old in graph.beside:
        old.unlink()
    kept.save_facts()
    (work.out / OWN).write_text(json.dumps(graph.facts["own"], sort_keys=True))


def _torch_file(work: Work, source: ModelSource) -> None:
    """A file of torch.jit.save or torch.export.save as an .onnx file."""
    import torch

    from edgecv.torchfiles.convert import to_onnx

    torch.set_num_threads(work.expansion.recipe.threads)
    preprocess = work.preprocess()
    image = (1, preprocess.channels, *preprocess.size)
    with tempfile.TemporaryDirectory(prefix="edgecv-torch-") as room:
        path = to_onnx(Path(source.name), Path(room), image, source.pins.inputs)
        _graph_file(work, ModelSource("onnx", str(path), {}))


def _check_input(name: str, graph: Graph, preprocess: Preprocess) -> None:
    """Raises ModelError where the file takes images of another shape than the data's."""
    if (image := image_of(graph.inputs)) is None:
        return
    _, channels, *sides = plain(image).shape
    if (channels, *sides) != (preprocess.channels, *preprocess.size):
        made = f"{preprocess.size[0]}x{preprocess.size[1]} with {preprocess.channels}"
        what = f"takes images of {sides[0]}x{sides[1]} with {channels} channels, the data is {made}"
        raise ModelError(name, what, "data.size and data.channels as the file has them")


def _check_normalisation(name: str, graph: Any, preprocess: Any) -> None:
    """A file that takes bytes normalises them itself: mean 0, and a std that undoes 0..1."""
    plain = not any(preprocess.mean) and all(abs(s - 1) < 1e-6 for s in preprocess.std)
    if graph.facts.get("takes") == "bytes" and not plain:
        raise ModelError(
            name,
            "takes pixels as they are (uint8), and normalises them itself",
            "data.units: 0..255, data.mean: 0 and data.std: 1",
        )


def _stage(work: Work) -> None:
    stage = work.node.stage
    assert stage is not None
    source: Any
    if "graph" in work.inputs:
        from edgecv.graph import Graph

        source = Graph.load(work.inputs["graph"])
    elif (file := graph_file(work.inputs["model"])) is not None:
        source = file
    else:
        from edgecv.model import Model

        source = Model.load(work.inputs["model"])
        if planned := stage.planned(work.node.step):
            edits.check(planned, source[0].edits)
        if stage.fills and any(edit["op"] == "connections" for edit in source[0].edits):
            log.warning("%s: trains what sparsify took out again: sparsify last", work.node.step)
    stage.run(source, work.context())


def _bundle(work: Work) -> None:
    node, test = work.node, Images.load(work.images["test"])
    # Where nothing is compared, images without labels only calibrate.
    judged = bool(test.classes) or work.expansion.compare
    job = PackJob.of(
        work.context(), work.inputs["graph"], f"{node.step}.{work.on.name}", work.out, judged
    )
    job = replace(
        job,
        floats=work.inputs.get("float"),
        judged=work.images["test"],
        trained=_trained(work),
        test_digest=images_digest(work.expansion.nodes["data:test"]),
        made_from=work.expansion.nodes[node.inputs["graph"]].digest,
    )
    found = Measuring().pack(job, node.id.removeprefix("bundle:"))
    if work.expansion.compare:  # else the command itself tells
        told = Graph.load(work.inputs["graph"]).facts.get("warnings", [])  # when it was made
        for note in found.warnings:
            if note not in told:
                log.warning("%s on %s: %s", node.step, work.on.name, note)
    facts.write(work.out, found)


def _trained(work: Work) -> float | None:
    """Top-1 in PyTorch of the network that a float bundle holds, on data.test: as the step that
    trained it found, or of one that mixes its batch, in batches. None where it is not known."""
    folder = work.inputs.get("network")
    if folder is None or not (folder / "model.json").is_file():
        return None
    from edgecv.model import Model

    model = Model.read(folder)
    if "mixes" in model.facts.get("model", {}):
        return _in_batches(work, folder)
    found = model.facts.get(work.node.inputs["network"], {}).get(work.context().metric)
    return float(found) if isinstance(found, int | float) else None


def _in_batches(work: Work, folder: Path) -> float | None:
    """Top-1 of a network on data.test as its user would measure it: shuffled, many at a time."""
    from edgecv.model import Model
    from edgecv.training import judged

    test = Images.load(work.images["test"])
    if not test.classes or test.truth is not None:  # top-1 is of classes alone
        return None
    order = np.random.default_rng(work.expansion.recipe.seed).permutation(len(test))
    mixed = replace(test, pixels=test.pixels[order], labels=test.labels[order])
    return judged(Model.load(folder)[1], mixed, work.context(), BATCH)


def images_digest(node: Node) -> str:
    """Which images a data node holds, as pixels: equal for two bundles tested on the same ones."""
    pixels = ("content", "size", "channels", "crop_pct", "interpolation",
              "resize", "pad_value", "pad_at")  # fmt: skip
    return digest({key: node.key[key] for key in pixels if key in node.key})


def _measure(work: Work) -> None:
    """Latencies of the bundles that run here, against the first (the fp32 reference).

    Where this machine is not the target's and its profile names a device, they are measured there.
    """
    from edgecv.measuring.away import Away

    recipe, target = work.expansion.recipe, work.on
    runnable = []
    for role in sorted(work.inputs, key=int):
        found = facts.read(work.inputs[role])
        if found.executed and found.compiled:
            runnable.append(work.inputs[role] / found.bundle)
    answer: dict[str, Any] = {"bundles": []}
    away = target.not_here(cpu_features())
    if runnable and (target.device or not away):
        measuring = Away(target, 3600.0 + recipe.bench.budget_s) if away else Measuring()
        plan = {"threads": target.threads, "seed": recipe.seed, **recipe.bench.model_dump()}
        where, bundles = work.node.id, tuple(runnable)
        answer = measuring.measure(MeasureJob(bundles, plan), where, work.progress)
        profiled = ProfileJob(bundles, target.threads)
        profiles = measuring.profile(profiled, where, work.progress)
        for row, profile in zip(answer["bundles"], profiles, strict=True):
            row["layers"], row["no_times"] = profile["layers"], profile["reason"]
    facts.write(work.out, answer)


MAKERS: dict[str, Callable[[Work], None]] = {
    "data": _data,
    "model": _model,
    "stage": _stage,
    "bundle": _bundle,
    "measure": _measure,
}
