"""How often does `edgecv gate` err? And do the intervals of `edgecv bench` hold what they promise?

Under a second process that loads a core at random, through the command line, one after the other:

    live      gates of two bundles: the same network (A/A), one 7% and one 10% slower, limit 5%
    stored    the same against a baseline file, written anew (`--update`) every ten gates of a kind;
              each gate uses the baseline before the last, so that it is a while old
    coverage  `edgecv bench` of one pair, whose 95% interval should hold the long-run ratio

    python benchmarks/gate_error_rates.py [--count 200] [--work FOLDER]

Every gate is a line in FOLDER/gates.jsonl: a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, ROOT, circumstances, table, verdict, write
from slowed import Load, bundles

from edgecv.benchmark.machine import load_average

KINDS = ("same", "7%", "10%")
# The most A/A gates that may say regression, the least of the others that must.
ASKED = {"same": 0.01, "7%": 0.90, "10%": 0.99}
LIMIT_S = 60.0
EVERY = 10
LONG = 5  # long measurements, for the ratio in the long run


def run(*arguments: str) -> tuple[int, dict[str, Any], float]:
    """An edgecv command with --json: exit code, what it printed, seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "edgecv", *arguments, "--json"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode not in (0, 1, 4):
        raise SystemExit(done.stderr)
    return done.returncode, json.loads(done.stdout), time.perf_counter() - began


class Record:
    """gates.jsonl: what was done, by (mode, kind, number)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [json.loads(line) for line in lines]
        self.done = {(r["mode"], r["kind"], r["number"]) for r in self.rows}

    def add(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as f:
            f.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self.done.add((row["mode"], row["kind"], row["number"]))

    def of(self, mode: str, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.rows if (r["mode"], r["kind"]) == (mode, kind)]


def gate(record: Record, mode: str, kind: str, number: int, baseline: Path, made: Any) -> None:
    if (mode, kind, number) in record.done:
        return
    clock = ("--max-memory-growth", "none")  # the clock is what can err
    code, data, seconds = run("gate", str(baseline), str(made[kind]), "--seed", str(number), *clock)
    check = next(c for c in data["pairs"][0]["checks"] if c["name"] == "latency")
    measured = data["pairs"][0]["measured"]
    record.add({
        "mode": mode, "kind": kind, "number": number, "code": code, "verdict": data["verdict"],
        "latency": check["verdict"], "change": check["change"], "bounds": check["bounds"],
        "floor": check["floor"], "rounds": measured["rounds"], "seconds": seconds,
        "reason": check["reason"],
    })  # fmt: skip


def live(record: Record, made: dict[str, Path], count: int) -> None:
    for number in range(count):
        for kind in KINDS:
            gate(record, "live", kind, number, made["same"], made)
        _tell("live", number, count)


def stored(record: Record, made: dict[str, Path], count: int, folder: Path) -> None:
    for number in range(count):
        block = number // EVERY
        for wanted in (block, block + 1):  # the one in use, and the next one's
            path = folder / f"baseline-{wanted}.json"
            if not path.exists():
                run("gate", str(path), str(made["same"]), "--update", "--seed", str(1000 + wanted))
        for kind in KINDS:
            gate(record, "stored", kind, number, folder / f"baseline-{block}.json", made)
        _tell("stored", number, count)


def coverage(record: Record, made: dict[str, Path], count: int) -> None:
    pair = [str(made["same"]), str(made["7%"])]
    long = ["--rounds", "500", "--budget", "30s"]
    for number in range(count):
        kinds = ["bench"] + ["long"] * (number % (count // LONG or 1) == 0)
        for kind in kinds:
            if ("coverage", kind, number) in record.done:
                continue
            extra = long if kind == "long" else []
            _, data, seconds = run("bench", *pair, "--seed", str(number), *extra)
            found = data["bundles"][1]
            record.add({
                "mode": "coverage", "kind": kind, "number": number,
                "ratio": found["latency_ratio"], "interval": found["latency_ratio_interval"],
                "rounds": data["rounds"], "seconds": seconds,
            })  # fmt: skip
        _tell("coverage", number, count)


def _tell(mode: str, number: int, count: int) -> None:
    if (number + 1) % 20 == 0:
        print(f"{mode} {number + 1}/{count}", file=sys.stderr, flush=True)


# results


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def rates(record: Record, mode: str) -> Iterator[dict[str, Any]]:
    for kind in KINDS:
        rows = record.of(mode, kind)
        hits = sum(r["verdict"] == "regression" for r in rows)
        seconds = sorted(r["seconds"] for r in rows)
        share, longest = hits / len(rows), seconds[-1]
        right = share <= ASKED[kind] if kind == "same" else share >= ASKED[kind]
        yield {
            "mode": mode, "kind": kind, "gates": len(rows), "regression": hits,
            "inconclusive": sum(r["verdict"] == "inconclusive" for r in rows),
            "pass": sum(r["verdict"] == "pass" for r in rows),
            "share": share, "interval": wilson(hits, len(rows)), "asked": ASKED[kind],
            # None: not judged, since others had the processor
            "median_floor": float(np.median([r["floor"] for r in rows if r["floor"] is not None])),
            "median_s": seconds[len(seconds) // 2], "longest_s": longest,
            "met": right and longest <= LIMIT_S,
        }  # fmt: skip


def covered(record: Record) -> dict[str, Any]:
    long, rows = record.of("coverage", "long"), record.of("coverage", "bench")
    weights = [r["rounds"] for r in long]
    logs = [w * math.log(r["ratio"]) for w, r in zip(weights, long, strict=True)]
    truth = math.exp(sum(logs) / sum(weights))
    hits = sum(r["interval"][0] <= truth <= r["interval"][1] for r in rows)
    widths = sorted(r["interval"][1] / r["interval"][0] - 1 for r in rows)
    share = hits / len(rows)
    return {
        "runs": len(rows), "held": hits, "share": share, "interval": wilson(hits, len(rows)),
        "long_run_ratio": truth, "long_run_rounds": sum(weights),
        "long_run_spread": [min(r["ratio"] for r in long), max(r["ratio"] for r in long)],
        "median_width": widths[len(widths) // 2],
        "median_s": sorted(r["seconds"] for r in rows)[len(rows) // 2],
        "met": 0.92 <= share <= 0.98,
    }  # fmt: skip


def page(found: list[dict[str, Any]], cover: dict[str, Any]) -> list[str]:
    shares = table(
        ["gates", "said regression", "95% of it", "asked", "inconclusive", "pass", "noise floor",
         "median s", "longest s", ""],
        [
            [f"{r['gates']} {r['mode']}, {_name(r['kind'])}", f"{r['share']:.1%}",
             _span(*r["interval"]),
             _asked(r), r["inconclusive"], r["pass"],
             f"{r['median_floor']:.1%}", f"{r['median_s']:.1f}", f"{r['longest_s']:.1f}",
             verdict(r["met"])]
            for r in found
        ],
    )  # fmt: skip
    spread = "-".join(f"{v:.4f}" for v in cover["long_run_spread"])
    return [
        "# How often the gate errs",
        "",
        f"`edgecv gate --max-slowdown 5%`, {MODEL_NAME} on ONNX Runtime, one "
        "thread, while a second process loads a core at random. live: two bundles, interleaved. "
        "stored: against a baseline file of some minutes before, through the calibration workload.",
        "",
        *shares,
        "",
        f"Interval coverage: of {cover['runs']} runs of `edgecv bench` (same against 7%), "
        f"{cover['held']} held the long-run ratio {cover['long_run_ratio']:.4f} in their 95% "
        f"interval: {cover['share']:.1%} (95%: {_span(*cover['interval'])}; "
        f"asked 92-98%: {verdict(cover['met'])}). Long run: {cover['long_run_rounds']:,} rounds in "
        f"{LONG} runs, which gave {spread}. Median width of an interval "
        f"{cover['median_width']:.1%}, median run {cover['median_s']:.1f} s.",
    ]


MODEL_NAME = "resnet20 at 44 pixels (about 1 ms)"


def _span(low: float, high: float) -> str:
    return f"{low:.1%}-{high:.1%}"


def _asked(rate: dict[str, Any]) -> str:
    return f"{'≤' if rate['kind'] == 'same' else '≥'} {rate['asked']:.0%}"


def _name(kind: str) -> str:
    return "the same network" if kind == "same" else f"{kind} slower"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/gate-error-rates"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    work, before = options.work.resolve(), load_average()
    made = bundles(work / "bundles") if not (work / "bundles").exists() else _made(work)
    record = Record(work / "gates.jsonl")
    with Load():
        live(record, made, options.count)
        stored(record, made, options.count, work)
        coverage(record, made, options.count)
    found = [*rates(record, "live"), *rates(record, "stored")]
    cover = covered(record)
    data = {
        "circumstances": circumstances(1, 0, before), "rates": found, "coverage": cover,
        "gates": record.rows,
    }  # fmt: skip
    write("gate_error_rates", options.out, data, page(found, cover))
    return 0 if all(r["met"] for r in [*found, cover]) else 1


def _made(work: Path) -> dict[str, Path]:
    return {k: next((work / "bundles" / k.strip("%")).glob("*.edgecv")) for k in KINDS}


if __name__ == "__main__":
    raise SystemExit(main())
