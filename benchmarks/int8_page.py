"""The page of `int8_detectors.py`: what is known of every row, with what is not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
from int8_clock import BURST_S, ROUNDS, SITTINGS

from edgecv.tasks.detection.metric import difference

if TYPE_CHECKING:
    from int8_detectors import Bench, Way

REFERENCE = "raw-fp32-onnxruntime@onnxruntime"
ALPHA = 0.025  # two-sided 95 %
HEAD = ("", "file", "mAP", "lost, points [95 %]", "CPU time", "by the clock", "seconds (CPU)", "MB",
        "layers")  # fmt: skip
SECTIONS = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO, with all of the processor",
    "openvino-vnni": "OpenVINO, ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI",
    "tflite": "LiteRT",
    "edgetpu": "The Edge TPU's file, on LiteRT's CPU kernels",
}


def collected(bench: Bench, ways: Iterable[Way]) -> list[dict[str, Any]]:
    """A row for everything that was tried of a network."""
    path = bench.room / "times.json"
    times = json.loads(path.read_text())["rows"] if path.is_file() else {}
    base = _parts(bench, REFERENCE)
    rows: list[dict[str, Any]] = []
    for way in ways:
        made = _told(bench, bench.kept(way.key))
        if not made:
            continue
        about = {"way": way.key, "quantizer": way.label, "settings": way.told, "form": way.form,
                 "made": made}  # fmt: skip
        judged = 0
        for key, _, isa in bench.runs(way):
            found = _told(bench, bench.kept(key))
            if not found:
                continue
            judged += 1
            engine = key.partition("@")[2].removesuffix("-vnni").removesuffix("-bf16")
            own = _parts(bench, key)
            rows.append({
                **about, "row": key, "section": engine + "-vnni" * bool(isa),
                "floats": "bf16" if "-bf16" in key else "fp32",
                **found, "lost": _lost(base, own) if base and own else None,
                "times": times.get(key),
            })  # fmt: skip
        if not judged:
            rows.append({**about, "row": way.key, "section": way.engines[0], "floats": "fp32",
                         "error": made.get("error", "not judged")})  # fmt: skip
    return rows


def _told(bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a row without what a process printed, and without this machine's folders."""
    text = json.dumps({k: v for k, v in found.items() if k != "said"})
    return dict(json.loads(text.replace(f"{bench.options.work.resolve()}/", "")))


def _parts(bench: Bench, key: str) -> dict[str, np.ndarray] | None:
    path = bench.rows / f"{key}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as held:
        return dict(held)


def _lost(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, Any]:
    """Points of mAP below the reference on the same pictures, by the paired bootstrap."""
    found = difference(before, after, ALPHA)
    low, high = found.bounds
    return {"points": 100 * found.drop, "interval": [100 * low, 100 * high]}


def write(benches: Sequence[Bench], ways: Sequence[Way], out: Path, load: float) -> None:
    """out/int8_detectors.{json,md}"""
    networks = {bench.name: collected(bench, ways) for bench in benches}
    commits = {row["made"]["commit"] for rows in networks.values() for row in rows
               if "commit" in row["made"]}  # fmt: skip
    floats = {bench.name: json.loads((bench.room / "fp32.json").read_text())["commit"]
              for bench in benches}  # fmt: skip
    data = {
        "schema": 1, "circumstances": record.circumstances(1, 0, load),
        "timing": {"sittings": SITTINGS, "rounds": ROUNDS, "burst_s": BURST_S,
                   "load_average": {b.name: _load(b) for b in benches}},
        "commits": sorted(commits), "fp32_commits": floats, "networks": networks,
        "not_tried": {b.name: [w.key for w in ways if not b.kept(w.key)] for b in benches},
    }  # fmt: skip
    record.write("int8_detectors", out, data, page(data))


def _load(bench: Bench) -> list[float] | None:
    path = bench.room / "times.json"
    return json.loads(path.read_text())["load_average"] if path.is_file() else None


def page(data: dict[str, Any]) -> list[str]:
    rewritten = ", ".join(f"{k} {v}" for k, v in data["fp32_commits"].items())
    lines = [
        "# Detectors in int8, side by side", "",
        "`python benchmarks/int8_detectors.py FILE... --set DIR --work DIR`, then `--times`.", "",
        "Pictures of even place calibrate, and choose where labels are asked for; those of odd "
        "place judge. `raw`: the .onnx file as it is, for OpenVINO and LiteRT by other people's "
        "converters; `rewritten`: edgecv's fp32 export for that engine; edgecv's own rows start "
        "from the file as it is. mAP 50:95 by one code for all rows; lost: below fp32 of the file "
        "as it is in ONNX Runtime, on the same pictures, with the interval of the paired "
        "bootstrap. CPU time and time by the clock: over that row's, one thread, medians over the "
        "rounds of one interleaved run. Seconds: of the whole process that made the file, without "
        "the export of fp32 that it starts from; edgecv's hold everything.", "",
        f"edgecv's int8 by commit {', '.join(data['commits']) or 'none yet'}; what is called "
        f"rewritten: {rewritten}.",
    ]  # fmt: skip
    for name, rows in data["networks"].items():
        for section, title in SECTIONS.items():
            of_it = [r for r in rows if r["section"] == section]
            if of_it:
                lines += ["", f"## {name}: {title}", "", *record.table(HEAD, map(cells, of_it))]
        if (most := apart(rows)) is not None:
            told = (
                f"One int8 file on both of OpenVINO's instruction sets is up to {most:.2f} points"
            )
            lines += ["", f"{told} apart: so much says nothing of two quantizers."]
        if left := data["not_tried"][name]:
            lines += ["", f"Not tried yet: {', '.join(left)}."]
        if not any(r.get("times") for r in rows):
            lines += ["", "Times are not measured yet."]
        failed = [f"- {r['quantizer']}, {r['form']} ({r['section']}): {r['error']}"
                  for r in rows if "error" in r]  # fmt: skip
        notes = [f"- {r['quantizer']} ({r['section']}): {r['made']['note']}"
                 for r in rows if "note" in r["made"]]  # fmt: skip
        if failed or notes:
            lines += ["", f"## {name}: what did not come out", "", *failed, *notes]
    settings = {r["quantizer"]: r["settings"] for rows in data["networks"].values() for r in rows
                if r["settings"] and "edgecv" not in r["quantizer"]}  # fmt: skip
    return [*lines, "", "## Settings", "", *(f"- {k}: {v}" for k, v in settings.items())]


def apart(rows: Sequence[dict[str, Any]]) -> float | None:
    """The most points between two runs of one int8 file, by other kernels of the same engine."""
    runs: dict[str, list[float]] = {}
    for row in rows:
        if row["section"].startswith("openvino") and row["quantizer"] != "fp32":
            runs.setdefault(row["way"], []).extend([row["metric"]] if "metric" in row else [])
    pairs = [100 * (max(found) - min(found)) for found in runs.values() if len(found) > 1]
    return max(pairs, default=None)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table; what is not known is empty."""
    made, times, lost = row["made"], row.get("times"), row.get("lost")
    name = "bf16" if row["floats"] == "bf16" else row["quantizer"]
    if "error" in row:
        return (name, row["form"], "none", *[""] * 6)
    spread = ""
    if lost and row["row"] != REFERENCE:
        low, high = lost["interval"]
        spread = f"{lost['points']:.2f} [{low:.2f}, {high:.2f}]"
    layers = ", ".join(f"{n} {p}" for p, n in sorted(row["executed"].items()))
    seconds = "" if row["quantizer"] == "fp32" else _seconds(made)
    return (name, row["form"], f"{100 * row['metric']:.2f}", spread, _ratio(times, "cpu"),
            _ratio(times, "wall"), seconds, f"{row['size_bytes'] / 1e6:.2f}", layers)  # fmt: skip


def _ratio(times: dict[str, float] | None, kind: str) -> str:
    return f"{times[f'{kind}_ratio']:.2f}" if times else ""


def _seconds(made: dict[str, Any]) -> str:
    return f"{made['seconds']:.0f} ({made['cpu_seconds']:.0f})"
