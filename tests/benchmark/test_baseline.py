"""Baseline files and what else a gate reads: what goes in comes out, and damage is one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv import files
from edgecv.benchmark import gate
from edgecv.benchmark.baseline import Baseline, load
from edgecv.errors import EdgecvError, RecipeError, StoreError
from tests.benchmark.judged import HERE, entry, timing
from tests.runtime.conftest import make_bundle

__all__ = ["make_bundle"]


def written(path: Path, *entries, **over) -> Path:
    kept = Baseline()
    for one in entries or (entry(),):
        kept.put(one, timing(**over))
    kept.write(path)
    return path


@pytest.mark.parametrize("images", [1, 7, 8, 9, 3000])
def test_a_round_trip(tmp_path: Path, images: int) -> None:
    before = entry(right=images // 2, images=images)
    (after,) = load(written(tmp_path / "b.json", before))
    assert (after.name, after.timings) == (before.name, (timing(),))
    assert np.array_equal(after.correct, before.correct)
    assert after.facts["metric"] == before.facts["metric"]


def test_it_is_small_enough_for_a_repository(tmp_path: Path) -> None:
    assert written(tmp_path / "b.json", entry(images=3000)).stat().st_size < 4096


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    a, b = (written(tmp_path / name).read_bytes() for name in ("a.json", "b.json"))
    assert a == b


def test_another_kind_of_machine_gets_an_entry_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json")
    kept = Baseline.read(path)
    there = {**HERE, "cpu": "Cortex-A76"}
    kept.put(entry(), timing(0.9, machine=there))
    kept.put(entry(), timing(0.6))
    kept.write(path)
    (found,) = load(path)
    assert {t.machine["cpu"]: t.calibrated[0] for t in found.timings} == {
        "This CPU": 0.6, "Cortex-A76": 0.9,
    }  # fmt: skip


def test_what_a_run_no_longer_has_leaves_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", entry("old"), entry("new"))
    kept = Baseline.read(path)
    assert kept.keep({"new"}) == ["old"]
    kept.write(path)
    assert [e.name for e in load(path)] == ["new"]
    assert "old" not in path.read_text()


def test_what_is_not_compiled_for_its_device_is_not_measured(
    make_bundle: Callable[..., Path],
) -> None:
    (compiled,) = load(make_bundle(file="a", compiled=True))
    (plain,) = load(make_bundle(file="b", compiled=False))
    assert (compiled.runnable, plain.runnable) == (True, False)
    assert plain.problem


def test_other_threads_get_an_entry_of_their_own(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json")
    kept = Baseline.read(path)
    kept.put(entry(), timing(0.3, threads=2))
    kept.write(path)
    (found,) = load(path)
    assert {t.threads: t.calibrated[0] for t in found.timings} == {1: 0.5, 2: 0.3}


def test_figures_of_another_network_of_that_name_are_dropped(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", machine={**HERE, "cpu": "Cortex-A76"})
    kept = Baseline.read(path)
    kept.put(entry(facts={"digest": "d2"}), timing())
    kept.write(path)
    (found,) = load(path)
    assert [t.machine["cpu"] for t in found.timings] == ["This CPU"]


def test_a_bundle(make_bundle) -> None:
    path = make_bundle()
    (found,) = load(path)
    assert (found.bundle, found.name, found.runnable) == (path, path.stem, True)
    assert found.facts["size_bytes"] > 0


def results(folder: Path, **row) -> Path:
    made = {
        "step": "small", "target": "cpu", "engine": "onnxruntime", "precision": "int8",
        "bundle": "bundles/small.cpu.edgecv", "metric": None, "status": "ok", "reason": "",
        "engine_bytes": 10, "latency_ms": {"p50": 2.0}, "memory_mb": {"peak": 70.0},
        "calibrated": {"log_ratio": 0.1, "error": 0.01}, "calibration": {}, "threads": 2, **row,
    }  # fmt: skip
    path = folder / "results.json"
    path.write_text(json.dumps({"machine": HERE, "results": [made]}))
    return path


def test_results_alone_are_figures(tmp_path: Path) -> None:
    (found,) = load(results(tmp_path))
    assert (found.name, found.bundle, found.facts["size_bytes"]) == ("small.cpu", None, 10)
    (figures,) = found.timings
    assert (figures.calibrated, figures.threads, figures.memory_mb) == ((0.1, 0.01), 2, 70.0)


def test_a_runs_folder_brings_its_bundles(tmp_path: Path, make_bundle) -> None:
    results(tmp_path)
    (tmp_path / "bundles").mkdir()
    there = tmp_path / "bundles" / "small.cpu.edgecv"
    there.write_bytes(make_bundle().read_bytes())
    (found,) = load(tmp_path)
    assert (found.bundle, found.name) == (there, "small.cpu")


def test_a_failed_row_says_why(tmp_path: Path) -> None:
    (found,) = load(results(tmp_path, status="failed", reason="does not fuse", bundle=None))
    assert found.problem == "does not fuse"


def test_what_a_run_did_not_measure_here_is_measured_on_the_device_only(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle()
    run = results(tmp_path, bundle=bundle.name, status="unavailable", reason="another machine")
    ((here,), (away,)) = load(run), load(run, away=True)
    assert (here.runnable, here.problem, away.runnable) == (False, "another machine", True)


def test_figures_of_a_device_are_the_devices(tmp_path: Path) -> None:
    there = {**HERE, "cpu": "Cortex-A76"}
    (found,) = load(results(tmp_path, machine=there))
    assert found.timings[0].machine == there


@pytest.mark.parametrize(("bundle", "problem"), [(None, "boom"), ("bundles/gone.edgecv", "")])
def test_a_measurement_that_failed_is_no_build_that_failed(
    tmp_path: Path, bundle: str | None, problem: str
) -> None:
    (found,) = load(results(tmp_path, bundle=bundle, status="failed", reason="boom"))
    assert (found.problem, found.bundle) == (problem, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[1]", "is no results file and no baseline"),
        ("{}", "is no results file and no baseline"),
        ('{"kind": "edgecv baseline", "schema": 99}', "schema 99"),
        ('{"kind": "edgecv baseline", "schema": 1}', "is damaged"),
        (
            '{"kind": "edgecv baseline", "schema": 1, "bundles": {"a": 1}, "machines": []}',
            "damaged",
        ),
        ('{"results": [{}]}', "is damaged"),
    ],
)
def test_what_is_damaged_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(RecipeError) as e:
        load(path)
    assert said in str(e.value)
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 2


def test_predictions_that_do_not_fit_are_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json")
    data = json.loads(path.read_text())
    data["bundles"]["net.cpu"]["correct"] = "!"
    path.write_text(json.dumps(data))
    with pytest.raises(RecipeError, match="damaged"):
        load(path)


def test_what_is_no_baseline_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "package.json"
    path.write_text('{"name": "mine"}')
    with pytest.raises(RecipeError, match="is no baseline"):
        Baseline.read(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgecvError, match="its folder is not there"):
        written(tmp_path / "nowhere" / "b.json")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "b.json")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        written(path, entry("other"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def damaged(path: Path, keys: tuple, value: object) -> Path:
    """A baseline whose value at keys is another; "gone" takes it away."""
    data = json.loads(written(path).read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    if value == "gone":
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(data))
    return path


BUNDLE = ("bundles", "net.cpu")
FIGURES = ("machines", 0, "bundles", "net.cpu")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("bundles",), []),
        (("machines",), None),
        (("machines", 0, "bundles"), None),
        ((*FIGURES, "calibrated"), [0.5]),
        ((*FIGURES, "latency_ms"), "gone"),
        ((*BUNDLE, "metric"), None),
        ((*BUNDLE, "correct"), 7),
    ],
)
def test_a_part_that_is_no_such_part_is_damage(tmp_path: Path, keys: tuple, value: object) -> None:
    path = damaged(tmp_path / "b.json", keys, value)
    for read in (load, Baseline.read):
        with pytest.raises(RecipeError, match="damaged"):
            read(path)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("machines",), {}),
        (("machines", 0, "machine"), None),
        (("machines", 0, "machine", "features"), 7),
        (("machines", 0, "calibration"), None),
        (("machines", 0, "bundles"), "text"),
        ((*FIGURES, "calibrated", 0), None),
        ((*FIGURES, "digest"), "gone"),
        ((*BUNDLE, "size_bytes"), "text"),
        ((*BUNDLE, "tools"), 7),
        ((*BUNDLE, "executed"), "text"),
        ((*BUNDLE, "metric", "value"), "gone"),
        ((*BUNDLE, "metric", "samples"), 400),  # of 1,000 answers that are packed there
    ],
)
def test_every_part_is_checked_before_anything_is_measured(
    tmp_path: Path, keys: tuple, value: object
) -> None:
    path = damaged(tmp_path / "b.json", keys, value)
    for read in (load, Baseline.read):
        with pytest.raises(RecipeError, match="damaged"):
            read(path)


def test_why_there_is_no_latency_is_remembered_until_there_is(tmp_path: Path) -> None:
    path, kept = tmp_path / "b.json", Baseline()
    kept.put(entry(), None, "others had the processor")
    kept.write(path)
    (found,) = load(path)
    assert (found.facts["no_latency"], found.timings) == ("others had the processor", ())
    assert (
        "others had the processor"
        in gate._comparable(found, gate.Options(), {"machine": HERE, "calibration": {}})[1]
    )
    again = Baseline.read(path)
    again.put(entry(), timing())
    again.write(path)
    assert "no_latency" not in path.read_text()


@pytest.mark.parametrize("name", ["../elsewhere.edgecv", "/etc/passwd", "a/../../b", "a\0b"])
def test_a_results_file_names_bundles_of_its_own_folder(tmp_path: Path, name: str) -> None:
    path = results(tmp_path, bundle=name)
    with pytest.raises(RecipeError, match="outside its folder"):
        load(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("b.json", "b.edgecv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(EdgecvError, match="no regular file"):
            load(tmp_path / name)
