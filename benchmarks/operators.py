"""One operator at a time through every target: works, or is refused with which sentence.

    python benchmarks/operators.py --work DIR [--only NAME ...] [--again VERDICT ...]

Each case (`any_nets/cases.py`) is an .onnx file of a convolution and one operator, exported fp32
and int8 and judged against ONNX Runtime unoptimised on 8 pictures: at least 60 dB in fp32 (50 on
tflite), 15 dB in int8. A later call goes on where it stopped, `--again refused` takes rows of that
verdict once more. Exits 1 with anything silently wrong or a crash. Writes
benchmarks/results/operators.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import onnx
import record

from benchmarks.any_nets.cases import CASES, SIDE, build
from benchmarks.any_nets.trying import TARGETS, Network, Tally, answers, mark, places
from benchmarks.random_nets.pictures import MEAN, STD, folder, inputs, pictures
from benchmarks.random_nets.verdicts import FAULTS, REFUSED


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where results are kept")
    parser.add_argument("--only", nargs="+", default=list(CASES), help="these cases")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), help="these targets")
    parser.add_argument("--again", nargs="+", default=[], help="verdicts to take once more")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ["EDGECV_TRUST_SOURCE"] = "1"  # the C bundles are ours
    before = record.load_average()
    tally = Tally(options.work / "operators.jsonl", options.again)
    for name in options.only:
        if tally.known(name, options.targets):
            continue
        with tempfile.TemporaryDirectory() as room:
            tally.take(
                network(name, options.work, Path(room)), options.targets, Path(room) / "store"
            )
    if options.only == list(CASES):
        page(tally, options.out, before)


def network(name: str, work: Path, room: Path) -> Network:
    """A case as a file, and what ONNX Runtime makes of 8 pictures."""
    path = room / "case.onnx"
    onnx.save(build(name), str(path))
    feeds = {"x": inputs(pictures(8, SIDE, 77)[0])}
    options = {"calibration": folder(work, SIDE), "crop_pct": 1.0, "mean": (MEAN,), "std": (STD,),
               "interpolation": "bilinear"}  # fmt: skip
    return Network(name, str(path), feeds, answers(path, feeds), options=options)


def page(tally: Tally, out: Path, before: float) -> None:
    """The table of operators by targets, and the sentences."""
    head = ("operator", *(f"{t} {p}" for t, p in places()))
    rows = [(n, *(mark(tally.rows.get((n, *place))) for place in places())) for n in CASES]
    faults = [r for r in tally.rows.values() if r["verdict"] in FAULTS]
    counts = Counter((r["target"], r["precision"]) for r in tally.rows.values()
                     if r["figures"] and r["verdict"] not in FAULTS)  # fmt: skip
    tried = Counter((r["target"], r["precision"]) for r in tally.rows.values())
    said = Counter((sentence(r["reason"]), f"{r['target']} {r['precision']}", r["network"])
                   for r in tally.rows.values() if r["verdict"] == REFUSED)  # fmt: skip
    by: dict[str, list[tuple[str, str]]] = {}
    for what, place, name in said:
        by.setdefault(what, []).append((name, place))
    lines = ["# Operators", "",
             f"{len(CASES)} one-operator ONNX files through every target, judged against ONNX "
             "Runtime unoptimised on 8 pictures. A cell is dB of what varies over the error (a "
             "target's own: float is exact beyond 100); *in float*: int8 was asked for and this "
             "engine keeps it in float, and says so.", "", *record.table(head, rows), "",
             "Bundles: " + ", ".join(f"{t} {p} {counts[t, p]} of {tried[t, p]}"
                                     for t, p in places()) + " (an empty cell was not tried).", "",
             f"Nothing silently wrong, no crash: {record.verdict(not faults)}.", "",
             "## Refused, with which sentence", "",
             *record.table(("sentence", "operators", "targets"),
                           [(what.replace("|", "/"),
                             ", ".join(dict.fromkeys(n for n, _ in found)),
                             ", ".join(dict.fromkeys(p for _, p in found)))
                            for what, found in sorted(by.items())])]  # fmt: skip
    if faults:
        lines += ["", "## Faults", "", *record.table(
            ("operator", "target", "precision", "verdict", "reason"),
            [(r["network"], r["target"], r["precision"], r["verdict"],
              f"{r['figures']} {r['reason']}".replace("|", "/").replace("\n", " ")[:300])
             for r in faults])]  # fmt: skip
    trees = Counter(r.get("tree", "unknown") for r in tally.rows.values())
    lines += ["", "Judged on: " + ", ".join(f"{t} ({n})" for t, n in trees.most_common()) + "."]
    data = {"circumstances": record.circumstances(1, 0, before), "trees": trees,
            "rows": [{k: r[k] for k in ("network", "target", "precision", "verdict", "figures",
                                        "reason")} for r in tally.rows.values()]}  # fmt: skip
    record.write("operators", out, data, lines)
    raise SystemExit(1 if faults else 0)


def sentence(reason: str) -> str:
    """A refusal without what is this file's own."""
    reason = re.sub(r"\S*case\S*: ?", "", reason)
    reason = re.sub(r"\b[a-z_]+\d+_\d+\b|'[^']*'", "X", reason)
    return re.sub(r"-?\d+(\.\d+)?", "#", reason)[:300]


if __name__ == "__main__":
    main()
