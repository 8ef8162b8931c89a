"""What a measurement holds, and what must be true of any machine's. No figure is expected."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from edgecv import child
from edgecv.benchmark import bundle_runner
from edgecv.benchmark.bundle_runner import BundleSubject
from edgecv.benchmark.calibration import ONE_THREAD, VERSION, Calibration
from edgecv.benchmark.machine import FEATURES, machine
from edgecv.benchmark.measure import BUSY, Plan, _warnings, measure, shortest, timings
from edgecv.benchmark.sampling import Series
from edgecv.errors import EngineError, MissingExtraError
from edgecv.runtime.archive import write_bundle
from tests.runtime.conftest import described, golden, make_bundle, network

__all__ = ["make_bundle"]

# Short, and never sure enough to end before its rounds are over or after them to go on.
SHORT = Plan(rounds=5, precision=1e6, burst_ms=1.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """bundle(name, size) -> a bundle of a tiny real network."""

    def make(name: str, size: int = 8, goldens: bool = True) -> Path:
        model, manifest = network(size), described(size)
        arrays = golden(model, manifest) if goldens else ({}, {})
        return write_bundle(tmp_path / f"{name}.edgecv", manifest, {"model.onnx": model}, *arrays)

    return make


def figures(
    paths: list[Path], plan: Plan = SHORT, reference: int = 0, starts: bool = False
) -> dict[str, Any]:
    """A measurement as the commands make it: in a process whose numpy has one thread."""
    job = {
        "bundles": [str(p) for p in paths], "plan": asdict(plan), "reference": reference,
        "starts": starts,
    }  # fmt: skip
    data = child.call("edgecv.benchmark.measure", job, "bench", environment=ONE_THREAD)
    json.dumps(data, allow_nan=False)
    return data


def test_what_a_measurement_holds(bundle: Callable[..., Path]) -> None:
    paths = [bundle("a"), bundle("b", 32)]
    data = figures(paths, starts=True)
    assert set(data) == {
        "schema", "machine", "sensors", "threads", "scenario", "batch", "seed", "rounds",
        "sittings", "seconds", "precision", "reached", "calibration", "bundles", "warnings",
    }  # fmt: skip
    assert (data["schema"], data["threads"], data["rounds"]) == (2, 1, SHORT.rounds)
    assert (data["scenario"], data["batch"], data["seed"]) == ("single-stream", 1, 0)
    assert 1 <= data["sittings"] <= SHORT.rounds
    assert data["machine"] == machine()
    assert set(data["sensors"]) == {"before", "after"}
    assert data["calibration"]["version"] == VERSION
    assert data["calibration"]["numpy"] == np.__version__
    assert data["calibration"]["latency_ms"] > 0
    assert [b["bundle"] for b in data["bundles"]] == ["a.edgecv", "b.edgecv"]
    for path, found in zip(paths, data["bundles"], strict=True):
        manifest = bundle_runner.read_bundle(path).manifest
        assert found["engine"] == "onnxruntime"
        assert (found["target"], found["precision"]) == ("cpu", "fp32")
        times = found["latency_ms"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"]
        assert times["mean"] > 0
        assert found["cpu_ms"] > 0
        assert found["download_bytes"] == path.stat().st_size
        assert found["size_bytes"] == manifest["size_bytes"] < found["download_bytes"]
        assert found["calls"] >= SHORT.rounds
        assert found["warmup_calls"] >= 9 * data["sittings"]
        for ratio in ("latency_ratio", "cpu_time_ratio"):
            low, high = found[f"{ratio}_interval"]
            assert 0 < low <= found[ratio] <= high
        assert found["calibrated"]["error"] > 0
        assert found["memory_mb"]["peak"] > 0, "started in a process of its own"
        assert found["load_ms"] > 0


def test_without_starts_nothing_is_said_of_them(bundle: Callable[..., Path]) -> None:
    (found,) = figures([bundle("a")])["bundles"]
    assert not {"import_ms", "load_ms", "first_call_ms", "memory_mb"} & set(found)


@pytest.mark.parametrize("reference", [0, 1])
def test_the_reference_is_exactly_as_fast_as_itself(
    bundle: Callable[..., Path], reference: int
) -> None:
    found = figures([bundle("a"), bundle("b", 96)], reference=reference)["bundles"]
    for ratio in ("latency_ratio", "cpu_time_ratio"):
        assert found[reference][ratio] == 1.0
        assert found[reference][f"{ratio}_interval"] == [1.0, 1.0]
    small, large = (found[i]["latency_ratio"] for i in (0, 1))
    assert small < large, "144 times the pixels"
    assert found[1 - reference]["latency_ratio_interval"] != [1.0, 1.0]


def test_a_bundle_is_as_fast_as_itself(bundle: Callable[..., Path]) -> None:
    path = bundle("a", 32)
    plan = Plan(rounds=12, precision=1e6, burst_ms=2.0)
    _, again = figures([path, path], plan)["bundles"]
    assert 0.5 < again["latency_ratio"] < 2
    assert 0.5 < again["cpu_time_ratio"] < 2


def test_much_more_work_takes_longer(bundle: Callable[..., Path]) -> None:
    _, large = figures([bundle("a"), bundle("b", 160)])["bundles"]
    assert large["latency_ratio"] > 2  # 400 times the pixels


def test_a_latency_over_the_calibration_workloads_is_what_is_kept(
    bundle: Callable[..., Path],
) -> None:
    data = figures([bundle("a"), bundle("b", 96)])
    pace = data["calibration"]["latency_ms"]
    for found in data["bundles"]:
        calibrated = math.exp(found["calibrated"]["log_ratio"])
        assert 0.5 < calibrated / (found["latency_ms"]["p50"] / pace) < 2.0


def test_a_bundle_without_goldens_is_named(bundle: Callable[..., Path]) -> None:
    with pytest.raises(MissingExtraError, match=r"bare\.edgecv: has no golden inputs"):
        measure([bundle("a"), bundle("bare", goldens=False)], SHORT)


# how long it goes on


def test_it_ends_when_the_intervals_are_narrow(bundle: Callable[..., Path]) -> None:
    data = figures([bundle("a"), bundle("b", 32)])
    assert data["reached"] is True
    assert not any("budget" in text for text in data["warnings"])


def test_the_budget_is_kept_and_said_to_be_spent(bundle: Callable[..., Path]) -> None:
    plan = Plan(rounds=5, precision=1e-9, budget_s=2.0, burst_ms=1.0)
    data = figures([bundle("a"), bundle("b", 32)], plan)
    assert data["reached"] is False
    assert data["rounds"] > plan.rounds, "the budget is used"
    assert any("the budget of 2 s was spent" in text for text in data["warnings"])


def test_a_budget_of_nothing_still_makes_its_rounds(bundle: Callable[..., Path]) -> None:
    data = figures([bundle("a")], Plan(rounds=4, precision=1e-9, budget_s=0.0, burst_ms=1.0))
    assert (data["rounds"], data["reached"]) == (4, False)


def test_subjects_are_closed_also_when_measuring_fails(
    bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def fail(_: object) -> None:
        raise EngineError("a", "died")

    monkeypatch.setattr(Calibration, "open", fail)
    monkeypatch.setattr(BundleSubject, "close", lambda self: closed.append(self.name))
    with pytest.raises(EngineError, match="died"):
        measure([bundle("a"), bundle("b")], SHORT, starts=False)
    assert sorted(closed) == ["a.edgecv", "b.edgecv"]


# scenarios


def test_offline_shares_a_batch_between_threads(bundle: Callable[..., Path]) -> None:
    plan = Plan(
        threads=2, scenario="offline", batch=6, rounds=3, precision=1e6, burst_ms=1.0, seed=7
    )
    data = figures([bundle("a"), bundle("b", 32)], plan)
    assert (data["threads"], data["scenario"], data["batch"]) == (2, "offline", 6)
    assert data["seed"] == 7
    for found in data["bundles"]:
        assert found["throughput"] == pytest.approx(1000 * 6 / found["latency_ms"]["p50"])


def test_throughput_counts_the_images_of_a_call(bundle: Callable[..., Path]) -> None:
    plan = Plan(batch=8, rounds=3, precision=1e6, burst_ms=1.0)
    (found,) = figures([bundle("a")], plan)["bundles"]
    assert found["throughput"] == pytest.approx(1000 * 8 / found["latency_ms"]["p50"])


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """("open", threads), ("run", n) or ("close", n) of every session n that a subject opens."""
    events: list[tuple[str, int]] = []
    real = bundle_runner.opened
    numbers = count()

    def opened(contents: Any, threads: int) -> Any:
        made, number = real(contents, threads), next(numbers)
        run, close = made.session.run, made.close
        events.append(("open", threads))
        made.session.run = lambda feeds: (events.append(("run", number)), run(feeds))[1]
        made.close = lambda: (events.append(("close", number)), close())[1]
        return made

    monkeypatch.setattr(bundle_runner, "opened", opened)
    return events


def test_a_bundle_is_opened_anew_before_the_old_one_is_closed(
    bundle: Callable[..., Path], sessions: list[tuple[str, int]]
) -> None:
    subject = BundleSubject(bundle("a"))
    assert subject.name == "a.edgecv"
    subject.open()
    again = subject.open()
    assert sessions == [("open", 1), ("open", 1), ("close", 0)]
    again()
    assert sessions[-1] == ("run", 1)
    subject.close()
    assert sessions[-1] == ("close", 1)
    subject.close()
    assert len(sessions) == 5, "closed once"


def test_a_call_runs_a_batch_of_images(
    bundle: Callable[..., Path], sessions: list[tuple[str, int]]
) -> None:
    subject = BundleSubject(bundle("a"), threads=2, batch=5)
    call = subject.open()
    call()
    assert sessions == [("open", 2), *[("run", 0)] * 5]
    subject.close()


def test_offline_every_thread_has_a_session_and_a_share_of_the_batch(
    bundle: Callable[..., Path], sessions: list[tuple[str, int]]
) -> None:
    subject = BundleSubject(bundle("a"), threads=2, scenario="offline", batch=5)
    call = subject.open()
    call()
    assert sessions[:2] == [("open", 1), ("open", 1)]
    assert Counter(sessions[2:]) == {("run", 0): 3, ("run", 1): 2}
    pool = subject._pool
    subject.open()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(print)
    subject.close()
    assert Counter(name for name, _ in sessions) == {"open": 4, "close": 4, "run": 5}


def test_an_error_in_an_offline_session_is_not_swallowed(bundle: Callable[..., Path]) -> None:
    subject = BundleSubject(bundle("a"), threads=2, scenario="offline", batch=2)
    subject.open()
    subject._feeds = lambda: [{"image": np.zeros((1, 1), np.float32)}] * 2
    with pytest.raises(EngineError):
        subject.open()()
    subject.close()


def test_more_images_than_goldens_are_the_goldens_over_and_over(
    bundle: Callable[..., Path],
) -> None:
    subject = BundleSubject(bundle("a"), batch=7)
    golden_inputs = subject.contents.golden_inputs["image"]
    feeds = [feed["image"] for feed in subject._feeds()]
    assert [feed.shape for feed in feeds] == [(1, 3, 8, 8)] * 7
    for i, feed in enumerate(feeds):
        np.testing.assert_array_equal(feed[0], golden_inputs[i % 3])


# by hand


def series(walls_ms: list[list[float]], cpu_ms: float, energy_uj: float | None = None) -> Series:
    """What was measured of a subject: one list of calls a round."""
    return Series(
        Calibration(),
        burst=len(walls_ms[0]),
        warmup=21,
        wall=array("q", [round(1e6 * v) for calls in walls_ms for v in calls]),
        round_wall=[1e6 * float(np.median(calls)) for calls in walls_ms],
        round_cpu=[1e6 * cpu_ms] * len(walls_ms),
        round_energy=[] if energy_uj is None else [energy_uj] * len(walls_ms),
    )


def test_timings_by_hand() -> None:
    found = timings(series([[1, 1, 9], [2, 2, 2], [1, 1, 1]], cpu_ms=1.5, energy_uj=2500.0), 4)
    assert found["latency_ms"]["p50"] == 1
    assert found["latency_ms"]["p90"] == pytest.approx(2 + 0.2 * 7)
    assert found["latency_ms"]["p99"] == pytest.approx(2 + 0.92 * 7)
    assert found["latency_ms"]["mean"] == pytest.approx(20 / 9)
    assert found["cpu_ms"] == 1.5
    assert found["throughput"] == 4000
    assert found["energy_mj"] == 2.5
    assert (found["calls"], found["warmup_calls"]) == (9, 21)
    assert timings(series([[1.0]], 1.0))["energy_mj"] is None


@pytest.mark.parametrize(
    ("cpu_ms", "threads", "busy"),
    [(1.0, 1, False), (1.02 / BUSY, 1, False), (0.98 / BUSY, 1, True), (0.5, 2, False)],
)
def test_busy_is_wall_time_well_above_cpu_time(cpu_ms: float, threads: int, busy: bool) -> None:
    assert timings(series([[1, 1], [1, 1]], cpu_ms), threads=threads)["busy"] is busy


def row(wall: tuple[float, float], cpu: tuple[float, float], busy: bool = False) -> dict[str, Any]:
    return {
        "bundle": "a.edgecv", "busy": busy,
        "latency_ratio": sum(wall) / 2, "latency_ratio_interval": list(wall),
        "cpu_time_ratio": sum(cpu) / 2, "cpu_time_ratio_interval": list(cpu),
    }  # fmt: skip


def test_a_calm_measurement_warns_of_nothing() -> None:
    rows = [row((1.0, 1.0), (1.0, 1.0)), row((1.9, 2.1), (1.7, 1.95))]
    assert _warnings(rows, Plan(), reached=True) == []


@pytest.mark.parametrize(
    ("rows", "reached", "says"),
    [
        ([row((1, 1), (1, 1), True), row((2, 2), (2, 2), True)], True, "the machine is busy"),
        ([row((1.9, 2.1), (1.0, 1.2))], True, "a.edgecv: 2.00 by the clock, 1.10 by CPU time"),
        ([row((1.0, 1.2), (1.9, 2.1))], True, "a.edgecv: 1.10 by the clock, 2.00 by CPU time"),
        ([row((1, 1), (1, 1))], False, "the budget of 30 s was spent before the calibrated"),
        (
            [row((1, 1), (1, 1))] * 2,
            False,
            "the budget of 30 s was spent before the intervals were",
        ),
    ],
)
def test_warnings_by_hand(rows: list[dict[str, Any]], reached: bool, says: str) -> None:
    (text,) = _warnings(rows, Plan(), reached)
    assert says in text


def test_more_threads_than_cores_are_said() -> None:
    (text,) = _warnings([row((1, 1), (1, 1))], Plan(threads=4096), reached=True)
    assert text.startswith("4096 threads on ")


def test_bundles_of_one_name_are_told_apart_by_their_folders() -> None:
    paths = [
        Path(p) for p in ("runs/a/bundles/net.edgecv", "runs/b/bundles/net.edgecv", "x.edgecv")
    ]
    assert shortest(paths) == ["a/bundles/net.edgecv", "b/bundles/net.edgecv", "x.edgecv"]
    assert shortest(paths[1:]) == ["net.edgecv", "x.edgecv"]
    assert shortest([paths[0], paths[0]]) == ["net.edgecv"] * 2


def test_what_is_not_compiled_for_its_device_is_said(make_bundle: Callable[..., Path]) -> None:
    plan = Plan(rounds=3, budget_s=0.1, burst_ms=0.5, precision=1e6)
    found = measure([make_bundle(compiled=False)], plan, starts=False)
    assert "is not compiled for" in found["warnings"][0]


def test_several_threads_have_more_cpu_time_than_wall_time() -> None:
    assert _warnings([row((1.0, 1.2), (1.9, 2.1))], Plan(threads=2), reached=True) == []


# as a process


def test_a_child_measures_the_same_and_reports_how_far_it_is(bundle: Callable[..., Path]) -> None:
    paths = [bundle("a"), bundle("b", 32)]
    plan = {"rounds": 4, "precision": 1e6, "burst_ms": 1.0}
    job = {"bundles": [str(p) for p in paths], "plan": plan, "reference": 1, "starts": False}
    seen: list[tuple[float, float, str]] = []
    data = child.call(
        "edgecv.benchmark.measure", job, "bench", lambda *told: seen.append(told), ONE_THREAD
    )
    assert (data["schema"], data["rounds"], data["reached"]) == (2, 4, True)
    assert [b["bundle"] for b in data["bundles"]] == ["a.edgecv", "b.edgecv"]
    assert data["bundles"][1]["latency_ratio"] == 1.0
    assert [note for *_, note in seen[:2]] == ["starting a.edgecv", "starting b.edgecv"]
    assert seen[-1][2].startswith("4 rounds, ±")
    assert all(0 <= done <= total for done, total, _ in seen)


def test_what_the_child_cannot_measure_is_said_here(bundle: Callable[..., Path]) -> None:
    job = {"bundles": [str(bundle("bare", goldens=False))], "plan": {}}
    with pytest.raises(MissingExtraError, match=r"bare\.edgecv: has no golden inputs"):
        child.call("edgecv.benchmark.measure", job, "bench")


def test_the_machine_is_described_without_naming_it() -> None:
    here = machine()
    assert here == machine(), "it is part of a key: nothing in it varies"
    assert here["cores"] >= 1
    assert here["memory_mb"] > 0
    assert here["cpu"]
    assert set(here["features"]) <= set(FEATURES)
    import platform

    assert platform.node() not in json.dumps(here) or len(platform.node()) < 4
