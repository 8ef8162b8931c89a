"""Other people's networks, as their packages carry them, through `edgecv export`.

    python benchmarks/foreign_files.py --work DIR --images DIR [--only WORD] [--again]

Each .onnx and .tflite file of `foreign_packages.py` is exported for `cpu` in fp32 with no option
(an open dimension is pinned, as a user would) and in int8, calibrated on photographs, and for other
targets too; `foreign_judge.py` then runs the bundle and the file itself on eight pictures that
nobody calibrated on. A row is kept as soon as it is known: the next call goes on from there. Writes
benchmarks/results/foreign_files.{json,md}; ends with 1 where less than nine of ten pass on cpu.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record
from foreign_packages import Found, networks
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from edgecv.benchmark.machine import load_average

JUDGED, CALIBRATED = 8, 64  # pictures
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZabcdefghkmnprstuvwxyz0123456789 "
FP32 = 1e-3  # of the largest value of an output
NOTHING = {"fp32": 1e-6, "int8": 1 / 512}  # of scores between 0 and 1
INT8_DB = 6.0  # what `quantize` refuses below, by default
WANTED = 0.9
TIME = 900  # seconds
ROADS = (("cpu", "fp32"), ("cpu", "int8"), ("openvino", "fp32"), ("openvino", "int8"),
         ("tflite", "fp32"))  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended. memory_mb: the largest of its processes"""

    code: int
    out: str
    err: str
    seconds: float
    memory_mb: float


def timed(command: Sequence[str], seconds: float = TIME) -> Ended:
    """Run to the end, or kill it and say so (code -1)."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=record.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return Ended(-1, "", f"still running after {seconds:.0f} s", seconds, 0.0)
    took = time.perf_counter() - began
    return Ended(process.returncode, out, err, took, _peak_mb(err))


def _peak_mb(err: str) -> float:
    """As the wrapper below wrote it on the last line."""
    last = err.strip().rpartition("\n")[2]
    return float(last.removeprefix("peak-kb ")) / 1024 if last.startswith("peak-kb ") else 0.0


WRAPPER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak-kb", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def road(found: Found, target: str, precision: str, room: Path, work: Path) -> dict[str, Any]:
    """One file to one bundle, judged: a row."""
    asked, options = found.asked, list(found.asked.pins)
    mean, std = (0.0, 255.0) if precision == "fp32" else (asked.mean, asked.std)
    if precision == "int8":
        if not asked.int8:
            options += ["--calibration", str(work / asked.pictures / "calibration")]
        if (mean, std) != (0.0, 255.0):
            options += ["--mean", f"{mean:g}", "--std", f"{std:g}"]
    shutil.rmtree(room, ignore_errors=True)
    ended = timed([
        sys.executable, "-c", WRAPPER, sys.executable, "-m", "edgecv", "export", str(found.path),
        "--target", target, "--precision", precision, "--out", str(room), *options,
    ])  # fmt: skip
    row: dict[str, Any] = {
        "code": ended.code, "seconds": round(ended.seconds, 1),
        "memory_mb": round(ended.memory_mb), "options": options[: len(asked.pins)],
    }  # fmt: skip
    if ended.code:
        return {**row, "said": last_words(ended)}
    row["warnings"] = [w for w in ended.err.splitlines() if w and not w.startswith("peak-kb")]
    row["told"] = [line.strip() for line in ended.out.splitlines() if "SQNR" in line]
    (bundle,) = room.glob("*.edgecv")
    pictures = sorted((work / asked.pictures / "judged").iterdir())
    judge = timed([
        sys.executable, str(Path(__file__).with_name("foreign_judge.py")), str(found.path),
        str(bundle), str(mean), str(std), *map(str, pictures),
    ])  # fmt: skip
    if judge.code:
        return {**row, "said": f"judge: {(judge.err.strip().splitlines() or ['?'])[-1]}"}
    shutil.rmtree(room)
    return {**row, "outputs": json.loads(judge.out)}


def last_words(ended: Ended) -> str:
    """The error's line."""
    lines = [n for n in ended.err.splitlines() if n.strip() and not n.startswith("peak-kb")]
    first = next((i for i, line in enumerate(lines) if line.startswith("error:")), -3)
    return " ".join(" ".join(lines[first:]).split())[:400] if lines else f"ended with {ended.code}"


def passed(row: dict[str, Any] | None, precision: str) -> bool:
    """Whether there is a bundle and each of its outputs is near enough."""
    if not row or "outputs" not in row:
        return False
    return all(_near(o, precision) for o in row["outputs"].values())


def _near(output: dict[str, Any], precision: str) -> bool:
    if output["error"] is None:
        return False
    share = output.get("share")
    if share is not None and share <= NOTHING[precision]:
        return True
    return output["error"] <= FP32 if precision == "fp32" else output["sqnr_db"] >= INT8_DB


def split(images: Path, work: Path) -> None:
    """work/photographs, pages and lines: the first pictures are calibrated on, the last judged on.

    Pages are photographs with text on them, lines are one line of text, for networks that find or
    read it.
    """
    rng = np.random.default_rng(0)
    files = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    for kind in ("photographs", "pages", "lines"):
        if (work / kind).is_dir():
            continue
        for name, some in (("calibration", files[:CALIBRATED]), ("judged", files[-JUDGED:])):
            (work / kind / name).mkdir(parents=True)
            for path in some:
                _picture(kind, path, rng).save(work / kind / name / f"{path.stem}.png")


def _picture(kind: str, path: Path, rng: np.random.Generator) -> Image.Image:
    photograph = Image.open(path).convert("RGB")
    if kind == "photographs":
        return photograph
    size = (320, 48) if kind == "lines" else (384, 384)
    picture = photograph.resize(size).filter(ImageFilter.GaussianBlur(4))
    draw = ImageDraw.Draw(picture)
    for row in range(1 if kind == "lines" else 6):
        letters = "".join(rng.choice(list(LETTERS), 12 if kind == "lines" else 16))
        place = (8 + int(rng.integers(8)), 8 + 60 * row)
        height = 30 if kind == "lines" else int(rng.integers(16, 36))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        draw.text(place, letters, colour, ImageFont.load_default(height))
    return picture


def cell(row: dict[str, Any] | None, precision: str) -> str:
    if row is None:
        return "-"
    if "outputs" not in row:
        return "refused" if row["code"] in (1, 2, 3) else "**failed**"
    found = list(row["outputs"].values())
    if precision == "fp32":
        worst = max(found, key=lambda o: 1e9 if o["error"] is None else o["error"])["error"]
        text = "none" if worst is None else f"{worst:.0e}"
    else:
        text = f"{min(-200.0 if o['sqnr_db'] is None else o['sqnr_db'] for o in found):.1f} dB"
    if not passed(row, precision):
        return f"**{text}**"
    strict = all(_near({**o, "share": None}, precision) for o in found)
    return text if strict else f"{text}*"


def page(rows: list[dict[str, Any]]) -> list[str]:
    head = ["file", "package", "MB", "inputs and outputs", *(f"{t} {p}" for t, p in ROADS)]
    lines = [
        [r["file"], r["package"], f"{r['size'] / 1e6:.1f}", _ends(r),
         *(cell(r["roads"].get(f"{t} {p}"), p) for t, p in ROADS)]
        for r in rows
    ]  # fmt: skip
    said = [
        f"- {r['file']}, {road}: {found['said']}"
        for r in rows for road, found in r["roads"].items() if "said" in found
    ]  # fmt: skip
    return [
        "# Other people's networks", "",
        "Every .onnx and .tflite file below 40 MB of some packages that carry vision networks, "
        "through `edgecv export` (`benchmarks/foreign_files.py`): fp32 with no option but the "
        "size where the file leaves it open, int8 calibrated on "
        f"{CALIBRATED} photographs with the package's own mean "
        "and standard deviation. fp32: the largest error of any output on eight photographs, of "
        "the output's largest value, against the file itself run by ONNX Runtime without its "
        f"optimiser or by LiteRT's reference kernels; {FP32:g} is allowed. int8: the least "
        f"mean-removed SQNR of any output, in float units; {INT8_DB:g} dB is allowed. Many of "
        "these networks find faces or hands: on photographs without any, most of what they answer "
        "is the same small number, and SQNR is at its harshest. Those that find or read text have "
        "it: letters drawn on photographs. An output between 0 and 1 throughout passes as well "
        f"where it is off by {NOTHING['fp32']:g} at most (int8: {NOTHING['int8']:.4f}): a "
        "sigmoid's 1e-9 is no answer that a kernel keeps. It has a star. A "
        "dash is not measured yet.", "",
        *record.table(head, lines), "",
        *_counts(rows), "",
        *(["What was refused, or failed, in its own words:", "", *said] if said else []),
    ]  # fmt: skip


def _ends(row: dict[str, Any]) -> str:
    found = next((f for f in row["roads"].values() if "outputs" in f), None)
    if found is None:
        return ""
    return f"{row['inputs']} to " + ", ".join(
        "x".join(map(str, o["shape"])) for o in found["outputs"].values()
    )


def _counts(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"- {target} {precision}: {_good(rows, target, precision)} of {len(known)} pass"
        for target, precision in ROADS
        if (known := [r for r in rows if f"{target} {precision}" in r["roads"]])
    ]


def _good(rows: list[dict[str, Any]], target: str, precision: str) -> int:
    return sum(passed(r["roads"].get(f"{target} {precision}"), precision) for r in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--roads", nargs="+", default=[f"{t}-{p}" for t, p in ROADS])
    parser.add_argument("--again", action="store_true", help="make rows that are kept once more")
    parser.add_argument("--failed", action="store_true", help="make rows that did not pass again")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before = load_average()
    split(options.images, options.work)
    rows = []
    for found in networks(options.work):
        kept = options.work / "rows" / f"{found.name.replace('/', '--')}.json"
        row = json.loads(kept.read_text()) if kept.is_file() else {
            "file": found.path.name, "package": found.package, "inputs": _inputs(found.path),
            "size": found.path.stat().st_size, "roads": {},
        }  # fmt: skip
        rows.append(row)
        if options.only not in found.name:
            continue
        for target, precision in ROADS:
            name = f"{target} {precision}"
            if found.asked.int8 and precision == "fp32":
                continue
            if f"{target}-{precision}" not in options.roads or not _wanted(row, name, options):
                continue
            row["roads"][name] = road(
                found, target, precision, options.work / f"out-{os.getpid()}", options.work
            )
            told = row["roads"][name]
            line = f"{cell(told, precision)} {told.get('said', '')} {told['seconds']} s"
            print(found.name, name, line, f"{told['memory_mb']} MB", file=sys.stderr, flush=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(row, indent=1))
    data = {"circumstances": record.circumstances(1, 0, before), "rows": rows}
    record.write("foreign_files", options.out, data, page(rows))
    enough = all(
        _good(rows, "cpu", p) >= WANTED * sum(f"cpu {p}" in r["roads"] for r in rows)
        for p in ("fp32", "int8")
    )
    raise SystemExit(0 if enough else 1)


def _wanted(row: dict[str, Any], name: str, options: argparse.Namespace) -> bool:
    known = row["roads"].get(name)
    again = options.again or (options.failed and not passed(known, name.partition(" ")[2]))
    return known is None or again


def _inputs(path: Path) -> str:
    """Shapes of the file's own inputs."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(str(path), load_external_data=False).graph
        held = {t.name for t in graph.initializer}
        return ", ".join(
            "x".join(str(d.dim_value or "?") for d in i.type.tensor_type.shape.dim)
            for i in graph.input if i.name not in held
        )  # fmt: skip
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path)).get_input_details()
    return ", ".join("x".join(map(str, d["shape"])) for d in details)


if __name__ == "__main__":
    main()
