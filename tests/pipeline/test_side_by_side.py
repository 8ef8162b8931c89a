"""Steps and targets that are made at once: the same bytes, one at a time where times are taken."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from edgecv import errors
from edgecv.api.run import made
from edgecv.plan import pipeline, recipe
from edgecv.plan.execute import Execution, Outcome, Silent
from edgecv.plan.graph import Expansion
from edgecv.plan.node import Node
from edgecv.plan.results import MEASURED
from edgecv.plan.side_by_side import default
from edgecv.plan.store import Store
from edgecv.plan.worker import told
from edgecv.plan.workers import Done, Pool, Progress, revived
from tests.conftest import write_images
from tests.pipeline.test_kill import sha256
from tests.test_lifeline import gone, of_room, start, until

# A running sum goes to ONNX engines, and not to C.
NETWORK = """
from torch import nn


class Summed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.conv(x).relu().cumsum(3).mean((2, 3)))


def make():
    return Summed()
"""

RECIPE = """
model: {module: summed:make}
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 12}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: a, epochs: 2}
  - train: {name: b, from: model, epochs: 2, lr: 0.02}
  - quantize: {name: a-int8, from: a}
targets: [cpu, c]
"""


class Record:
    """A Reporter that keeps what runs at once. pairs: (a node that started, those that ran)"""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.pairs: list[tuple[Node, frozenset[str]]] = []
        self.most = 0

    def start(self, node: Node, index: int, total: int) -> None:
        assert index < total
        self.pairs.append((node, frozenset(self.running)))
        self.running.add(node.id)
        self.most = max(self.most, len(self.running))

    def progress(self, node: Node, *_: Any) -> None:
        assert node.id in self.running

    def finish(self, node: Node, *_: Any) -> None:
        self.running.discard(node.id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, summed.py, two.yaml."""
    room = tmp_path_factory.mktemp("two")
    write_images(room / "images" / "train", 16, seed=1)
    write_images(room / "images" / "test", 8, seed=2)
    (room / "summed.py").write_text(NETWORK)
    (room / "two.yaml").write_text(RECIPE)
    return room


@pytest.fixture(scope="module")
def both(folder: Path) -> dict[int, tuple[Outcome, dict[str, Any], Record, Path]]:
    """jobs -> what the run of the recipe gave."""
    found = {}
    for jobs in (1, 2):
        record, out = Record(), folder / f"out{jobs}"
        checked = recipe.load(folder / "two.yaml", (), ())
        found[jobs] = (*made(checked, {}, out, record, jobs), record, out)
    return found


def test_two_processes_make_the_bytes_of_one(both) -> None:
    assert len(sha256(both[1][3])) == 3
    assert sha256(both[2][3]) == sha256(both[1][3])
    for name in ("a", "b"):
        one, two = (both[n][3] / "models" / name / "weights.safetensors" for n in both)
        assert one.read_bytes() == two.read_bytes()


def test_two_processes_give_the_results_of_one(both) -> None:
    measured = (*MEASURED, "calibration", "reason")
    one, two = (
        [{k: v for k, v in row.items() if k not in measured} for row in both[n][1]["results"]]
        for n in both
    )
    assert one == two
    first, second = both[1][0], both[2][0]
    for name in ("folders", "failures", "seconds"):
        assert list(getattr(first, name)) == list(getattr(second, name))
    assert (first.made, first.reused) == (second.made, second.reused)


def test_a_target_that_fails_leaves_the_others(both) -> None:
    for outcome, data, _, _ in both.values():
        assert {row["target"]: row["status"] for row in data["results"]} == {
            "cpu": "ok", "c": "failed",
        }  # fmt: skip
        failed = {name: (type(e), str(e)) for name, e in outcome.failures.items()}
        assert failed == {
            f"bundle:{step}@c": (errors.UnsupportedError, failed["bundle:a@c"][1])
            for step in ("a", "b", "a-int8")
        }


def test_quiet_is_the_table_alone(both, folder: Path, edgecv: Callable) -> None:
    done = edgecv("run", folder / "two.yaml", "--out", both[1][3], "--quiet", "--no-report")
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("two  (")
    assert "0 steps made" in done.out


def test_what_measures_is_alone(both) -> None:
    assert both[1][2].most == 1
    record = both[2][2]
    assert record.most == 2
    measuring = {node.id for node, _ in record.pairs if node.measures}
    assert measuring == {"measure:cpu", "measure:c"}
    for node, others in record.pairs:
        assert not (others & measuring), node.id
        assert not (node.measures and others), node.id
    assert frozenset({"a"}) in {others for node, others in record.pairs if node.id == "b"}


def test_searches_and_whatever_is_chosen_by_the_clock_measure(folder: Path) -> None:
    def measuring(stages: str) -> set[str]:
        path = folder / "clock.yaml"
        path.write_text(RECIPE.partition("stages:")[0] + f"stages: {stages}\ntargets: [cpu]\n")
        nodes = Expansion(recipe.load(path, (), ())).nodes.values()
        return {node.id for node in nodes if node.measures}

    assert measuring("[train: {name: a, epochs: 1}, quantize: {name: q, sqnr_db: 20}]") == {
        "q@cpu", "measure:cpu",
    }  # fmt: skip
    prune = "prune: {name: p, latency_ratio: 0.5, finetune_epochs: 1}"
    assert measuring(f"[train: {{name: a, epochs: 1}}, {prune}]") == {"p", "measure:cpu"}


def test_a_step_that_all_need_stops_the_run_and_keeps_what_came_before(folder: Path) -> None:
    """b diverges; a, which comes before it, is kept, and the error is that of one process."""
    said = {}
    for jobs in (1, 2):
        settings = ("b.lr=1e30", "a.epochs=3")
        checked = recipe.load(folder / "two.yaml", settings, ())
        store = Store(folder / f"diverged{jobs}")
        with pytest.raises(errors.StageError) as raised:
            pipeline.run(checked, folder, store=store, compare=False, jobs=jobs)
        said[jobs] = str(raised.value)
        nodes = Expansion(checked, compare=False).nodes
        assert store.get(nodes["a"].digest) is not None
        assert store.get(nodes["b"].digest) is None
    assert said[1] == said[2]


@pytest.fixture
def busy(folder: Path) -> Path:
    """A recipe of two long trainings that do not read each other."""
    path = folder / "long.yaml"
    path.write_text(RECIPE.replace("epochs: 2", "epochs: 100000"))
    return path


def test_a_worker_that_dies_is_an_engine_that_died(busy: Path, tmp_path: Path) -> None:
    expansion = Expansion(recipe.load(busy, (), ()))
    execution = Execution(Outcome(expansion), Store(tmp_path), Silent())
    for name in ("data:train", "data:test", "model"):
        execution.visit(expansion.nodes[name])
    room = None
    with Pool(2, expansion, tmp_path) as pool:
        pool.begin(execution.begin(expansion.nodes["a"])[0])
        event = next(e for _ in iter(int, 1) for e in pool.events())
        assert isinstance(event, Progress)
        assert event.node == "a"
        (worker,) = pool._workers
        room = worker.said.parent
        os.kill(worker.process.pid, signal.SIGKILL)
        event = next(e for _ in iter(int, 1) for e in pool.events() if isinstance(e, Done))
        assert isinstance(event.error, errors.EngineError)
        assert str(event.error) == "a: the engine died of SIGKILL (--jobs 1 takes less memory)"
        assert not pool.started
    assert not room.exists()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_workers_end_with_the_command(
    busy: Path, tmp_path: Path, edgecv: Callable, name: str
) -> None:
    room, out = tmp_path / "room", tmp_path / "out"
    command = start(room, "-m", "edgecv", "run", str(busy), "--out", str(out), "--jobs", "2")
    try:
        begun = lambda: len([*out.glob("store/partial/*/checkpoint.safetensors")])  # noqa: E731
        assert until(lambda: begun() == 2), "two train at once"
        workers = [pid for pid in of_room(room) if pid != command.pid]
        assert len(workers) == 2
        began = time.monotonic()
        command.send_signal(getattr(signal, name))
        err = command.communicate(timeout=60)[1]
        took = time.monotonic() - began
        assert until(lambda: all(map(gone, workers)), 10), "orphans"
        assert until(lambda: not any(room.iterdir())), list(room.rglob("*"))
        if name == "SIGINT":
            assert command.returncode == 130
            last = err.strip().splitlines()[-1]
            assert last == "interrupted: the same command goes on where this one stopped"
            assert took < 5, "a machine that does something else may take some of them"
    finally:
        command.kill()
        command.communicate()
    plan = edgecv("plan", busy, "--out", out, "--json")
    actions = {n["node"]: n["action"] for n in json.loads(plan.out)["nodes"]}
    assert (actions["a"], actions["b"]) == ("resume", "resume")


@pytest.mark.parametrize(
    "error",
    [
        errors.UnsupportedError("c: /CumSum", "has no kernel", "another target"),
        errors.NotFiniteError("a", "answers NaN"),
        FileNotFoundError(2, "No such file or directory", "/x"),
        ModuleNotFoundError("No module named 'rich'", name="rich"),
        ValueError("shapes differ"),
        KeyError("a"),
    ],
)
def test_an_error_comes_back_as_it_was(error: Exception) -> None:
    try:
        raise error
    except Exception as e:
        found = revived(json.loads(json.dumps(told(e))))
    assert type(found) is type(error)
    assert getattr(found, "filename", None) == getattr(error, "filename", None)
    assert getattr(found, "name", None) == getattr(error, "name", None)
    if isinstance(error, errors.EdgecvError):
        assert (found.where, found.what, found.hint) == (error.where, error.what, error.hint)
    else:
        assert "test_an_error_comes_back_as_it_was" in "".join(found.__notes__)


def test_an_error_of_somebody_elses_type_says_its_name() -> None:
    class OddError(Exception):
        def __init__(self, code: int) -> None:
            super().__init__(f"code {code}")

    assert str(revived(told(OddError(3)))) == "OddError: code 3"
    unicode = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
    assert str(revived(told(unicode))).startswith("UnicodeDecodeError: ")


def test_jobs_are_as_many_as_there_are_cores_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7}, raising=False)
    assert [default(threads) for threads in (1, 2, 3, 8)] == [4, 2, 1, 1]


def test_warnings_come_in_the_order_of_the_recipe(both, folder: Path, caplog) -> None:
    """Of two branches and two targets, whoever is done first."""
    from edgecv.plan.side_by_side import _Schedule

    outcome = both[1][0]
    open_ = Outcome(outcome.expansion, {k: v for k, v in outcome.folders.items() if k != "a"})
    schedule = _Schedule(Execution(open_, Store(folder), Silent()), None)  # type: ignore[arg-type]
    for node in ("bundle:a@cpu", "b", "model"):
        record = logging.makeLogRecord({
            "name": "edgecv.x", "levelno": logging.WARNING, "levelname": "WARNING", "msg": node,
        })  # fmt: skip
        schedule.said[node] = [record]
    schedule.say()
    assert caplog.messages == ["model"]  # a is open
    schedule.say(every=True)
    assert caplog.messages == ["model", "b", "bundle:a@cpu"]
