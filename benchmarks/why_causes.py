"""Does `edgecv why` name the cause? Bundles that are slow for a known reason each, and healthy.

    python benchmarks/why_causes.py [--runs 5] [--budget 20s] [--out benchmarks/results]

Needs the extras [compress,ort,openvino]; no data. The bundles are those of slow_bundles.py; each is
asked about several times, as a user does (`edgecv why BUNDLE --json`). What a cause is said to cost
stands beside what it does cost: the slow bundle and the same without its fault, measured in turns
by `edgecv bench`'s own code. Widths have no such pair: a network of 20 channels is another one.

Exit code 1 when a requirement is missed: on ONNX Runtime every cause is named in every run, and is
the dearest; healthy bundles are told nothing in any run. A fault that costs this processor nothing
(AMD's multiply subnormal numbers as fast as others) is to be noted, and not to be called a cause.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, ROOT, circumstances, load_average, table, verdict, write
from slow_bundles import CAUSES, HEALTHY, Maker

from edgecv.benchmark.measure import Plan, measure
from edgecv.diagnosis.why.findings import LEAST_SHARE

SEED = 0
# slow bundle -> the same without its fault
MENDED = {
    "s8s8": "healthy-int8",
    "excluded": "healthy-deep-int8",
    "subnormal": "healthy-fp32",
    "transpose": "healthy-fp32",
}
ALSO = "openvino"  # told as well, without a requirement: what is slow is the engine's own matter
ALSO_BUNDLES = ("misaligned", "excluded", "transpose", *HEALTHY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="times each bundle is asked about")
    parser.add_argument("--budget", default="20s", help="of each run of edgecv why")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        return run(options, Path(room))


def run(options: argparse.Namespace, room: Path) -> int:
    load = load_average()
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime's quantizer logs its advice there
    make, other = Maker(room), Maker(room, ALSO)
    rows = [_row(make, name, options) for name in (*CAUSES, *HEALTHY)]
    also = [_row(other, name, options) for name in ALSO_BUNDLES]
    slow = [r for r in rows if r["cause"]]
    dear = [r for r in slow if not r["free"]]
    met = {
        "named": all((r["seen"] if r["free"] else r["named"]) == options.runs for r in slow),
        "dearest": all(r["first"] == options.runs for r in dear),
        "no_false_alarm": all(not r["kinds"] for r in rows if not r["cause"] or r["free"]),
    }
    data = {
        "schema": 1,
        "circumstances": circumstances(1, SEED, load),
        "runs": options.runs,
        "budget": options.budget,
        "rows": rows,
        "also": also,
        "met": met,
    }
    write("why_causes", options.out, data, _page(data))
    return 0 if all(met.values()) else 1


def _row(make: Maker, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One bundle, asked about `runs` times."""
    path, cause = make(name), CAUSES.get(name, "")
    print(f"{path.name}", file=sys.stderr, flush=True)
    reports = [_why(path, options.budget) for _ in range(options.runs)]
    kinds = [[f["kind"] for f in r["findings"]] for r in reports]
    said = [f for r in reports for f in r["findings"] if f["kind"] == cause]
    others = sorted({k for found in kinds for k in found} - {cause})
    row = {
        "bundle": name,
        "engine": make.target.backend,
        "cause": cause,
        "call_ms": float(np.median([r["call_ms"] for r in reports])),
        "named": sum(cause in found for found in kinds),
        "first": sum(found[:1] == [cause] for found in kinds),
        "kinds": {k: sum(k in found for found in kinds) for k in others},
        "noted": sorted({f["kind"] for r in reports for f in r["noted"]}),
        "seen": sum(any(f["kind"] == cause for f in r["noted"]) for r in reports),
        "free": False,
        "said_ms": [f["ms"] for f in said],
        "what": said[0]["what"] if said else "",
        "where": said[0]["where"] if said else [],
        "change": said[0]["change"] if said else "",
        "seconds": float(np.median([r["seconds"] for r in reports])),
    }
    if name in MENDED:
        timed = measure([make(MENDED[name]), path], Plan(seed=SEED, budget_s=10.0), starts=False)
        healthy, slow = timed["bundles"]
        row["costs_ms"] = slow["latency_ms"]["p50"] - healthy["latency_ms"]["p50"]
        row["latency_ratio"] = slow["latency_ratio"]
        row["free"] = row["costs_ms"] < LEAST_SHARE * row["call_ms"]
    return row


def _why(path: Path, budget: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgecv", "why", str(path), "--budget", budget, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"edgecv why {path.name}: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout))


def _page(data: dict[str, Any]) -> list[str]:
    met = data["met"]
    rows = data["rows"]
    return [
        "# Does `edgecv why` name the cause?",
        "",
        f"Bundles of a small residual network (`slow_bundles.py`), each asked about {data['runs']} "
        f"times with a budget of {data['budget']}. What the cause is said to cost, the median of "
        "the runs, stands beside what it does cost: the same network without the fault, in turns.",
        "",
        f"- every cause named in every run: {verdict(met['named'])}",
        *(
            f"  ({r['bundle']} costs this processor {100 * r['costs_ms'] / r['call_ms']:+.1f}% "
            "of a call: nothing, and is to be noted only)"
            for r in rows
            if r["free"]
        ),
        f"- and the dearest of what is named: {verdict(met['dearest'])}",
        f"- healthy bundles told nothing: {verdict(met['no_false_alarm'])}",
        "",
        *_table(rows),
        "",
        "What was said in the first run:",
        "",
        *(f"- **{r['bundle']}**: {r['what']}. *{r['change']}*" for r in rows if r["what"]),
        "",
        "On OpenVINO, where subnormal weights are set to zero by the conversion and s8 activations "
        "fuse (no requirement here):",
        "",
        *_table(data["also"]),
    ]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = ["bundle", "engine", "cause", "named", "first", "call ms", "said to cost ms",
            "costs ms", "other findings", "only noted", "s"]  # fmt: skip
    cells = []
    for r in rows:
        costs = r.get("costs_ms")
        cells.append([
            r["bundle"], r["engine"], r["cause"] or "none",
            r["named"] if r["cause"] else "", r["first"] if r["cause"] else "",
            f"{r['call_ms']:.3f}",
            f"{np.median(r['said_ms']):.3f}" if r["said_ms"] else "",
            "" if costs is None else f"{costs:.3f}",
            ", ".join(f"{k} ({n})" for k, n in r["kinds"].items()) or "none",
            ", ".join(r["noted"]), f"{r['seconds']:.0f}",
        ])  # fmt: skip
    return table(head, cells)


if __name__ == "__main__":
    raise SystemExit(main())
