"""Nodes that do not read each other, made at once, each in a process of its own (`plan.workers`).

    what all share (images, the network as it comes)   here, one after another, before the rest
    steps, graphs, quantization, bundles               as soon as their inputs are there, `jobs` at
                                                       once; one that is alone, here, on
                                                       their cores (`edgecv.cores`)
    whatever measures times (`Node.measures`)          here, while nothing else runs

A node's result is the same wherever it is made, so only their order differs from one process. What
is said in the end does not: warnings come in the order of the recipe's nodes, and where two steps
fail that all targets need, the error is that of the first in this order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial

from edgecv import cores
from edgecv.plan.execute import Execution
from edgecv.plan.node import Node
from edgecv.plan.workers import Done, Pool, Progress, Warned

FIRST = ("data", "model")


def default(threads: int) -> int:
    """Processes for the cores that this one may use, each of them on so many threads."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // max(1, threads))


def run(execution: Execution, jobs: int) -> None:
    """Visit every node of the execution. Raises EdgecvError as doing it in one process would."""
    nodes = execution.outcome.expansion.nodes
    first = [node for node in nodes.values() if node.kind in FIRST]
    for node in first:
        execution.visit(node)
    with Pool(jobs, execution.outcome.expansion, execution.store.root) as pool:
        schedule = _Schedule(execution, pool)
        try:
            while schedule.step():
                pass
        finally:
            schedule.say(every=True)
    if schedule.error:
        raise schedule.error
    _in_order(execution)


def _in_order(execution: Execution) -> None:
    """An outcome as if its nodes had been visited one after another."""
    outcome = execution.outcome
    places = {name: i for i, name in enumerate(outcome.expansion.nodes)}
    outcome.made.sort(key=places.__getitem__)
    outcome.reused.sort(key=places.__getitem__)
    for held in (outcome.folders, outcome.failures, outcome.seconds):
        items = sorted(held.items(), key=lambda item: places[item[0]])
        held.clear()
        held.update(items)  # type: ignore[arg-type]


class _Schedule:
    """What waits, what runs, and what was said meanwhile.

    error: the failure of a node that all targets need; nodes before it are still made
    """

    def __init__(self, execution: Execution, pool: Pool) -> None:
        self.execution, self.pool = execution, pool
        self.outcome = execution.outcome
        self.places = {name: i for i, name in enumerate(self.outcome.expansion.nodes)}
        self.last = len(self.places)  # place of the node that stops the run
        self.error: Exception | None = None
        self.running: dict[str, tuple[Node, float]] = {}
        self.said: dict[str, list[logging.LogRecord]] = {}

    def step(self) -> bool:
        """Begin what can begin, wait for something to end. False when all is done."""
        ready = list(self._ready())
        shared = [n for n in ready if not n.measures and self.execution.whole(n)]
        if not self.running:
            if not ready:
                return False
            self.say(every=True)
            if not shared or (len(shared) == 1 and not self.pool.started):
                self._here((shared or ready)[0])
                return True
        for node in shared:
            if self.pool.is_full:
                break
            self._begin(node)
        if self.running:
            self._listen()
        return any(place < self.last for place in map(self._place, self._open()))

    def _open(self) -> Iterator[str]:
        """Nodes that are neither made nor failed."""
        return (name for name in self.places if not self.outcome.settled(name))

    def _place(self, name: str) -> int:
        return self.places[name]

    def _ready(self) -> Iterator[Node]:
        """Nodes to make whose inputs are there; two of one digest are made once."""
        busy = {node.digest for node, _ in self.running.values()}
        for name, node in self.outcome.expansion.nodes.items():
            if self.outcome.settled(name) or name in self.running or self.places[name] >= self.last:
                continue
            if not all(map(self.outcome.settled, node.inputs.values())):
                continue
            current = self.execution.current(node)
            if current.digest in busy or self.execution.spared(current):
                continue
            busy.add(current.digest)
            yield current

    def _here(self, node: Node) -> None:
        with cores.free(self.pool.jobs):
            self._stopping(node, lambda: self.execution.visit(node))

    def _begin(self, node: Node) -> None:
        def begin() -> None:
            work, began = self.execution.begin(node)
            self.pool.begin(work)
            self.running[node.id] = node, began

        self._stopping(node, begin)

    def _listen(self) -> None:
        """Hear of the workers until one has made a node, or failed to."""
        before = len(self.running)
        while len(self.running) == before:
            for event in self.pool.events():
                node = self.running[event.node][0]
                if isinstance(event, Progress):
                    self.execution.reporter.progress(node, event.done, event.total, event.note)
                elif isinstance(event, Warned):
                    self.said.setdefault(node.id, []).append(event.record)
                else:
                    self._stopping(node, partial(self._end, event))
                    self.say()

    def _end(self, event: Done) -> None:
        node, began = self.running.pop(event.node)
        if event.error is None:
            self.execution.keep(node, began)
        else:
            self.execution.fail(node, event.error, began)

    def _stopping(self, node: Node, do: Callable[[], None]) -> None:
        """Do it; where that raises, the run ends with the nodes before this one."""
        try:
            do()
        except Exception as e:
            if self.places[node.id] < self.last:
                self.last, self.error = self.places[node.id], e

    def say(self, every: bool = False) -> None:
        """Log what finished nodes warned of, in their order. every: also behind open ones"""
        for name in self.places:
            if not every and not self.outcome.settled(name):
                return
            for record in self.said.pop(name, ()):
                logger = logging.getLogger(record.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
