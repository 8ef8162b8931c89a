"""plan, run, explain: what would be made and why; making it; resuming after a kill."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv import source_trust
from edgecv.files import disk_errors, publish
from edgecv.measuring import facts
from edgecv.models import builder_trust, live_network
from edgecv.plan import side_by_side
from edgecv.plan.execute import Execution, Outcome, Reporter, Silent
from edgecv.plan.graph import Expansion
from edgecv.plan.node import Node
from edgecv.plan.recipe import Recipe
from edgecv.plan.store import Key, Store


@dataclass(frozen=True)
class Planned:
    """One line of a plan. action is "reuse", "resume" or "run", and why."""

    node: Node
    action: str
    why: tuple[str, ...] = ()


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
    """Which of our modules changed, came or went: "changed: edgecv.methods.training.loop"."""
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
    jobs: int | None = 1,
    judge: bool = False,
) -> Outcome:
    """Make every node that is not in the store yet (without fp32 references
    and latencies when not `compare`).

    judge: the fp32 references all the same, one for each engine, for their accuracy
    jobs: nodes that are made at once, each in a process of its own (`edgecv.plan.side_by_side`);
          None is as many as there are cores for. The results are the same.
    A step that fails for one target is a failed row; a step that all targets need stops the run.
    Raises EdgecvError; whatever was finished is kept.
    """
    store = store or Store(out / "store")
    execution = Execution(Outcome(Expansion(recipe, compare, judge)), store, reporter or Silent())
    jobs = side_by_side.default(recipe.threads) if jobs is None else jobs
    began = time.perf_counter()
    with store.locked(), source_trust.own(), builder_trust.named(recipe.builders()):
        if jobs > 1 and not live_network.is_any_held():
            side_by_side.run(execution, jobs)
        else:
            for node in execution.outcome.expansion.nodes.values():
                execution.visit(node)
    execution.outcome.elapsed_s = time.perf_counter() - began
    return execution.outcome


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
