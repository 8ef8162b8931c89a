"""What `edgecv export --accuracy-drop 0.2` finds by itself for EfficientNet-Lite0, on each engine.

    python benchmarks/accuracy_drop.py PHOTOS_DIR_OR_ZIP [--targets cpu openvino] [--work DIR]

Needs the extras [all,zoo]. The search calibrates on one half of the photographs and judges itself
on a third of that half; here it is judged on the other half, which it never saw, beside int8 at the
product's defaults. All bundles are timed in one run, interleaved, against fp32 on ONNX Runtime.

Exit code 1 when a requirement is missed: at least 99.5% agreement on the photographs of which fp32
is sure, and on a processor with an integer dot product at most 0.45 of fp32's time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from photographs import Judged, described, halves, judge, share, unpack
from record import RESULTS, circumstances, edgecv, export, load_average, table, verdict, write

from edgecv.benchmark.machine import INTEGER_DOT, cpu_features
from edgecv.benchmark.measure import Plan, measure
from edgecv.data.files import calibration_images

INPUT = ("--arg", "pretrained=true", "--input-size", "224", "--mean", "127", "--std", "128")
DROP, AGREE, RATIO = 0.2, 0.995, 0.45
SEED = 0
PLAN = Plan(rounds=60, budget_s=1.0, burst_ms=40.0, seed=SEED)
MODEL = "efficientnet_lite0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder or a .zip of photographs")
    parser.add_argument("--targets", nargs="+", default=["cpu", "openvino", "tflite"])
    parser.add_argument("--work", type=Path, help="keep the bundles here, and use those there are")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        return run(options.photographs, options.out, options.work, options.targets)
    with tempfile.TemporaryDirectory() as room:
        return run(options.photographs, options.out, Path(room), options.targets)


def run(source: Path, out: Path, room: Path, targets: list[str]) -> int:
    load = load_average()
    photographs = unpack(source, room / "photographs")
    calibrated, unseen = halves(photographs, room, SEED)
    others = [calibration_images(unseen)]
    paths = {f"fp32 {t}": _made(room, t, "fp32") for t in dict.fromkeys(["cpu", *targets])}
    reference = [Judged(paths["fp32 cpu"], others[0])]
    for t in targets:
        images = ("--calibration", str(calibrated))
        paths[f"int8 {t}"] = _made(room, t, "int8", *images)
        paths[f"accuracy_drop {DROP} {t}"] = _made(room, t, "searched", *images)
    rows = [{"name": k, **judge([p], others, reference)} for k, p in paths.items()]
    timed = measure([Path(r.pop("path")) for r in rows], PLAN, starts=False)
    for row, times, path in zip(rows, timed["bundles"], paths.values(), strict=True):
        row |= {k: v for k, v in times.items() if k not in ("bundle", "size_bytes")}
        row |= json.loads((path.parent / "made.json").read_text())
    found = [r for r in rows if r["name"].startswith("accuracy_drop")]
    met: dict[str, bool] = {"agreement": all(r["sure"]["agreement"] >= AGREE for r in found)}
    if INTEGER_DOT & set(cpu_features()):
        met["time"] = min(r["latency_ratio"] for r in found) <= RATIO
    data = {
        "schema": 1,
        "circumstances": circumstances(1, SEED, load),
        "photographs": described([p for h in others for p in h], reference),
        "required": {"sure_agreement": AGREE, "latency_ratio": RATIO},
        "met": met,
        "results": rows,
    }
    write("accuracy_drop", out, data, _markdown(data))
    return 0 if all(met.values()) else 1


def _made(room: Path, target: str, kind: str, *images: str) -> Path:
    """The bundle of that kind, made unless it is there; beside it what making it took."""
    out = room / f"{kind}-{target}"
    if found := list(out.glob("*.edgecv")):
        return found[0]
    began = time.monotonic()
    answer: dict[str, Any] = {}
    if kind == "searched":
        print(f"search for {target}", file=sys.stderr, flush=True)
        limit = ("--accuracy-drop", str(DROP))
        arguments = (*INPUT, *images, *limit, "--out", str(out), "--json")
        said = edgecv("export", MODEL, "--target", target, *arguments, ends=(0, 1))
        answer = json.loads(said)  # 1: nothing met the limit on the photographs that it had
        (bundle,) = out.glob("*.edgecv")
    else:
        bundle = export(MODEL, target, kind, out, *INPUT, *images)
    took = {"seconds": round(time.monotonic() - began), "search": answer.get("search"),
            "limits": answer.get("limits")}  # fmt: skip
    (out / "made.json").write_text(json.dumps(took))
    return bundle


def _markdown(data: dict[str, Any]) -> list[str]:
    head = ["", "sure: agree", "all: agree", "SQNR dB", "time × fp32", "95%", "layers",
            "tried", "made in s"]  # fmt: skip
    lines = []
    for r in data["results"]:
        low, high = r["latency_ratio_interval"]
        same = r["sqnr_db"] >= 200
        lines.append([
            r["name"], share(r["sure"]), share(r["all"]),
            "same" if same else f"{r['sqnr_db']:.1f}", f"{r['latency_ratio']:.2f}",
            f"{low:.2f}-{high:.2f}",
            ", ".join(f"{n} {p}" for p, n in sorted(r["executed"].items())),
            len(r["search"]["tried"]) if r["search"] else "", r["seconds"],
        ])  # fmt: skip
    chosen = [f"- {r['name']}: {_chosen(r['search'])}" for r in data["results"] if r["search"]]
    met, photographs = data["met"], data["photographs"]
    if "time" in met:
        speed = f"- At most {RATIO} of fp32's time on one of the engines: {verdict(met['time'])}"
    else:
        speed = (
            f"- At most {RATIO} of fp32's time is asked of processors with an integer dot product "
            "(VNNI): this one has none, not judged here."
        )
    return [
        f"# `edgecv export efficientnet_lite0 --accuracy-drop {DROP}`",
        "",
        *table(head, lines),
        "",
        f"{photographs['count']} photographs that no search and no calibration saw; fp32 on ONNX "
        f"Runtime is sure (softmax above {photographs['sure_above']}) of {photographs['sure']}. "
        "They have no labels: agreement is with fp32's best class, SQNR of the logits. Times: one "
        "run, all bundles interleaved, against fp32 on ONNX Runtime in the same round.",
        "",
        "What was chosen:",
        "",
        *chosen,
        "",
        f"- At least {AGREE:.1%} agreement on the sure photographs: {verdict(met['agreement'])}",
        speed,
    ]


def _chosen(search: dict[str, Any]) -> str:
    options = search["tried"][search["chosen"]]["options"]
    kept = options.pop("keep_float")
    text = ", ".join(f"{k} {v}" for k, v in options.items())
    return f"{text}; {len(kept)} layers in float"


if __name__ == "__main__":
    raise SystemExit(main())
