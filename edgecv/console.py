"""What a person sees of a run: a progress bar (rich) while it works, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from edgecv import tasks
from edgecv.limits import fidelity_of
from edgecv.plan.execute import Outcome
from edgecv.plan.node import Node
from edgecv.plan.pipeline import Planned
from edgecv.report.words import decibel, fidelity
from edgecv.terminal import printable
from edgecv.text_table import precision, reason, table

SILENCE = 60.0  # seconds; a log in which nothing has appeared for longer looks like one that hangs
MARKS = {"made": "✓", "reused": "=", "unavailable": "-", "failed": "✗"}


class Progress:
    """An `execute.Reporter`: a bar for each step that runs on a terminal, silence when quiet;
    elsewhere a line per step, and one in a minute of a step that takes longer.
    """

    def __init__(
        self, quiet: bool = False, words: Callable[[Node], str] = lambda node: node.id
    ) -> None:
        """words: what a step is called."""
        self.quiet, self.words = quiet, words
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = not quiet and self.console.is_terminal
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[left]} {task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.whole = self.bars.add_task("recipe", total=None, note="", left="")
        self.running: dict[str, _Step] = {}

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def start(self, node: Node, index: int, total: int) -> None:
        self.bars.update(self.whole, completed=index, total=total)
        bar = self.bars.add_task(self.words(node), total=None, note="", left="")
        self.running[node.id] = _Step(bar, time.monotonic())

    def progress(self, node: Node, done: float, total: float, note: str = "") -> None:
        step, now = self.running.get(node.id), time.monotonic()
        if step is None:  # what is made again for one that runs
            return
        left = _left(step.left(done, total, now))
        self.bars.update(step.bar, completed=done, total=total, note=printable(note), left=left)
        if not (self.quiet or self.live) and now - step.said >= SILENCE:
            step.said = now
            share = f"{100 * done / max(total, 1):.0f}%"
            said = (word for word in (self.words(node), share, left, note) if word)
            self.console.print(Text(printable(f"… {'  '.join(said)}")))

    def finish(self, node: Node, status: str, seconds: float, note: str = "") -> None:
        step = self.running.pop(node.id, None)
        if step is not None:
            self.bars.remove_task(step.bar)
        if self.quiet or (status == "reused" and not self.live):
            return
        line = f"{MARKS[status]} {self.words(node)}"
        line += f"  {seconds:.1f} s" if status == "made" else f"  {status}"
        self.console.print(Text(printable(f"{line}  {note}" if note else line)))


@dataclass
class _Step:
    """A step that runs. said: when it was last spoken of

    first: (seconds, done, total) from which on its pace is known: a step that was interrupted goes
    on in its middle, and one in several parts begins to count again
    """

    bar: TaskID
    said: float
    first: tuple[float, float, float] | None = None
    done: float = 0.0

    def left(self, done: float, total: float, now: float) -> float | None:
        """Seconds that the rest takes at the pace so far; None where that is not known."""
        before, self.done = self.done, done
        if self.first is None or self.first[2] != total or done < before:
            self.first = now, done, total
            return None
        began, at, _ = self.first
        if done <= at or now <= began:
            return None
        return (total - done) * (now - began) / (done - at)


def _left(seconds: float | None) -> str:
    """As people say it: "2:05 left", "1:10:00 left"."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"


HEAD = ("target", "step", "precision", "p50 ms", "p90", "p99", "× fp32", "cpu ×", "KB",
        "status")  # fmt: skip


def results_table(data: dict[str, Any], outcome: Outcome, path: Path) -> None:
    """The table at the end of a run; what there is to say of a row stands below it."""
    notes: list[str] = []
    rows: list[list[str]] = []
    metrics = [row["metric"]["name"] for row in data["results"] if row["metric"]]
    labelled = bool(metrics)
    judged = (tasks.called(metrics[0]), "vs fp32") if labelled else ("from float",)
    head = (*HEAD[:3], *judged, *HEAD[3:])
    for i, row in enumerate(data["results"]):
        if i and row["target"] != data["results"][i - 1]["target"]:
            rows.append([""] * len(head))
        rows.append(_cells(row, labelled, notes, path.parent))
    print(f"{data['recipe']['name']}  ({data['machine']['cpu']})\n")
    table(head, rows, right=range(3, len(head) - 1))
    print()
    if not labelled:
        _outputs(data["results"])
    for i, note in enumerate(notes, 1):
        print(f"[{i}] {note}")
    for model in data["models"]:
        print(f"{model['step']}: {model['summary']}")
    if labelled:
        print(f"{judged[0]} in percent, vs fp32 in points on the same engine")
    print("× fp32: wall time relative to fp32 on the same engine, median of interleaved rounds "
          "(95% interval)")  # fmt: skip
    made, reused = len(outcome.made), len(outcome.reused)
    print(f"{made} steps made in {outcome.elapsed_s:.0f} s, {reused} reused")
    print(f"{path}, bundles in {path.parent / 'bundles'}")


def _outputs(rows: list[dict[str, Any]]) -> None:
    """What each output lost, where a network has several."""
    for row in rows:
        found = fidelity_of(row)
        if found and found.get("outputs") and row["step"] != row["reference"]:
            # several outputs are no row of classes; a classifier's accuracy is in the table
            said = fidelity(found, row.get("made_up", False), classifies=False)
            print(f"{row['step']} on {row['target']}, against float: {said}")
    if any(row.get("made_up") for row in rows):
        print("dB on made-up images, where outputs that hardly change read low: "
              "give data.images yours")  # fmt: skip


def _judged(row: dict[str, Any], labelled: bool) -> list[str]:
    """The cells of accuracy and its change; without labels of fidelity."""
    if not labelled:
        found = fidelity_of(row)
        return [decibel(found["sqnr_db"]) if found else ""]
    metric = row["metric"] or {}
    value, reference = metric.get("value"), metric.get("reference")
    change = "" if value is None or reference is None else f"{100 * (value - reference):+.2f}"
    return ["" if value is None else f"{100 * value:.2f}", change]


def _cells(row: dict[str, Any], labelled: bool, notes: list[str], folder: Path) -> list[str]:
    latency = row["latency_ms"] or {}
    status = row["status"]
    if note := reason(row, folder):
        if note not in notes:
            notes.append(note)
        status += f" [{notes.index(note) + 1}]"
    return [
        row["target"],
        row["step"],
        precision(row),
        *_judged(row, labelled),
        *(f"{latency[k]:.3f}" if latency else "" for k in ("p50", "p90", "p99")),
        _ratio(row["latency_ratio"], row.get("latency_ratio_interval")),
        "" if row["cpu_time_ratio"] is None else f"{row['cpu_time_ratio']:.2f}",
        f"{row['engine_bytes'] / 1024:.0f}" if row.get("engine_bytes") else "",
        status,
    ]


def _ratio(ratio: float | None, spread: list[float] | None) -> str:
    """With its 95% interval, "0.62 (0.61-0.63)"; the reference has none."""
    if ratio is None:
        return ""
    if not spread or spread[0] == spread[1]:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ({spread[0]:.2f}-{spread[1]:.2f})"


def plan_table(name: str, out: Path, lines: list[Planned]) -> None:
    """What a run would do."""
    print(f"{name} → {out}\n")
    table(("node", "action", "why"), [(p.node.id, p.action, "; ".join(p.why)) for p in lines])
    again = sum(p.action != "reuse" for p in lines)
    print(f"\n{again} of {len(lines)} to run")
