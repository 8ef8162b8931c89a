"""Random networks through every target that runs here: right, refused in a sentence, or a fault.

    python benchmarks/random_networks.py --work DIR [--count 1000] [--targets cpu openvino c]

Torch modules, ONNX files of opsets 7 to 22 and torch's own exports (`random_nets/`), with outputs
of one to five axes, several of them, a second input, two pictures a call; judged output by output
against torch or ONNX Runtime unoptimised on 128 pictures: at least 60 dB in fp32 (50 on tflite),
15 dB in int8, and of rows of classes 7 of 8 best the same where float's margin is clear. int8 below
that is "lossy, and told" where the export warned of it with a figure at most 3 dB too good.

--tasks: detectors (heads of every decoder with equations, random strides, classes, inputs,
letterboxes) and segmentation networks instead; their answers are judged against the file run by
ONNX Runtime unoptimised and read by equations of this benchmark's own. One
JSON line a result in DIR/results-SEED.jsonl: a later call goes on where it stopped, `--again
VERDICT` takes rows of that verdict once more. `--only N` repeats one network, engines in processes
of their own. Exits 1 with anything silently wrong, a crash, or a refusal that shows no way out.
Writes benchmarks/results/random_networks.{json,md}, or random_tasks.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import record

from benchmarks.random_nets.verdicts import CRASH, FAULTS, KEPT, LOSSY, REFUSED, VERDICTS

SLOW = ("tflite", "edgetpu")  # conversion takes ten seconds and more: a share of the networks
SLOW_SHARE = 5
LIMIT_S = 600
Key = tuple[int, str, str]
ABOUT = (
    "torch modules, ONNX files of opsets 7 to 22 and exports of torch's own, with outputs of one "
    "to five axes, several of them, a second input, two pictures a call; each output judged "
    "against torch or ONNX Runtime unoptimised."
)
ABOUT_TASKS = (
    "ONNX files with heads of YOLOX, YOLOv5, YOLOv8, FastestDet, CenterNet, SSD and DETR in the "
    "spellings that files have, and segmentation networks; random strides, classes, inputs and "
    "letterboxes. Judged against ONNX Runtime unoptimised, read by equations of the benchmark's "
    "own: in fp32 98 of 100 boxes or clear pixels are the same, in int8 80 of 100 that are clear."
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where results are kept")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--targets", nargs="+", default=["cpu", "openvino", "c", *SLOW])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--tasks", action="store_true", help="detectors and segmentation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat this network and print its verdicts")
    parser.add_argument("--again", nargs="+", default=[], help="verdicts to take once more")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--jobs", help=argparse.SUPPRESS)  # the worker's side
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ["EDGECV_TRUST_SOURCE"] = "1"  # the C bundles are ours
    if options.jobs:
        worker(options)
    elif options.only is not None:
        once(options)
    else:
        before = record.load_average()
        file = kept(options)
        forget(file, options.again)
        drive(options, file)
        page(options, results(file), before)


def kept(options: argparse.Namespace) -> Path:
    return options.work / f"{'tasks' if options.tasks else 'results'}-{options.seed}.jsonl"


def judging(options: argparse.Namespace) -> Any:
    """The module that makes networks and judges their bundles."""
    name = "task_judging" if options.tasks else "judging"
    return importlib.import_module(f"benchmarks.random_nets.{name}")


def wanted(options: argparse.Namespace) -> list[Key]:
    """Every job, network by network."""
    return [
        (n, t, p)
        for n in range(options.count)
        for t in options.targets
        if t not in SLOW or n % SLOW_SHARE == 0
        for p in options.precisions
        if (t, p) != ("edgetpu", "fp32")
    ]


def results(file: Path) -> dict[Key, dict[str, Any]]:
    """What is known already; a line cut short by a kill is left out."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["network"], row["target"], row["precision"]] = row
    return found


def forget(file: Path, verdicts: list[str]) -> None:
    """Drop the rows of these verdicts."""
    if verdicts:
        rows = [r for r in results(file).values() if r["verdict"] not in verdicts]
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))


def drive(options: argparse.Namespace, file: Path) -> None:
    """Workers, one after another, until all is done; one that dies or hangs is a CRASH."""
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        known = results(file)
        left = [k for k in wanted(options) if k not in known]
        if not left:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".json") as jobs:
            json.dump(left[:600], jobs)
            jobs.flush()
            command = [sys.executable, __file__, "--jobs", jobs.name, "--work", str(options.work),
                       "--seed", str(options.seed),
                       *(["--tasks"] if options.tasks else [])]  # fmt: skip
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            log = (options.work / "worker.log").open("w")
            with log, subprocess.Popen(command, stdout=log, stderr=log, env=env) as process:
                watch(process, file, end)
        if process.returncode and time.monotonic() < end:
            died(options, file, left, process.returncode)


def watch(process: subprocess.Popen[bytes], file: Path, end: float) -> None:
    """Wait for a worker; kill it when nothing came out for LIMIT_S, or the time is over."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.5)
        now = file.stat().st_size if file.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > LIMIT_S or time.monotonic() > end:
            process.kill()


def died(options: argparse.Namespace, file: Path, left: list[Key], code: int) -> None:
    known = results(file)
    number, target, precision = next(k for k in left if k not in known)
    last = (options.work / "worker.log").read_text(errors="replace").strip()[-300:]
    add(file, {"network": number, "source": "", "target": target, "precision": precision,
               "verdict": CRASH, "reason": f"the process ended with {code}: {last}"})  # fmt: skip


def add(file: Path, row: dict[str, Any]) -> None:
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")
    if row["verdict"] in FAULTS:
        print(row["network"], row["target"], row["precision"], row["verdict"],
              row.get("figures", ""), row["reason"], flush=True)  # fmt: skip


def worker(options: argparse.Namespace) -> None:
    """Every job of a file, in this process."""
    judge, file, network = judging(options), kept(options), None
    for number, target, precision in json.loads(Path(options.jobs).read_text()):
        if network is None or network.number != number:
            network = judge.Network(number, options.seed, options.work)
        add(file, judge.judged(network, target, precision))


def once(options: argparse.Namespace) -> None:
    """One network as a user would have it; its file stays in --work."""
    judge = judging(options)
    network = judge.Network(options.only, options.seed, options.work)
    print(network.kind, network.model, "" if options.tasks else network.args)
    for target in options.targets:
        for precision in options.precisions:
            row = judge.judged(network, target, precision, apart=True)
            print(json.dumps(row), flush=True)


def page(options: argparse.Namespace, found: dict[Key, dict[str, Any]], before: float) -> None:
    """The table by target and precision, and what is refused by reason."""
    rows = [found[k] for k in wanted(options) if k in found]
    places = sorted({(r["target"], r["precision"]) for r in rows})
    counts = {p: Counter(r["verdict"] for r in rows if (r["target"], r["precision"]) == p)
              for p in places}  # fmt: skip
    head = ("target", "precision", "networks", *VERDICTS)
    table = [(t, p, sum(counts[t, p].values()), *(counts[t, p][v] for v in VERDICTS))
             for t, p in places]  # fmt: skip
    faults = [r for r in rows if r["verdict"] in FAULTS]
    asked = len(wanted(options))
    trees = Counter(r.get("tree", "unknown") for r in rows)
    title = "Random detectors and segmentation networks" if options.tasks else "Random networks"
    lines = [f"# {title}", "", f"{len(rows)} of {asked} exports of {options.count} networks: "
             f"{ABOUT_TASKS if options.tasks else ABOUT}", "", *record.table(head, table), "",
             f"Nothing silently wrong, no crash, no refusal without a way out: "
             f"{record.verdict(not faults)}. "
             f"All that was asked for: {record.verdict(len(rows) == asked)}.", "",
             "Judged on: " + ", ".join(f"{t} ({n})" for t, n in trees.most_common()) + ".",
             ""]  # fmt: skip
    for verdict in (REFUSED, KEPT, LOSSY):
        reasons = Counter((r["target"], r["precision"], r["reason"])
                          for r in rows if r["verdict"] == verdict)  # fmt: skip
        if reasons:
            lines += [
                f"## {verdict.capitalize()}, by reason",
                "",
                *record.table(
                    ("reason", "target", "precision", "networks"),
                    [
                        (why.replace("|", "/"), t, p, n)
                        for (t, p, why), n in reasons.most_common(40)
                    ],
                ),
                "",
            ]
    if faults:
        lines += ["## Faults", "", *record.table(
            ("network", "source", "target", "precision", "verdict", "reason"),
            [(r["network"], r["source"], r["target"], r["precision"], r["verdict"],
              f"{r.get('figures', '')} {r['reason']}".replace("|", "/").replace("\n", " ")[:200])
             for r in faults])]  # fmt: skip
    data = {"circumstances": record.circumstances(1, options.seed, before), "counts": table,
            "trees": trees, "faults": faults}  # fmt: skip
    record.write("random_tasks" if options.tasks else "random_networks", options.out, data, lines)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
