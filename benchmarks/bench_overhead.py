"""Does `edgecv bench` report what a loop written by hand would?

A network of some 50 microseconds, ONNX Runtime, one thread: the p50 of `edgecv bench --json` beside
the median of a plain loop over `InferenceSession.run`, each in processes of their own, in turns.

    python benchmarks/bench_overhead.py [--pairs 20]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import RESULTS, ROOT, circumstances, export, table, verdict, write

from edgecv.benchmark.machine import load_average
from edgecv.benchmark.statistics import interval

MODEL, OPTIONS = "resnet8", ("--arg", "width=8", "--channels", "1", "--input-size", "22")
LIMIT = 0.03
# What anybody would write: the session, a warm-up, a loop, the median.
LOOP = """
import sys, time
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
source = session.get_inputs()[0]
feeds = {source.name: np.random.default_rng(0).random(source.shape, np.float32)}
for _ in range(500):
    session.run(None, feeds)
times = []
for _ in range(10000):
    start = time.perf_counter_ns()
    session.run(None, feeds)
    times.append(time.perf_counter_ns() - start)
print(np.median(times))
"""


def output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    before, pairs = load_average(), []
    with tempfile.TemporaryDirectory() as room:
        bundle = export(MODEL, "cpu", "fp32", Path(room), *OPTIONS)
        graph = next(Path(room).glob("*.onnx"))
        for _ in range(options.pairs):
            by_hand = float(output("-c", LOOP, str(graph))) / 1e6
            data = json.loads(output("-m", "edgecv", "bench", str(bundle), "--json"))
            pairs.append((data["bundles"][0]["latency_ms"]["p50"], by_hand))
    ratio = interval(np.array([np.log(bench / loop) for bench, loop in pairs]))
    met = abs(ratio.ratio - 1.0) <= LIMIT
    bench_us, loop_us = (1e3 * float(np.median(v)) for v in zip(*pairs, strict=True))
    data = {
        "circumstances": circumstances(1, 0, before), "pairs_ms": pairs, "ratio": ratio.ratio,
        "interval": ratio.to_json(), "met": met,
    }  # fmt: skip
    page = [
        "# `edgecv bench` beside a loop written by hand",
        "",
        *table(
            ["", "edgecv bench p50, µs", "loop, µs", "ratio", "95%", "asked", ""],
            [[f"{MODEL}, width 8, 22 pixels", f"{bench_us:.1f}", f"{loop_us:.1f}",
              f"{ratio.ratio:.3f}", f"{ratio.low:.3f}-{ratio.high:.3f}", f"within {LIMIT:.0%}",
              verdict(met)]],
        ),
        "",
        f"Medians of {len(pairs)} pairs of processes, one after the other; the ratio is of pairs.",
    ]  # fmt: skip
    write("bench_overhead", options.out, data, page)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
