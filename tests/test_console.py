"""What a run says where there is no terminal: enough to see that it works, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rich")

from edgecv import console
from edgecv.plan.node import Node


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


def node(name: str) -> Node:
    made = object.__new__(Node)
    object.__setattr__(made, "id", name)
    return made


def test_a_long_step_speaks_once_in_a_minute(clock: Clock, capsys) -> None:
    progress = console.Progress()
    progress.start(node("dense"), 0, 2)
    for second in range(0, 150, 10):
        clock.now = second
        progress.progress(node("dense"), second, 150, f"epoch {second}")
    progress.finish(node("dense"), "made", 150.0)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "… dense  40%  1:30 left  epoch 60",
        "… dense  80%  0:30 left  epoch 120",
        "✓ dense  150.0 s",
    ]


def test_two_steps_at_once_speak_for_themselves(clock: Clock, capsys) -> None:
    progress = console.Progress()
    progress.start(node("a"), 0, 3)
    progress.start(node("b"), 0, 3)
    for second in (0, 61, 122):
        clock.now = second
        progress.progress(node("a"), second, 244)
        progress.progress(node("b"), second, 122 * 60)
    progress.finish(node("a"), "made", 122.0)
    assert capsys.readouterr().err.splitlines() == [
        "… a  25%  3:03 left", "… b  1%  2:00:59 left", "… a  50%  2:02 left",
        "… b  2%  1:59:58 left", "✓ a  122.0 s",
    ]  # fmt: skip


def test_what_went_on_in_the_middle_is_judged_by_its_own_pace(clock: Clock, capsys) -> None:
    progress = console.Progress()
    progress.start(node("dense"), 0, 1)
    for second, done, total in ((70, 6, 10), (140, 7, 10), (210, 1, 4), (280, 2, 4)):
        clock.now = second
        progress.progress(node("dense"), done, total)
    assert capsys.readouterr().err.splitlines() == [
        "… dense  60%", "… dense  70%  3:30 left", "… dense  25%", "… dense  50%  2:20 left",
    ]  # fmt: skip


def test_a_short_step_says_that_it_is_done(clock: Clock, capsys) -> None:
    progress = console.Progress()
    for name in ("model", "dense"):
        progress.start(node(name), 0, 2)
        clock.now += 50
        progress.progress(node(name), 1, 2)
        progress.finish(node(name), "made", 50.0)
    assert capsys.readouterr().err.splitlines() == ["✓ model  50.0 s", "✓ dense  50.0 s"]


def test_quiet_says_nothing(clock: Clock, capsys) -> None:
    progress = console.Progress(quiet=True)
    progress.start(node("dense"), 0, 1)
    clock.now = 100
    progress.progress(node("dense"), 1, 2, "epoch 1")
    progress.finish(node("dense"), "made", 100.0)
    assert capsys.readouterr().err == ""


def test_a_row_with_one_bit_layers_says_so() -> None:
    from edgecv.text_table import precision

    assert precision({"precision": "int8", "executed": {"int8": 4}}) == "int8"
    assert precision({"precision": "int8", "executed": {"binary": 6, "int8": 4}}) == "int8 + 1 bit"
    assert precision({"precision": "fp32"}) == "fp32"


@pytest.mark.parametrize(
    ("metric", "word"), [("map50_95", "mAP"), ("miou", "mIoU"), ("top1", "top-1")]
)
def test_a_table_says_what_its_accuracy_is(metric: str, word: str, capsys) -> None:
    row = {
        "target": "cpu", "step": "dense", "precision": "fp32", "latency_ms": None, "reason": "",
        "metric": {"name": metric, "value": 0.5, "reference": 0.52}, "latency_ratio": None,
        "cpu_time_ratio": None, "status": "ok",
    }  # fmt: skip
    data = {"results": [row], "recipe": {"name": "r"}, "machine": {"cpu": "x"}, "models": []}
    outcome = SimpleNamespace(made=[], reused=[], elapsed_s=0.0)
    console.results_table(data, outcome, Path("runs/r/results.json"))  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert re.search(rf"precision +{word} +vs fp32", said)
    assert re.search(r"fp32 +50\.00 +-2\.00", said)
    assert f"{word} in percent, vs fp32 in points on the same engine" in said


def test_the_command_below_a_table_names_the_bundle_in_the_runs_folder(capsys) -> None:
    row = {
        "target": "cpu", "step": "small", "precision": "int8", "latency_ratio": 1.1, "status": "ok",
        "latency_ms": None, "cpu_time_ratio": None, "bundle": "bundles/small.cpu.edgecv",
        "metric": {"name": "top1", "value": 0.5, "reference": 0.52},
        "reason": "int8 is slower than fp32",
    }  # fmt: skip
    data = {"results": [row, row], "recipe": {"name": "r"}, "machine": {"cpu": "x"}, "models": []}
    outcome = SimpleNamespace(made=[], reused=[], elapsed_s=0.0)
    console.results_table(data, outcome, Path("runs/r/results.json"))  # type: ignore[arg-type]
    said = capsys.readouterr().out
    command = "edgecv why runs/r/bundles/small.cpu.edgecv"
    assert said.count(f"[1] int8 is slower than fp32: `{command}` says why\n") == 1
    assert said.count("ok [1]") == 2
