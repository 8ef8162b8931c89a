"""kill -9 of `edgecv run` at ten random moments, then the same command: reused? the same bytes?

    python benchmarks/kill_resume.py [--recipe RECIPE] [--kills 10] [--seed 0] [--out RESULT.json]

An uninterrupted run gives the reference bundles and the time T. A second run, in a folder of its
own, is killed and started again: each kill comes after a random time, on average 3/40 T for ten,
so they are spread over the recipe. Every kill is SIGKILL to the process group: the command and
its engines' processes. After each, finished steps (folders in the store) must be the same inodes
with the same times. In the end the SHA-256 of every bundle is compared with the reference's; of
bundles that differ, the members. Leave the sources alone meanwhile: a bundle names their digest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from edgecv import __version__
from edgecv.benchmark.machine import machine

ROOT = Path(__file__).parents[1]


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgecv", "run", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """digest -> inode and time of the last file written of a finished step."""
    stats = {p.parent.name: p.stat() for p in (out / "store" / "done").glob("*/key.json")}
    return {digest: (s.st_ino, s.st_mtime_ns) for digest, s in stats.items()}


def bundles(out: Path) -> dict[str, str]:
    paths = sorted((out / "bundles").glob("*.edgecv"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def differing_members(a: Path, b: Path) -> list[str]:
    with zipfile.ZipFile(a) as one, zipfile.ZipFile(b) as two:
        names = sorted({*one.namelist(), *two.namelist()})
        here, there = set(one.namelist()), set(two.namelist())
        return [n for n in names if not (n in here and n in there and one.read(n) == two.read(n))]


def whole(recipe: Path, out: Path) -> float:
    """Run to the end; the seconds it took."""
    began = time.monotonic()
    code = start(recipe, out).wait()
    if code:
        raise SystemExit(f"edgecv run ended with {code}")
    return time.monotonic() - began


def killed(recipe: Path, out: Path, after_s: float, before: dict[str, Any]) -> dict[str, Any]:
    """Run and kill once; what was there afterwards."""
    process = start(recipe, out)
    time.sleep(after_s)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    after = finished(out)
    return {
        "after_s": round(after_s, 2),
        "killed": running,
        "steps_finished": len(after),
        "steps_touched": sum(after.get(d) != mark for d, mark in before.items()),
    }


def experiment(recipe: Path, kills: int, seed: int, room: Path) -> dict[str, Any]:
    rng = random.Random(seed)
    reference, out = room / "whole", room / "killed"
    total_s = whole(recipe, reference)
    moments: list[dict[str, Any]] = []
    # What is finished is not made again, so the times from start to kill add up to the whole run,
    # less what the kills destroyed: with a mean of 3/4 T/kills they end before the run does.
    for _ in range(kills):
        after_s = max(0.3, rng.uniform(0, 1.5 * total_s / kills))
        moments.append(killed(recipe, out, after_s, finished(out)))
        print(moments[-1], file=sys.stderr)
    before = finished(out)
    rest_s = whole(recipe, out)
    after = finished(out)
    a, b = bundles(reference), bundles(out)
    different = {
        name: differing_members(reference / "bundles" / name, out / "bundles" / name)
        for name in a.keys() & b.keys()
        if a[name] != b[name]
    }
    return {
        "schema": 1,
        "edgecv": __version__,
        "recipe": recipe.name,
        "machine": machine(),
        "seed": seed,
        "uninterrupted_s": round(total_s, 1),
        "kills": moments,
        "last_run_s": round(rest_s, 1),
        "steps": len(after),
        "steps_touched": sum(after.get(d) != mark for d, mark in before.items())
        + sum(m["steps_touched"] for m in moments),
        "bundles": a,
        "bundles_missing": sorted(a.keys() ^ b.keys()),
        "bundles_different": different,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "quickstart.yaml")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    default = ROOT / "benchmarks" / "results" / "kill_resume.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgecv-kill-") as room:
        data = experiment(options.recipe.resolve(), options.kills, options.seed, Path(room))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(data, indent=1) + "\n")
    good = not (data["steps_touched"] or data["bundles_missing"] or data["bundles_different"])
    killed_all = all(m["killed"] for m in data["kills"])
    print(f"{options.out}: {'identical' if good else 'DIFFERENT'}; all kills hit: {killed_all}")
    return 0 if good and killed_all else 1


if __name__ == "__main__":
    raise SystemExit(main())
