"""What a measurement holds, and what must be true of any machine's. No figure is expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from edgecv.bench.machine import FEATURES, machine
from edgecv.bench.measure import Series, _summary, measure
from edgecv.errors import BundleError
from edgecv.runtime.archive import write_bundle
from tests.runtime.conftest import described, golden, network

ROUNDS = 5


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """bundle(name, size) -> a bundle of a tiny real network."""

    def make(name: str, size: int = 8, goldens: bool = True) -> Path:
        model, manifest = network(size), described(size)
        arrays = golden(model, manifest) if goldens else ({}, {})
        return write_bundle(tmp_path / f"{name}.edgecv", manifest, {"model.onnx": model}, *arrays)

    return make


def test_what_a_measurement_holds(bundle: Callable[..., Path]) -> None:
    paths = [bundle("a"), bundle("b", 32)]
    data = measure(paths, rounds=ROUNDS, burst_ms=1)
    json.dumps(data)
    assert (data["schema"], data["threads"], data["rounds"]) == (1, 1, ROUNDS)
    assert data["machine"] == machine()
    assert len(data["load_average"]) == 2
    assert [b["bundle"] for b in data["bundles"]] == ["a.edgecv", "b.edgecv"]
    for path, found in zip(paths, data["bundles"], strict=True):
        times = found["latency_ms"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"]
        assert times["mean"] > 0
        assert found["cpu_ms"] > 0
        assert found["size_bytes"] == path.stat().st_size
        assert found["calls"] >= ROUNDS
        assert found["warmup_calls"] >= 20
        low, high = found["latency_ratio_quartiles"]
        assert low <= found["latency_ratio"] <= high


def test_the_first_is_the_reference(bundle: Callable[..., Path]) -> None:
    first = measure([bundle("a")], rounds=ROUNDS, burst_ms=1)["bundles"][0]
    assert first["latency_ratio"] == first["cpu_time_ratio"] == 1.0
    assert first["latency_ratio_quartiles"] == [1.0, 1.0]


def test_a_bundle_is_as_fast_as_itself(bundle: Callable[..., Path]) -> None:
    path = bundle("a", 32)
    _, again = measure([path, path], rounds=15, burst_ms=2)["bundles"]
    assert 0.5 < again["latency_ratio"] < 2
    assert 0.5 < again["cpu_time_ratio"] < 2


def test_much_more_work_takes_longer(bundle: Callable[..., Path]) -> None:
    _, large = measure([bundle("a"), bundle("b", 160)], rounds=ROUNDS, burst_ms=2)["bundles"]
    assert large["latency_ratio"] > 2  # 400 times the pixels


def test_a_bundle_without_goldens_is_named(bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match=r"bare\.edgecv: has no golden inputs"):
        measure([bundle("bare", goldens=False)], rounds=3, burst_ms=1)


def series(walls_ms: list[list[float]], cpu_ms: float) -> Series:
    """A finished measurement: one list of calls a round."""
    return Series(
        Path(__file__),
        lambda: None,
        wall=[int(1e6 * v) for r in walls_ms for v in r],
        round_wall=[1e6 * float(np.median(r)) for r in walls_ms],
        round_cpu=[1e6 * cpu_ms] * len(walls_ms),
    )


def test_summary_by_hand() -> None:
    base = series([[2, 2, 2], [4, 4, 4], [2, 2, 2]], cpu_ms=2)
    found = _summary(series([[1, 1, 9], [2, 2, 2], [1, 1, 1]], cpu_ms=1), base, threads=1)
    assert found["latency_ratio"] == 0.5, "round by round, whatever the machine's pace"
    assert found["cpu_time_ratio"] == 0.5
    assert found["latency_ms"]["p50"] == 1
    assert found["latency_ms"]["mean"] == pytest.approx(20 / 9)
    assert found["calls"] == 9


@pytest.mark.parametrize(
    ("cpu", "threads", "busy"), [(1, 1, False), (0.5, 1, True), (0.5, 2, False)]
)
def test_busy_is_wall_time_well_above_cpu_time(cpu: float, threads: int, busy: bool) -> None:
    found = series([[1, 1], [1, 1]], cpu_ms=cpu)
    assert _summary(found, found, threads)["busy"] is busy


def test_the_machine_is_described_without_naming_it() -> None:
    here = machine()
    assert here == machine(), "it is part of a key: nothing in it varies"
    assert here["cores"] >= 1
    assert here["memory_mb"] > 0
    assert here["cpu"]
    assert set(here["features"]) <= set(FEATURES)
    import platform

    assert platform.node() not in json.dumps(here) or len(platform.node()) < 4
