"""Everything that edgecv reads, damaged: bundles, results, recipes, images, label files.

    python benchmarks/fuzz.py [--seed 0] [--work DIR] [KIND ...]

Each kind is a module with `cases(seed, count)` and `check(case)` (`fuzzing.py` says what counts as
a fault). Inputs are met in processes of their own, some hundred in each, whose memory is bounded; a
process that dies is a fault. What was done is kept in DIR (in the system's temporary folder), so
that the same command goes on where it stopped. Exit code 1 where anything was found.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import resource
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import fuzzing
import record
from record import RESULTS, circumstances, load_average, table, verdict, write

COUNTS = {
    "fuzz_bundles": 10_000,
    "fuzz_results": 5_000,
    "fuzz_recipes": 5_000,
    "fuzz_images": 1_000,
    "fuzz_sources": 4_000,
}
PART = 250
WORKER_S = 1200.0
WORKER_BYTES = 6 << 30  # of address space: what the libraries map, and room for the fault to show


def worker(kind: str, seed: int, count: int) -> dict[str, Any]:
    """The faults among `count` inputs, and how many were taken or refused."""
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    module = importlib.import_module(kind)
    outcome: Counter[str] = Counter()

    def check(case: Any) -> None:
        outcome["refused"] += 1
        module.check(case)
        outcome["refused"] -= 1

    found = fuzzing.faults(module.cases, check, seed, count)
    return {
        "faults": found,
        "refused": outcome["refused"],
        "peak_mb": round(fuzzing.peak_mb()),
    }


def part(kind: str, seed: int, count: int, work: Path) -> dict[str, Any]:
    """One process's share, from the folder where it was done before."""
    kept = work / f"{kind}-{seed}-{count}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    command = [sys.executable, __file__, "--worker", kind, str(seed), str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WORKER_S)
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = _dead(f"more than {WORKER_S:.0f} s", count)
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        found = _dead(f"the process ended with code {done.returncode}: {last}", count)
    kept.write_text(json.dumps(found))
    return found


def _dead(said: str, count: int) -> dict[str, Any]:
    return {"faults": [[0, said]], "refused": count, "peak_mb": 0}


def kind_of(name: str, seed: int, work: Path) -> dict[str, Any]:
    """All inputs of a kind."""
    faults: list[dict[str, Any]] = []
    refused = peak = 0
    count = COUNTS[name]
    for i in range(-(-count // PART)):
        own = seed * 1000 + i
        found = part(name, own, min(PART, count - i * PART), work)
        faults += [{"seed": own, "case": case, "fault": said} for case, said in found["faults"]]
        refused, peak = refused + found["refused"], max(peak, found["peak_mb"])
        print(f"{name}: {min(count, (i + 1) * PART)} of {count}, {len(faults)} faults",
              file=sys.stderr, flush=True)  # fmt: skip
    return {"inputs": count, "refused": refused, "faults": faults, "peak_mb": peak}


def page(kinds: dict[str, dict[str, Any]]) -> list[str]:
    said: Counter[str] = Counter()
    rows = []
    for name, found in kinds.items():
        texts = [f["fault"] for f in found["faults"]]
        slow = sum(t == f"more than {fuzzing.LIMIT_S} s" for t in texts)
        large = sum(t == f"more than {fuzzing.LIMIT_MB} MB" for t in texts)
        said.update(f"{name}: {t}" for t in texts)
        rows.append([
            name.removeprefix("fuzz_"), f"{found['inputs']:,}", f"{found['refused']:,}",
            len(texts) - slow - large, slow, large, found["peak_mb"], verdict(not texts),
        ])  # fmt: skip
    limit = f"over {fuzzing.LIMIT_MB} MB"
    head = ["kind", "inputs", "refused", "untyped errors", f"over {fuzzing.LIMIT_S:g} s", limit,
            "peak MB", "requirement"]  # fmt: skip
    return [
        "# Damaged inputs",
        "",
        "Every input is read as a command reads it, or refused in a sentence. An untyped error is "
        "an exception of Python's or a library's, or its words in ours; time is processor time of "
        "one input, memory what one input adds, the peak a whole process's. Digests are made right "
        "again after an edit.",
        "",
        *table(head, rows),
        *(["", *(f"- {n} x {text}" for text, n in said.most_common(20))] if said else []),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[[], *COUNTS], metavar="KIND")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edgecv-fuzz")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    kinds = {k: kind_of(k, options.seed, options.work) for k in options.kinds or COUNTS}
    data = {"kinds": kinds, "circumstances": circumstances(1, options.seed, before)}
    write("fuzz", options.out, data, page(kinds))
    return int(any(found["faults"] for found in kinds.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.path.insert(0, str(record.ROOT))
        print(json.dumps(worker(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        raise SystemExit(0)
    raise SystemExit(main())
