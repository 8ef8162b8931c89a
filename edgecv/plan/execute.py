"""A run that goes on: what is reused, what is made, whose failure leaves the others alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

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
from edgecv.files import disk_errors
from edgecv.plan import makers
from edgecv.plan.graph import Expansion
from edgecv.plan.node import Node
from edgecv.plan.store import Store

log = logging.getLogger(__name__)

# Failures that belong to one engine or one graph, and leave the other targets alone.
CONTAINED = (
    EngineError,
    MissingExtraError,
    ParityError,
    UnsupportedError,
    DeviceError,
    DeviceLostError,
)


class Reporter(Protocol):
    """What a run tells while it works; several nodes may be in the making.

    index: nodes that are done with when one starts
    """

    def start(self, node: Node, index: int, total: int) -> None: ...
    def progress(self, node: Node, done: float, total: float, note: str = "") -> None: ...
    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None: ...


class Silent:
    """A Reporter that says nothing."""

    def start(self, node: Node, index: int, total: int) -> None: ...
    def progress(self, node: Node, done: float, total: float, note: str = "") -> None: ...
    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None: ...


@dataclass
class Outcome:
    """What a run made: node id -> result folder, and what went wrong for single targets."""

    expansion: Expansion
    folders: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, EdgecvError] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0  # of the whole

    def settled(self, name: str) -> bool:
        """Whether the node of that name is made, or has failed."""
        return name in self.folders or name in self.failures


@dataclass(frozen=True)
class Execution:
    """One run: `visit` every node after its inputs; or, to have a node made elsewhere, `begin`
    where it is not `spared`, and `keep` or `fail`."""

    outcome: Outcome
    store: Store
    reporter: Reporter

    def visit(self, node: Node) -> None:
        """Reuse or make a node. Raises EdgecvError where all targets need what failed."""
        node = self.current(node)
        if self.spared(node):
            return
        began = self._start(node)
        try:
            folder = self._made(node)
        except Exception as e:
            self._failed(node, e, began)
        else:
            self._kept(node, folder, began)

    def current(self, node: Node) -> Node:
        """A measurement goes on with the bundles that could be made."""
        if node.kind != "measure":
            return node
        good = {k: v for k, v in node.inputs.items() if v not in self.outcome.failures}
        if len(good) == len(node.inputs):
            return node
        nodes = self.outcome.expansion.nodes
        key = {**node.key, "inputs": {role: nodes[name].digest for role, name in good.items()}}
        return replace(node, inputs=good, key=key)

    def spared(self, node: Node) -> bool:
        """Whether nothing is to be made: an input has failed, or the result is there."""
        outcome = self.outcome
        blocked = [name for name in node.inputs.values() if name in outcome.failures]
        if blocked:
            outcome.failures[node.id] = outcome.failures[blocked[0]]
            return True
        found = self.store.get(node.digest)
        if found is None or (_leaves_the_store(node) and self._damaged(node)):
            return False
        outcome.folders[node.id] = found
        outcome.reused.append(node.id)
        self.store.remember(node.id, node.key)
        self.reporter.finish(node, "reused", 0.0)
        return True

    def begin(self, node: Node) -> tuple[makers.Work, float]:
        """The work that makes a node, and when it began (`time.perf_counter`)."""
        began = self._start(node)
        with disk_errors(self.store.root):
            return self._work(node), began

    def keep(self, node: Node, began: float) -> None:
        """The work was done, elsewhere. Raises EdgecvError where it cannot be kept."""
        try:
            with disk_errors(self.store.root):
                folder = self._commit(node, began)
        except Exception as e:
            self.fail(node, e, began)
        else:
            self._kept(node, folder, began)

    def fail(self, node: Node, error: Exception, began: float) -> None:
        """The work was not done. Raises the error where all targets need the node."""
        self._discard(node, error)
        self._failed(node, error, began)

    def whole(self, node: Node) -> bool:
        """Whether nothing that the node reads is to be made again first."""
        return not any(
            name in self.outcome.reused and self.store.damage(self._node(name).digest)
            for name in self._read(node)
        )

    def _node(self, name: str) -> Node:
        return self.current(self.outcome.expansion.nodes[name])

    def _start(self, node: Node) -> float:
        done = len(self.outcome.folders) + len(self.outcome.failures)
        self.reporter.start(node, done, len(self.outcome.expansion.nodes))
        return time.perf_counter()

    def _made(self, node: Node) -> Path:
        began = time.perf_counter()
        with disk_errors(self.store.root):
            work = self._work(node)
            try:
                makers.make(work)
                return self._commit(node, began)
            except (EdgecvError, OSError) as e:
                self._discard(node, e)
                raise

    def _work(self, node: Node) -> makers.Work:
        self._mend(self._read(node))
        folders = self.outcome.folders
        return makers.Work(
            expansion=self.outcome.expansion,
            node=node,
            inputs={role: folders[name] for role, name in node.inputs.items()},
            images={
                split: folders[f"data:{split}"]
                for split in ("train", "test")
                if f"data:{split}" in folders
            },
            out=self.store.begin(node.digest, _resumable(node)),
            progress=partial(self.reporter.progress, node),
        )

    def _read(self, node: Node) -> Iterable[str]:
        """The nodes whose results its maker may open."""
        folders = self.outcome.folders
        decoded = [n for n in ("data:train", "data:test") if n in folders and n != node.id]
        return dict.fromkeys((*decoded, *node.inputs.values()))

    def _mend(self, names: Iterable[str]) -> None:
        """Make again what is about to be read and is no longer what was written."""
        for name in names:
            node = self._node(name)
            if name in self.outcome.reused and self._damaged(node):
                self.outcome.folders[name] = self._made(node)
                self.outcome.reused.remove(name)
                self.outcome.made.append(name)
                self.reporter.finish(node, "made", 0.0)

    def _damaged(self, node: Node) -> bool:
        """Whether a kept result is not what was written; said where it is."""
        file = self.store.damage(node.digest)
        if file:
            log.warning("%s: %s was damaged on the disk: made again", node.id, file)
        return bool(file)

    def _commit(self, node: Node, began: float) -> Path:
        return self.store.commit(node.id, node.digest, node.key, time.perf_counter() - began)

    def _discard(self, node: Node, error: Exception) -> None:
        """What a full disk ended goes on, where the stage can."""
        whole = isinstance(error, OSError | StoreError) and _resumable(node)
        if isinstance(error, EdgecvError | OSError) and not whole:
            self.store.discard(node.digest)

    def _kept(self, node: Node, folder: Path, began: float) -> None:
        outcome = self.outcome
        outcome.folders[node.id] = folder
        outcome.made.append(node.id)
        outcome.seconds[node.id] = time.perf_counter() - began
        self.reporter.finish(node, "made", outcome.seconds[node.id])

    def _failed(self, node: Node, error: Exception, began: float) -> None:
        if not (isinstance(error, CONTAINED) and node.per_target):
            raise error
        self.store.discard(node.digest)
        self.outcome.failures[node.id] = error
        status = "unavailable" if isinstance(error, MissingExtraError) else "failed"
        self.reporter.finish(node, status, time.perf_counter() - began, str(error))


def _resumable(node: Node) -> bool:
    return bool(node.stage and node.stage.resumable)


def _leaves_the_store(node: Node) -> bool:
    """Whether what it holds is published or told at the end of every run."""
    return node.kind in ("bundle", "measure") or (node.kind == "stage" and not node.per_target)
