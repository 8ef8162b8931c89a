"""SIGKILL at random moments, then the same command: nothing finished is lost or made again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.plan.results import MEASURED

# Kills as (how many steps are finished, seconds more at most): in training, in an export, in an
# engine's own process.
MOMENTS = ((2, 2.5), (6, 1.0), (16, 6.0))
LIMIT_S = 120


def done_folders(out: Path) -> dict[str, tuple[int, int]]:
    """digest -> inode and time of key.json, the last file written of a finished step."""
    found = {}
    for path in (out / "store" / "done").glob("*/key.json"):
        stat = path.stat()
        found[path.parent.name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def sha256(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "bundles").glob("*.edgecv"))
    }


def kill_when(process: subprocess.Popen[bytes], out: Path, finished: int, later_s: float) -> bool:
    """SIGKILL the whole group then. False when the run was over before."""
    start = time.monotonic()
    while len(done_folders(out)) < finished and process.poll() is None:
        assert time.monotonic() - start < LIMIT_S
        time.sleep(0.01)
    time.sleep(later_s)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


@pytest.fixture(scope="module")
def killed(project: Path, started: Callable, edgecv: Callable, tmp_path_factory) -> Path:
    """--out of a run that was killed three times and then let finish."""
    pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("killed") / "out"
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    command = ("run", "tiny.yaml", "--out", out)
    before: dict[str, tuple[int, int]] = {}
    for finished, most_s in MOMENTS:
        later_s = rng.uniform(0, most_s)
        process = started(*command, cwd=project)
        interrupted = kill_when(process, out, finished, later_s)
        after = done_folders(out)
        place = f"seed {seed}: {later_s:.2f} s after {finished} steps, {len(after)} finished"
        assert interrupted, f"{place}: ended with {process.returncode} before it was killed"
        assert {k: after.get(k) for k in before} == before, f"{place}: finished steps were touched"
        assert not (out / "results.json").exists()
        before = after
    finished_run = edgecv(*command, cwd=project)
    assert finished_run.code == 0, f"seed {seed}: {finished_run.err}"
    after = done_folders(out)
    assert {k: after.get(k) for k in before} == before, f"seed {seed}: made again"
    assert f"{len(after) - len(before)} steps made" in finished_run.out
    return out


def test_the_bundles_of_a_killed_run_are_those_of_an_uninterrupted_one(killed, finished) -> None:
    expected = sha256(finished.out)
    assert len(expected) == 9  # five targets, the fp32 reference on all but the Edge TPU
    assert sha256(killed) == expected


def test_the_models_of_a_killed_run_are_those_of_an_uninterrupted_one(killed, finished) -> None:
    for step in ("dense", "small"):
        for name in ("model.json", "weights.safetensors"):
            whole = (finished.out / "models" / step / name).read_bytes()
            assert (killed / "models" / step / name).read_bytes() == whole, (step, name)


def test_a_killed_run_ends_in_the_same_results_but_for_the_clock(killed, finished) -> None:
    measured = (*MEASURED, "calibration", "reason")

    def rows(out: Path) -> list[dict]:
        data = json.loads((out / "results.json").read_text())
        return [{k: v for k, v in r.items() if k not in measured} for r in data["results"]]

    assert rows(killed) == rows(finished.out)


def test_nothing_is_left_lying_about(killed) -> None:
    assert list((killed / "store" / "partial").iterdir()) == []
    assert not [p for p in killed.rglob("*.tmp") if "store" not in p.parts]
