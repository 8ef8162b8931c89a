"""plan, run, explain: what would be made and why; making it; resuming after a kill."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgecv import builder_trust, making, source_trust
from edgecv.errors import (
    DeviceError,
    DeviceLostError,
    EdgecvError,
    EngineError,
    MissingExtraError,
    ParityError,
    StoreError,
    UnsupportedError,
)
from edgecv.measuring import facts
from edgecv.nodes import Expansion, Node
from edgecv.recipe import Recipe
from edgecv.store import Key, Store, disk_errors, publish

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """What a run tells while it works."""

    def start(self, node: Node, index: int, total: int) -> None: ...
    def progress(self, done: int, total: int, note: str = "") -> None: ...
    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None: ...


class Silent:
    """A Reporter that says nothing."""

    def start(self, node: Node, index: int, total: int) -> None: ...
    def progress(self, done: int, total: int, note: str = "") -> None: ...
    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None: ...


@dataclass(frozen=True)
class Planned:
    """One line of a plan. action is "reuse", "resume" or "run", and why."""

    node: Node
    action: str
    why: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a run made: node id -> result folder, and what went wrong for single targets."""

    expansion: Expansion
    folders: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, EdgecvError] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def plan(recipe: Recipe, store: Store) -> list[Planned]:
    """What `run` would do, node by node, and why. Writes nothing."""
    lines: list[Planned] = []
    first: dict[str, str] = {}  # two targets with one grid share a quantized graph
    for node in Expansion(recipe).nodes.values():
        line = _planned(node, store)
        if line.action != "reuse" and node.digest in first:
            line = Planned(node, "reuse", (f"the same as {first[node.digest]}",))
        first.setdefault(node.digest, node.id)
        lines.append(line)
    return lines


def _planned(node: Node, store: Store) -> Planned:
    if store.get(node.digest):
        return Planned(node, "reuse")
    if (store.root / "partial" / node.digest / "checkpoint.safetensors").exists():
        return Planned(node, "resume", ("was interrupted: goes on from its last epoch",))
    before = store.recall(node.id)
    if before is None:
        return Planned(node, "run", ("not made yet",))
    if before == node.key:
        return Planned(node, "run", ("its result was deleted or is damaged",))
    return Planned(node, "run", tuple(explain(before, node.key, node.inputs)))


def explain(before: Key, after: Key, inputs: Mapping[str, str] | None = None) -> Iterator[str]:
    """What changed between two keys, one sentence each: "changed: prune.ratio 0.4 → 0.5".

    inputs: role -> node id, to call an input by its name
    """
    yield from _code(before.get("code", {}), after.get("code", {}))
    old, new = dict(_flat(before)), dict(_flat(after))
    for path in sorted(old.keys() | new.keys()):
        a, b = old.get(path), new.get(path)
        if a == b:
            continue
        head, *rest = path.split(".")
        name = ".".join(rest)
        if head == "code":
            continue
        if head == "inputs":
            yield f"input {(inputs or {}).get(name, name)} changed"
        elif head == "network":
            yield "the network's code changed"
        elif head == "versions":
            yield f"{name} {a or 'absent'} → {b or 'absent'}"
        elif head == "teacher":
            yield "the teacher's content changed"
        elif head == "weights":
            yield "the file of weights changed"
        elif head == "content":
            yield "the files' content changed"
        else:
            yield f"changed: {path} {a} → {b}"


NAMED = 3  # modules of ours that a plan names


def _code(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Which of our modules changed, came or went: "changed: edgecv.training"."""
    names = sorted(m for m in before.keys() | after.keys() if before.get(m) != after.get(m))
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"changed: {', '.join(names[:NAMED])}{more}"


def _flat(key: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(key, dict):
        for name, value in key.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, key


def run(
    recipe: Recipe,
    out: Path,
    reporter: Reporter | None = None,
    store: Store | None = None,
    compare: bool = True,
) -> Outcome:
    """Make every node that is not in the store yet (without fp32 references
    and latencies when not `compare`).

    A step that fails for one target is a failed row; a step that all targets need stops the run.
    Raises EdgecvError; whatever was finished is kept.
    """
    reporter, store = reporter or Silent(), store or Store(out / "store")
    expansion = Expansion(recipe, compare)
    outcome = Outcome(expansion)
    with store.locked(), source_trust.own(), builder_trust.named(recipe.builders()):
        total = len(expansion.nodes)
        for index, node in enumerate(expansion.nodes.values()):
            _visit(node, outcome, store, reporter, (index, total))
    return outcome


# Failures that belong to one engine or one graph, and leave the other targets alone.
CONTAINED = (
    EngineError,
    MissingExtraError,
    ParityError,
    UnsupportedError,
    DeviceError,
    DeviceLostError,
)


def _visit(
    node: Node, outcome: Outcome, store: Store, reporter: Reporter, place: tuple[int, int]
) -> None:
    if node.kind == "measure":
        node = _without_failed(node, outcome)
    blocked = [name for name in node.inputs.values() if name in outcome.failures]
    if blocked:
        outcome.failures[node.id] = outcome.failures[blocked[0]]
        return
    found = store.get(node.digest)
    if found and not (_leaves_the_store(node) and _damaged(node, store)):
        outcome.folders[node.id] = found
        outcome.reused.append(node.id)
        store.remember(node.id, node.key)
        reporter.finish(node, "reused", 0.0)
        return
    reporter.start(node, *place)
    began = time.perf_counter()
    try:
        outcome.folders[node.id] = _make(node, outcome, store, reporter)
    except CONTAINED as e:
        if not node.per_target:
            raise
        store.discard(node.digest)
        outcome.failures[node.id] = e
        status = "unavailable" if isinstance(e, MissingExtraError) else "failed"
        reporter.finish(node, status, time.perf_counter() - began, str(e))
        return
    outcome.made.append(node.id)
    outcome.seconds[node.id] = time.perf_counter() - began
    reporter.finish(node, "made", outcome.seconds[node.id])


def _leaves_the_store(node: Node) -> bool:
    """Whether what it holds is published or told at the end of every run."""
    return node.kind in ("bundle", "measure") or (node.kind == "stage" and not node.per_target)


def _damaged(node: Node, store: Store) -> bool:
    """Whether a kept result is not what was written; said where it is."""
    file = store.damage(node.digest)
    if file:
        log.warning("%s: %s was damaged on the disk: made again", node.id, file)
    return bool(file)


def _mend(names: Iterable[str], outcome: Outcome, store: Store, reporter: Reporter) -> None:
    """Make again what is about to be read and is no longer what was written."""
    for name in names:
        node = outcome.expansion.nodes[name]
        if name in outcome.reused and _damaged(node, store):
            outcome.folders[name] = _make(node, outcome, store, reporter)
            outcome.reused.remove(name)
            outcome.made.append(name)
            reporter.finish(node, "made", 0.0)


def _without_failed(node: Node, outcome: Outcome) -> Node:
    """A measurement goes on with the bundles that could be made."""
    good = {k: v for k, v in node.inputs.items() if v not in outcome.failures}
    if len(good) == len(node.inputs):
        return node
    nodes = outcome.expansion.nodes
    key = {**node.key, "inputs": {role: nodes[name].digest for role, name in good.items()}}
    return Node(node.id, node.kind, good, key, target=node.target)


def _make(node: Node, outcome: Outcome, store: Store, reporter: Reporter) -> Path:
    resumable = bool(node.stage and node.stage.resumable)
    decoded = [n for n in ("data:train", "data:test") if n in outcome.folders and n != node.id]
    _mend(dict.fromkeys((*decoded, *node.inputs.values())), outcome, store, reporter)
    began = time.perf_counter()
    with disk_errors(store.root):
        work = making.Work(
            expansion=outcome.expansion,
            node=node,
            inputs={role: outcome.folders[name] for role, name in node.inputs.items()},
            images={
                split: outcome.folders[f"data:{split}"]
                for split in ("train", "test")
                if f"data:{split}" in outcome.folders
            },
            out=store.begin(node.digest, resumable),
            progress=reporter.progress,
        )
        try:
            making.make(work)
        except EdgecvError:
            store.discard(node.digest)
            raise
        except OSError:
            if not resumable:
                store.discard(node.digest)
            raise
        return store.commit(node.id, node.digest, node.key, time.perf_counter() - began)


MODEL_FILES = {"model.json", "weights.safetensors"}


def publish_results(outcome: Outcome, out: Path) -> None:
    """Copy bundles and Model folders from the store to where users look for them.

    bundles/ and models/ hold what this run made and no other run's; those stay in the store.
    """
    current = {
        facts.read(folder).bundle
        for name, folder in outcome.folders.items()
        if outcome.expansion.nodes[name].kind == "bundle"
    }
    with disk_errors(out):
        for old in (out / "store" / "done").glob("*/*.edgecv"):
            if old.name not in current:
                (out / "bundles" / old.name).unlink(missing_ok=True)
        _clear_models(outcome, out / "models")
        for node in outcome.expansion.nodes.values():
            folder = outcome.folders.get(node.id)
            if folder is None:
                continue
            if node.kind == "bundle":
                name = facts.read(folder).bundle
                _publish(folder / name, out / "bundles" / name)
            elif (folder / "model.json").exists() and node.kind == "stage":
                _publish(folder, out / "models" / node.step)


def _clear_models(outcome: Outcome, models: Path) -> None:
    """Take out Model folders that are no step of this run; other things that lie there stay."""
    steps = {node.step for node in outcome.expansion.nodes.values()}
    for old in models.glob("*/model.json"):
        if old.parent.name not in steps and {p.name for p in old.parent.iterdir()} == MODEL_FILES:
            shutil.rmtree(old.parent)


def _publish(source: Path, path: Path) -> None:
    """Publish unless the same is there already (sizes and times say so)."""
    files = [source] if source.is_file() else [p for p in source.iterdir() if p.name != "key.json"]
    there = [path if source.is_file() else path / f.name for f in files]
    if all(t.is_file() and _same(f, t) for f, t in zip(files, there, strict=True)):
        return
    publish(source, path)


def _same(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()


def check_space(out: Path) -> None:
    """Raises StoreError when `out` cannot be a folder that is written to."""
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        raise StoreError(str(there), "is a file, not a folder", "use another --out")
    if not os.access(there, os.W_OK):
        raise StoreError(str(there), "cannot be written to", "use another --out")
