"""A recipe, expanded into nodes: what is made from what, under which key, and by which code.

    data:train, data:test   decoded images            model         the network as it comes
    <step>                  a Model (train, prune)     <step>.onnx   an exported Graph
    <step>@<target>         a quantized Graph          bundle:<step>@<target>
    measure:<target>        latencies of a target's bundles, interleaved
    <step>:student          the network that `student:` of a distillation names, as it comes

A node's key holds everything its result depends on: inputs' digests, parameters, seed, data, the
code that runs and the versions of the libraries that this touches, both found by following imports
(`edgecv.keys.closure`). All keys are known before anything runs, which is what `plan` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv import data as datasets
from edgecv import tasks
from edgecv.backends import reference
from edgecv.benchmark.machine import cpu_features, processor
from edgecv.graph_files import reader
from edgecv.keys.closure import code, maker
from edgecv.limits import Limits
from edgecv.models.model import check_reference, source_digest
from edgecv.models.model_source import ModelSource
from edgecv.plan.node import Node
from edgecv.plan.node_keys import edit_modules, file_digest, found_source, made_by, stage_key
from edgecv.plan.recipe import Recipe
from edgecv.plan.recipe_flow import Step, graph_format
from edgecv.plan.recipe_input import labelled
from edgecv.plan.store import Key
from edgecv.stages.base import Limited, Stage
from edgecv.stages.export import Export
from edgecv.target import Target

# What of a target no bundle depends on: words, pruning's grid, and where one is to be found.
NOT_IN_BUNDLES = {"description", "alignment", "device", "device_python"}
MEASURING, AWAY = ("edgecv.benchmark.measure", "edgecv.benchmark.profile"), "edgecv.measuring.away"

ONNX_TEACHER = "edgecv.methods.distillation.teacher_onnx"


class Expansion:
    """Builds the nodes of a recipe in an order in which each comes after its inputs."""

    def __init__(self, recipe: Recipe, compare: bool = True, judge: bool = False) -> None:
        """compare: also build fp32 references and measure latencies; judge: one for each engine"""
        self.recipe, self.compare, self.judge = recipe, compare, judge
        self.nodes: dict[str, Node] = {}
        self._environments: dict[str, dict[str, Any]] = {}  # by backend, read once
        for split in ("train", "test"):
            self._data(split)
        self._model("model", recipe.model)
        for step in recipe.steps:
            if step.stage.produces == "model":
                self._stage(step)
        for target in recipe.targets:
            self._target(target)

    def _add(self, node: Node) -> str:
        node.key["code"] = node.key["code"] | maker(node.kind)
        self.nodes.setdefault(node.id, node)
        return node.id

    def _digests(self, inputs: dict[str, str]) -> dict[str, str]:
        return {role: self.nodes[name].digest for role, name in inputs.items()}

    def source(self, split: str) -> str:
        """data.train or data.test with its path found."""
        return found_source(getattr(self.recipe.data, split), self.recipe.folder)

    def _data(self, split: str) -> None:
        options = self.recipe.data
        key: Key = {
            "kind": "data",
            "content": datasets.fingerprint(self.source(split), split),
            "size": list(options.height_width),
            "channels": options.channels,
            **options.geometry(),
        }
        kind = datasets.parse(self.source(split)).kind
        key |= code(("edgecv.data", f"edgecv.data.{kind}"), reads=(kind,))
        if split == "test":
            key["labels"] = self.recipe.labels
        self._add(Node(f"data:{split}", "data", {}, key, facts={"split": split}))

    def _model(self, name: str, model: ModelSource) -> str:
        inputs = {"train": "data:train"}
        key: Key = {"kind": "model", "inputs": self._digests(inputs), "args": model.args}
        key |= {"input": self.input(), "labels": self.recipe.labels}
        key |= code(("edgecv.models.model", *made_by(model), *self._task_modules()))
        if not tasks.of_classes(self.recipe.task):  # it says how many outputs there are
            key["task"] = self.recipe.task
        if model.kind == "module":
            check_reference(model.name, model.args)
        if model.kind in ("zoo", "module"):
            builder = model.name if model.kind == "module" else f"zoo:{model.name}"
            key |= {"builder": builder, "seed": self.recipe.seed}
            if model.kind == "module":
                key["network"] = source_digest(builder)
            if model.weights is not None:
                key["weights"] = file_digest(model.weights)
        else:
            key["content"] = file_digest(Path(model.name))
            key |= {"pins": said} if (said := model.pins.to_json()) else {}
        return self._add(Node(name, "model", inputs, key, facts={"model": model}))

    def input(self) -> dict[str, Any]:
        """How pixels become input, as the recipe says (the channels come with the data)."""
        d = self.recipe.data
        return {
            "size": list(d.height_width),
            "mean": [round(255.0 * v, 6) for v in d.mean],
            "std": [round(255.0 * v, 6) for v in d.std],
            **d.geometry(),
            **({"color": "bgr"} if d.color == "bgr" else {}),
        }

    def _stage(self, step: Step) -> None:
        inputs = {"model": step.source, **{s: f"data:{s}" for s in step.stage.splits}}
        facts: dict[str, Any] = {}
        if step.student:
            inputs["student"] = self._model(f"{step.name}:student", step.student)
        if step.teacher:
            inputs["teacher"] = step.teacher
        measured = step.stage.measures(self.recipe.listed)
        taught = self._teaching(step)
        judged = self._task_modules() if step.stage.learns_labels() else ()
        key = {**stage_key(step.stage, measured, also=(*taught, *judged)),
               "inputs": self._digests(inputs), **(self._task() if judged else {})}  # fmt: skip
        key |= {"seed": self.recipe.seed, "threads": self.recipe.threads, "name": step.name}
        if step.stage.word in ("prune", "lowrank"):
            key["alignment"] = self.recipe.alignment
        if measured:
            key["targets"] = [t.model_dump(mode="json", exclude=NOT_IN_BUNDLES) for t in measured]
            key["machine"] = processor(max(t.threads for t in measured))
        if step.teacher_file:
            key["teacher"] = {"content": file_digest(step.teacher_file)}
            facts["files"] = {"teacher": step.teacher_file}
        made = Node(
            step.name, "stage", inputs, key, step.stage, step.name,
            facts=facts, measures=bool(measured),
        )  # fmt: skip
        self._add(made)

    def _teaching(self, step: Step) -> tuple[str, ...]:
        """Modules that bring a step its teacher, where one comes from outside."""
        if step.teacher_file and step.teacher_file.is_dir():
            return edit_modules(step.teacher_file)
        from_file = step.teacher == "model" and self.recipe.model.is_graph
        return (ONNX_TEACHER,) if step.teacher_file or from_file else ()

    def _target(self, target: Target) -> None:
        first = next(t for t in self.recipe.targets if t.backend == target.backend)
        beside = self.compare or (self.judge and target is first)
        names = [n for n in self.measured(beside) if self.precision(n) in target.precisions]
        bundles = [self._bundle(name, target) for name in names]
        if not self.compare:
            return
        inputs = {str(i): name for i, name in enumerate(bundles)}
        key = {
            "kind": "measure",
            "inputs": self._digests(inputs),
            "threads": self.recipe.threads,
            "bench": self.recipe.bench.model_dump(),
            "machine": processor(target.threads),
            "device": target.device,
            **code((*MEASURING, *([AWAY] if target.device else [])), (target.backend,)),
        }
        name = f"measure:{target.name}"
        self._add(Node(name, "measure", inputs, key, target=target, measures=True))

    def measured(self, beside: bool = True) -> Iterator[str]:
        """Names of the steps that become bundles: references, if beside, then what is shipped."""
        shipped = [s.name for s in self.recipe.shipped()]
        references = map(self.reference, shipped) if beside else ()
        yield from dict.fromkeys([*references, *shipped])

    def reference(self, name: str) -> str:
        """The float network that a step is compared with: what its chain was before compression,
        or who taught its student."""
        chain = [name]
        while chain[-1] != "model":
            chain.append(self.recipe.step(chain[-1]).source)
        for after, before in zip(reversed(chain[:-1]), reversed(chain), strict=False):
            step = self.recipe.step(after)
            if step.stage.compresses:
                return before
            if step.student and not step.teacher_file:
                return step.teacher or before
        return name

    def precision(self, name: str) -> str:
        stage = None if name == "model" else self.recipe.step(name).stage
        return str(getattr(stage, "precision", "fp32"))

    def _bundle(self, name: str, target: Target) -> str:
        step = None if name == "model" else self.recipe.step(name)
        quantized = step is not None and step.stage.word == "quantize"
        graph = self._quantized(step, target) if quantized and step else self._graph(name, target)
        inputs = {"graph": graph, "train": "data:train", "test": "data:test"}
        if quantized and step:
            inputs["float"] = self._graph(step.source, target)
        else:
            inputs["network"] = self.nodes[graph].inputs["model"]  # whose accuracy is known
        engine = import_module(f"edgecv.backends.{target.backend}")
        key = {
            "kind": "bundle",
            "inputs": self._digests(inputs),
            "input": self.input(),
            "target": target.model_dump(mode="json", exclude=NOT_IN_BUNDLES),
            "environment": self._environment(target.backend, engine),
            **code(
                ("edgecv.bundling.build", *self._task_modules()),
                (target.backend, reference(self._format(target))),
            ),
            "name": name,
            "labels": self.recipe.labels,
            **self._task(),
        }
        made = Node(
            f"bundle:{name}@{target.name}", "bundle", inputs, key,
            step=name, target=target, precision=self.precision(name),
        )  # fmt: skip
        return self._add(made)

    def _task(self) -> Key:
        """What the recipe says of the network's task; nothing where it says nothing."""
        said = {"task": self.recipe.task, "decode": dict(self.recipe.decode)}
        return {k: v for k, v in said.items() if v}

    def _task_modules(self) -> tuple[str, ...]:
        named = self.recipe.task in tasks.names()
        return (f"edgecv.tasks.{self.recipe.task}",) if named else ()

    def _environment(self, backend: str, engine: Any) -> dict[str, Any]:
        if backend not in self._environments:
            found = engine.environment() if hasattr(engine, "environment") else {}
            self._environments[backend] = found
        return self._environments[backend]

    def _quantized(self, step: Step, target: Target) -> str:
        inputs = {"graph": self._graph(step.source, target), "train": "data:train"}
        limited = isinstance(step.stage, Limited) and bool(step.stage.limits)
        asked = not tasks.of_classes(self.recipe.task)
        nameless = not self.recipe.labels and not labelled(self.recipe.data.train)
        # judged as what ships is; of other tasks, labels that judge may say which classes there are
        if limited or (asked and nameless):
            inputs["test"] = "data:test"
        return self._per_target(f"{step.name}@{target.name}", step.stage, step.name, inputs, target)

    def _graph(self, name: str, target: Target) -> str:
        """The node of a step's float graph in the target's format, which targets share."""
        node = f"{name}.{self._format(target)}"
        if node in self.nodes:
            return node
        step = None if name == "model" else self.recipe.step(name)
        explicit = step is not None and step.stage.word == "export"
        stage = step.stage if explicit and step else Export()
        source = step.source if explicit and step else name
        inputs = {"model": source, "train": "data:train"}
        return self._per_target(node, stage, name, inputs, target)

    def _format(self, target: Target) -> str:
        """The format in which the recipe's network reaches a target's engine."""
        return graph_format(target, self.recipe.model)

    def _read_for(self, target: Target) -> tuple[str, ...]:
        """The module that makes a graph for the target of a file in another format."""
        kind = self.recipe.model.format
        name = reader(kind) if kind != self._format(target) else ""
        return (name,) if name else ()

    def _per_target(
        self, name: str, stage: Stage, step: str, inputs: dict[str, str], target: Target
    ) -> str:
        limits = stage.limits if isinstance(stage, Limited) else Limits()
        read = self._read_for(target) if stage.word == "export" else ()
        other = not tasks.of_classes(self.recipe.task)  # export: what rows are; quantize: fidelity
        read += self._task_modules() if limits or other else ()
        key = {**stage_key(stage, (target,) if limits else (), self._format(target), also=read)}
        key |= {"inputs": self._digests(inputs), "input": self.input()}
        key["target"] = stage.target_key(target)
        if other:
            key |= self._task() if stage.word == "quantize" else {"task": self.recipe.task}
            key |= {"labels": self.recipe.labels} if stage.word == "quantize" else {}
        if limits:
            key |= {"target": target.model_dump(mode="json", exclude=NOT_IN_BUNDLES)}
            key |= {"machine": {"features": cpu_features()}, "seed": self.recipe.seed}
            key |= self._task()
            if limits.latency_ms or limits.latency_ratio:
                key["machine"] = processor(target.threads)
        # a search may profile layers, whatever its limits are
        made = Node(name, "stage", inputs, key, stage, step, target, measures=bool(limits))
        return self._add(made)
