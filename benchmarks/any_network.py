"""Ten kinds of network and more through every target, fp32 and int8, judged output by output.

    python benchmarks/any_network.py --work DIR [--only NAME ...] [--sources ...] [--targets ...]

The networks of `any_nets/networks.py`, each as a torch module and as the .onnx files of both of
torch's exporters, judged against torch and ONNX Runtime unoptimised on 8 pictures: mean-removed
SQNR of every output, at least 60 dB in fp32 (50 on tflite), 15 dB in int8. A later call goes on
where it stopped, `--again refused` takes rows of that verdict once more. Exits 1 with anything
silently wrong or a crash. Writes benchmarks/results/any_network.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from benchmarks.any_nets.networks import MAKERS, SIDE, build, shapes
from benchmarks.any_nets.trying import TARGETS, Network, Tally, answers, mark, places
from benchmarks.random_nets.pictures import MEAN, STD, folder, inputs, pictures
from benchmarks.random_nets.verdicts import FAULTS, REFUSED
from edgecv.graphs.onnx.pins import Pins

SOURCES = ("torch", "onnx", "onnx dynamo")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where results are kept")
    parser.add_argument("--only", nargs="+", default=list(MAKERS), help="these networks")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), help="these targets")
    parser.add_argument("--again", nargs="+", default=[], help="verdicts to take once more")
    parser.add_argument("--page", action="store_true", help="write the page of what is known")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ["EDGECV_TRUST_SOURCE"] = "1"  # the C bundles are ours
    before = record.load_average()
    tally = Tally(options.work / "any_network.jsonl", options.again)
    for source in [] if options.page else options.sources:
        for name in options.only:
            if tally.known(f"{name}: {source}", options.targets):
                continue
            with tempfile.TemporaryDirectory() as room:
                made = network(name, source, options.work, Path(room))
                tally.take(made, options.targets, Path(room) / "store")
    if options.page or options.only == list(MAKERS):
        page(tally, options.out, before)


def network(name: str, source: str, work: Path, room: Path) -> Network:
    """A network as a source has it, and what it makes of 8 pictures."""
    feeds, calibration = {"image": inputs(pictures(8, SIDE, 77)[0])}, folder(work, SIDE)
    if name == "two inputs":
        feeds["numbers"] = numbers(8, 5)
        calibration = work / "two_inputs.npz"
        np.savez(calibration, image=pictures(48, SIDE, 1)[0], numbers=numbers(48, 6))
    options = {"calibration": calibration, "crop_pct": 1.0, "mean": (MEAN,), "std": (STD,),
               "interpolation": "bilinear"}  # fmt: skip
    model = build(name)
    if source == "torch":
        with torch.inference_mode():
            rows = [model(*(torch.from_numpy(v[i : i + 1]) for v in feeds.values()))
                    for i in range(8)]  # fmt: skip
        parts = [row if isinstance(row, tuple) else (row,) for row in rows]
        wanted = [np.stack([p[j].numpy() for p in parts]) for j in range(len(parts[0]))]
        options["size"] = (SIDE, SIDE)
        if len(feeds) > 1:
            options["pins"] = Pins(inputs=shapes(name))
        return Network(f"{name}: torch", "benchmarks.any_nets.networks:build", feeds, wanted,
                       {"name": name}, options)  # fmt: skip
    path, asked = room / "network.onnx", shapes(name)
    args = tuple(torch.zeros(shape) for shape in asked.values())
    more = {"external_data": False, "dynamo": True} if source == "onnx dynamo" else {
        "dynamo": False, "opset_version": 17}  # fmt: skip
    torch.onnx.export(model, args, str(path), input_names=list(asked), **more)
    return Network(f"{name}: {source}", str(path), feeds, answers(path, feeds), options=options)


def numbers(count: int, seed: int) -> np.ndarray:
    """float32 (count, 4), of the input that is no picture."""
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def page(tally: Tally, out: Path, before: float) -> None:
    """The table of networks by targets, and the sentences."""
    head = ("network", *(f"{t} {p}" for t, p in places()))
    names = [n for n in (f"{m}: {s}" for m in MAKERS for s in SOURCES)
             if any((n, *place) in tally.rows for place in places())]  # fmt: skip
    rows = [(n, *(mark(tally.rows.get((n, *place))) for place in places())) for n in names]
    faults = [r for r in tally.rows.values() if r["verdict"] in FAULTS]
    passed = Counter((r["target"], r["precision"]) for r in tally.rows.values()
                     if r["figures"] and r["verdict"] not in FAULTS)  # fmt: skip
    tried = Counter((r["target"], r["precision"]) for r in tally.rows.values())
    lines = ["# Any network", "",
             f"{len(MAKERS)} kinds of network as a torch module and as both of torch's exporters "
             "write them, through every target, judged against torch or ONNX Runtime unoptimised "
             "on 8 pictures. A cell is dB of what varies over the error, of the worst output; *in "
             "float*: int8 was asked for and this engine keeps it in float, and says so.", "",
             *record.table(head, rows), "",
             "Bundles: " + ", ".join(f"{t} {p} {passed[t, p]} of {tried[t, p]}"
                                     for t, p in places())
             + " (an empty cell was not tried).", "",
             f"Nothing silently wrong, no crash: {record.verdict(not faults)}.", ""]  # fmt: skip
    for title, some in (
        ("Refused", [r for r in tally.rows.values() if r["verdict"] == REFUSED]),
        ("Faults", faults),
    ):
        said = [(r["network"], r["target"], r["precision"], _sentence(r)) for r in some]
        if said:
            head = ("network", "target", "precision", "sentence")
            lines += [f"## {title}", "", *record.table(head, said), ""]
    trees = Counter(r.get("tree", "unknown") for r in tally.rows.values())
    lines += ["Judged on: " + ", ".join(f"{t} ({n})" for t, n in trees.most_common()) + "."]
    data = {"circumstances": record.circumstances(1, 0, before), "trees": trees,
            "rows": [{k: r[k] for k in ("network", "target", "precision", "verdict", "figures",
                                        "reason")} for r in tally.rows.values()]}  # fmt: skip
    record.write("any_network", out, data, lines)
    raise SystemExit(1 if faults else 0)


def _sentence(row: dict[str, Any]) -> str:
    figures = f"{row['figures']} " if row["figures"] else ""
    return figures + row["reason"].replace("|", "/").replace("\n", " ")[:400]


if __name__ == "__main__":
    main()
