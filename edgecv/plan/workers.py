"""Processes that make nodes for this one: began as new ones (never by fork), ended with this one.

A worker is `python -m edgecv.plan.worker`, kept for the nodes to come, so that its libraries are
loaded once. It is told the recipe's nodes once, as objects, through a channel of `multiprocessing`
that lies between the two processes alone (its pickles are on no disk); jobs, progress, warnings and
errors go through it as JSON. It is held by `edgecv.lifeline`.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecv import child, lifeline
from edgecv.benchmark.calibration import ONE_THREAD
from edgecv.errors import EngineError
from edgecv.plan.graph import Expansion
from edgecv.plan.makers import Work

MODULE = "edgecv.plan.worker"
GRACE_S = 0.5  # of all together, from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Progress:
    """How far a node is."""

    node: str
    done: float
    total: float
    note: str


@dataclass(frozen=True)
class Warned:
    """What making a node logged."""

    node: str
    record: logging.LogRecord


@dataclass(frozen=True)
class Done:
    """A node is made, or why not."""

    node: str
    error: Exception | None = None


Event = Progress | Warned | Done


@dataclass
class _Worker:
    """channel: to the process; said: what its libraries print; job: what it is at, "" for none."""

    process: subprocess.Popen[str]
    channel: Connection
    said: Path
    stack: ExitStack
    node: str = ""
    waiting: dict[str, Any] = field(default_factory=dict)  # a job, until the worker asks for it
    ready: bool = False


class Pool:
    """At most `jobs` workers, begun when there is something for them to do."""

    def __init__(self, jobs: int, expansion: Expansion, root: Path) -> None:
        self.jobs, self.expansion, self.root = jobs, expansion, root
        self._workers: list[_Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them all: those that wait for a job by themselves, those that work at once."""
        for worker in self._workers:
            worker.channel.close()
            if worker.node:
                _signal(worker, signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        for worker in self._workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, end - time.monotonic()))
        for worker in self._workers:
            _signal(worker, signal.SIGKILL)
        for worker in self._workers:
            worker.stack.close()

    @property
    def started(self) -> bool:
        """Whether there is a worker."""
        return bool(self._workers)

    @property
    def is_full(self) -> bool:
        """Whether all workers that may be are at work."""
        return sum(bool(worker.node) for worker in self._workers) >= self.jobs

    def begin(self, work: Work) -> None:
        """Have a node made in work.out. Wants a pool that is not full."""
        idle = [worker for worker in self._workers if not worker.node]
        worker = idle[0] if idle else self._new()
        worker.node = work.node.id
        worker.waiting = {
            "node": work.node.id,
            "inputs": {role: str(folder) for role, folder in work.inputs.items()},
            "images": {split: str(folder) for split, folder in work.images.items()},
            "out": str(work.out),
        }
        if worker.ready:
            self._hand_over(worker)

    def events(self) -> Iterator[Event]:
        """What workers tell, at least one message of one: waits for it."""
        by_channel = {worker.channel: worker for worker in self._workers}
        for channel in wait(list(by_channel)):
            assert isinstance(channel, Connection)
            worker = by_channel[channel]
            try:
                told = json.loads(channel.recv_bytes())
            except (EOFError, OSError):
                yield from self._lost(worker)
                continue
            if event := self._event(worker, told):
                yield event

    def _event(self, worker: _Worker, told: dict[str, Any]) -> Event | None:
        if "progress" in told:
            return Progress(worker.node, *told["progress"])
        if "log" in told:
            return Warned(worker.node, logging.makeLogRecord(told["log"]))
        if "ready" in told:
            worker.ready = True
            worker.channel.send((self.expansion, str(self.root), _levels()))
            self._hand_over(worker)
            return None
        name, worker.node = worker.node, ""
        return Done(name, revived(told["error"]) if told.get("error") else None)

    def _hand_over(self, worker: _Worker) -> None:
        with suppress(OSError):  # it has died: its channel says so
            worker.channel.send_bytes(json.dumps(worker.waiting).encode())

    def _new(self) -> _Worker:
        with ExitStack() as stack:
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecv-")))
            ours, theirs = Pipe()
            stack.callback(ours.close)
            with theirs:
                said = stack.enter_context((room / "said").open("w"))
                threads = str(self.expansion.recipe.threads)
                own = {k: threads for k in ONE_THREAD if k not in os.environ}
                process = stack.enter_context(
                    lifeline.started(
                        child.command(MODULE),
                        room,
                        child.variables(MODULE, own),
                        stdout=said,
                        stdin=theirs.fileno(),
                    )
                )
            worker = _Worker(process, ours, room / "said", stack.pop_all())
        self._workers.append(worker)
        return worker

    def _lost(self, worker: _Worker) -> Iterator[Event]:
        """A worker has died, of what it was at or of want of memory."""
        self._workers.remove(worker)
        code = worker.process.wait()
        lines = worker.said.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        worker.stack.close()
        if worker.node:
            hint = "--jobs 1 takes less memory"
            yield Done(worker.node, EngineError(worker.node, child.death(code, last), hint))


def _signal(worker: _Worker, number: int) -> None:
    with suppress(OSError):
        os.killpg(worker.process.pid, number)


def _levels() -> dict[str, int]:
    """From which level on loggers of this process speak."""
    return {name: logging.getLogger(name).getEffectiveLevel() for name in ("root", "edgecv")}


def revived(told: dict[str, Any]) -> Exception:
    """The exception that a worker met, of the same type, with where it was raised as a note."""
    name, words = told["type"], told["words"]
    if told["ours"]:
        return child.revive([name, *words])
    kind = getattr(builtins, name, None)
    error: Exception
    if isinstance(kind, type) and issubclass(kind, ImportError):
        error = kind(words[0], name=told["name"])
    elif isinstance(kind, type) and issubclass(kind, OSError):
        error = kind(*words)
    elif isinstance(kind, type) and issubclass(kind, Exception):
        error = _plain(kind, words[0])
    else:
        error = RuntimeError(f"{name}: {words[0]}")
    error.add_note(told["trace"])
    return error


def _plain(kind: type[Exception], message: str) -> Exception:
    try:
        return kind(message)
    except TypeError:  # some want more than a message
        return RuntimeError(f"{kind.__name__}: {message}")
