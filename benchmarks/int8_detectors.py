"""Detectors in int8 side by side: ONNX Runtime's quantizer, NNCF, AI Edge's, and edgecv's.

    python benchmarks/int8_detectors.py FILE... --set DIR --work DIR [--only NAMES] [--again]
    python benchmarks/int8_detectors.py FILE... --set DIR --work DIR --times

FILE: .onnx detectors with a name of `detection_map.PREPARED`. DIR of --set has images/, YOLO's
labels/ and data.yaml: pictures of even place (by name) calibrate and, where labels are asked for,
choose; those of odd place judge. Every quantizer is given the file as it is and edgecv's fp32
export for its engine (`int8_rivals.py`), and every result is judged by the same code
(`edgecv.bundling.task_score`, pycocotools' mAP).

Each row is made and judged in a process of its own with a time limit, and kept in DIR of --work as
soon as it is known: the next call goes on from there (--again: what --only names is made anew, the
fp32 exports too where it names `rewritten`). A tool that fails is a row that says so. --times
measures what is there in one interleaved run (`int8_clock.py`), which wants an idle machine. Rows
in LiteRT of the file as it is want onnx2tf on the PATH (or its path in ONNX2TF). Writes
results/int8_detectors.{json,md} (`int8_page.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import int8_page
import record
from detection_map import PREPARED
from int8_clock import VARIABLE, ratios
from int8_rivals import RIVALS

from edgecv.benchmark.machine import cpu_features, load_average

WORKER = Path(__file__).with_name("int8_work.py")
VNNI = "AVX512_CORE_VNNI"
LIMIT_S = 1800.0
ENGINES = ("onnxruntime", "openvino", "tflite")
FORMS = ("raw", "rewritten")
EVEN, ODD = "even", "odd"
# edgecv's own rows: options of `edgecv export` beside those of the pictures
OURS: dict[str, tuple[str, ...]] = {
    "edgecv": (),
    "edgecv-drop": ("--accuracy-drop", "1.0"),
    "edgecv-hardswish": ("--activations", "hardswish"),
    "edgecv-hardswish-share": ("--activations", "hardswish", "--activations-share", "0.75"),
    "edgecv-hardswish-half": ("--activations", "hardswish", "--activations-share", "0.5"),
    "edgecv-hardswish-quarter": ("--activations", "hardswish", "--activations-share", "0.25"),
    "edgecv-relu": ("--activations", "relu"),
}
ENGINE_OF = {"cpu": "onnxruntime", "openvino": "openvino", "tflite": "tflite", "edgetpu": "edgetpu"}


@dataclass(frozen=True)
class Way:
    """One way to a network's files. key: its name. form: what it was made of. engines: whose files
    it gives. folder: where they lie. job: for `int8_work.py`; command: of edgecv instead"""

    key: str
    label: str
    told: str
    form: str
    engines: tuple[str, ...]
    folder: str
    job: dict[str, Any] | None = None
    command: tuple[str, ...] = ()


def ways() -> Iterator[Way]:
    """All of them, what others need first."""
    for form in FORMS:
        for engine in ENGINES:
            yield Way(f"{form}-fp32-{engine}", "fp32", "", form, (engine,), f"{form}-fp32",
                      {"do": form, "engine": engine})  # fmt: skip
    for name, rival in RIVALS.items():
        engines = (rival.engine, *(("openvino",) if rival.openvino else ()))
        for form in FORMS:
            yield Way(f"{form}-{name}", rival.label, rival.told, form, engines, f"{form}-{name}",
                      {"do": "quantize", "rival": name, "form": form})  # fmt: skip
    for target, engine in ENGINE_OF.items():
        for key, asked in OURS.items():
            told = " ".join(asked) or "default options"
            yield Way(f"{key}-{target}", f"edgecv, {told}", told, "raw", (engine,),
                      f"{key}-{target}", command=("--target", target, *asked))  # fmt: skip


# --- one attempt


def attempt(command: Sequence[str], limit: float, log: Path, isa: str = "") -> dict[str, Any]:
    """Run a command to its end or the limit: its seconds, of CPU too, and what went wrong."""
    told = {VARIABLE: isa} if isa else {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **told}
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    error = ""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=record.ROOT,
                                   env=environment, start_new_session=True)  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it started is of its session
            code = process.wait()
            error = f"not done after {limit:g} s"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if code and not error:
        error = (log.read_text(errors="replace").strip().splitlines() or [f"ended with {code}"])[-1]
    return {"seconds": round(time.perf_counter() - begin, 1), "cpu_seconds": round(cpu, 1),
            **({"error": error[:400]} if error else {})}  # fmt: skip


def work(job: dict[str, Any], limit: float, log: Path, isa: str = "") -> dict[str, Any]:
    """A job of `int8_work.py` in a process of its own."""
    with tempfile.TemporaryDirectory() as room:
        asked, answer = Path(room) / "job.json", Path(room) / "answer.json"
        asked.write_text(json.dumps(job))
        found = attempt([sys.executable, str(WORKER), str(asked), str(answer)], limit, log, isa)
        return found | (json.loads(answer.read_text()) if answer.is_file() else {})


# --- a network


class Bench:
    """A network's rows under options.work."""

    def __init__(self, file: Path, options: argparse.Namespace) -> None:
        self.file, self.name, self.options = file.resolve(), file.stem, options
        self.room = options.work.resolve() / file.stem
        self.rows = self.room / "rows"
        self.rows.mkdir(parents=True, exist_ok=True)
        self.sets = {half: str(options.work.resolve() / half) for half in (EVEN, ODD)}

    def begin(self) -> None:
        """The fp32 exports and both halves of the pictures. Raises SystemExit."""
        forms = [way for way in ways() if way.label == "fp32" and way.form == "rewritten"]
        anew = self.options.again and any(map(self._wanted, forms))
        if (self.room / "images" / ODD).is_dir() and not anew:
            return
        out = self.room / "fp32"
        shutil.rmtree(out, ignore_errors=True)
        targets = ",".join(t for t in ENGINE_OF if t != "edgetpu")
        self._say(f"fp32 for {targets}")
        asked = ("--target", targets, "--precision", "fp32", "--out", str(out))
        record.edgecv("export", str(self.file), *self._pictures(), *asked)
        (self.room / "fp32.json").write_text(json.dumps({"commit": commit()}))
        said = work(
            {"do": "data", "network": str(self.room), "sets": self.sets}, self.options.limit,
            self.room / "data.log",
        )  # fmt: skip
        if "error" in said:
            raise SystemExit(f"{self.name}: {said['error']}")

    def run(self, way: Way, capped: bool) -> None:
        """Make and judge what is not there yet. capped: the rows of fewer instructions, or those
        of all that the processor has"""
        if not self._wanted(way):
            return
        if self.options.again and not capped:
            for path in self.rows.glob(f"{way.key}[.@]*"):
                path.unlink()
        self._make(way)
        for key, job, isa in self.runs(way):
            if bool(isa) == capped:
                self._judge(key, job, isa)

    def runs(self, way: Way) -> Iterator[tuple[str, dict[str, Any], str]]:
        """(key, what `int8_work.opened` takes, instruction set) of each row of a way."""
        amx = "amx_int8" in cpu_features()
        for engine in way.engines:
            folder = self.rows / way.folder / ("" if way.command else engine)
            if not folder.is_dir() or not any(folder.iterdir()):
                continue
            float_ones = engine == "openvino" and way.label == "fp32"
            for floats in ("f32", "bf16") if float_ones else ("f32",):
                # bf16 without its instructions is computed by detours: nobody would run it
                both = engine == "openvino" and amx and floats == "f32"
                for isa in ("", VNNI) if both else ("",):
                    key = f"{way.key}@{engine}" + "-bf16" * (floats == "bf16") + "-vnni" * bool(isa)
                    job = {"folder": str(folder), "engine": engine, "floats": floats}
                    yield key, job, isa

    def times(self) -> None:
        """Time all rows that were judged, against the file as it is in ONNX Runtime."""
        rows = {}
        for way in ways():
            for key, job, isa in self.runs(way):
                if "metric" in self.kept(key):
                    rows[key] = {**job, "isa": isa}
        load = load_average()
        found = ratios(self.room, list(rows.values()), tell=self._say)
        times = {"load_average": [load, load_average()],
                 "rows": dict(zip(rows, found, strict=True))}  # fmt: skip
        (self.room / "times.json").write_text(json.dumps(times, indent=1))

    def kept(self, key: str) -> dict[str, Any]:
        """What is known of a way or a row; nothing where it was not tried."""
        path = self.rows / f"{key}.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def _make(self, way: Way) -> None:
        if self.kept(way.key):
            return
        self._say(way.key)
        out, log = self.rows / way.folder, self.rows / f"{way.key}.log"
        if way.command:
            shutil.rmtree(out, ignore_errors=True)
            found = self._edgecv(way, out, log)
        else:
            for engine in way.engines:
                shutil.rmtree(out / engine, ignore_errors=True)
            assert way.job is not None
            job = {**way.job, "network": str(self.room), "out": str(out), "file": str(self.file),
                   "floats": str(self.rows / f"{way.form}-fp32")}  # fmt: skip
            found = work(job, self.options.limit, log)
        self._keep(way.key, found)

    def _edgecv(self, way: Way, out: Path, log: Path) -> dict[str, Any]:
        command = [
            sys.executable, "-m", "edgecv", "export", str(self.file), *self._pictures(),
            "--calibration", f"{self.sets[EVEN]}/images", "--evaluate", f"yolo:{self.sets[EVEN]}",
            *way.command, "--out", str(out),
        ]  # fmt: skip
        found = attempt(command, self.options.limit, log)
        found |= {"commit": commit(), "said": log.read_text(errors="replace")[-4000:]}
        if "error" in found and any(out.glob("*.edgecv")):  # written, and a limit is not met
            found["note"] = found.pop("error")
        return found

    def _judge(self, key: str, job: dict[str, Any], isa: str) -> None:
        if self.kept(key):
            return
        self._say(key)
        job = {**job, "do": "judge", "network": str(self.room),
               "parts": str(self.rows / f"{key}.npz")}  # fmt: skip
        self._keep(key, work(job, self.options.limit, self.rows / f"{key}.log", isa))

    def _keep(self, key: str, found: dict[str, Any]) -> None:
        (self.rows / f"{key}.json").write_text(json.dumps(found, indent=1))
        said = found.get("error") or (f"{100 * found['metric']:.2f}" if "metric" in found else "")
        self._say(f"{key}: {found.get('seconds')} s {said}")

    def _pictures(self) -> tuple[str, ...]:
        return ("--task", "detection", "--interpolation", "bilinear", *PREPARED[self.name])

    def _wanted(self, way: Way) -> bool:
        only = [w for w in self.options.only.split(",") if w]
        return not only or any(w in f"{self.name}/{way.key}" for w in only)

    def _say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {what}", file=sys.stderr, flush=True)


def commit() -> str:
    """The checkout's; "+" where edgecv itself was changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=record.ROOT, capture_output=True, text=True,
                              check=False)  # fmt: skip
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + "+" * bool(git("status", "-s", "edgecv"))


def halves(source: Path, work: Path) -> None:
    """work/even and work/odd: the set's pictures in the order of their names, in turn."""
    pictures = sorted((source / "images").glob("*.jpg"))
    for half, start in ((EVEN, 0), (ODD, 1)):
        out = work / half
        if out.is_dir():
            continue
        for kind in ("images", "labels"):
            (out / kind).mkdir(parents=True)
        shutil.copy(source / "data.yaml", out)
        for path in pictures[start::2]:
            shutil.copy(path, out / "images")
            label = source / "labels" / f"{path.stem}.txt"
            if label.is_file():
                shutil.copy(label, out / "labels")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="detectors, .onnx")
    parser.add_argument("--set", type=Path, required=True, help="a YOLO folder: pictures, labels")
    parser.add_argument("--work", type=Path, required=True, help="what is kept of each row")
    parser.add_argument("--only", default="", help="rows that hold one of these words, by ','")
    parser.add_argument("--again", action="store_true", help="make what --only names anew")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of one process")
    parser.add_argument("--times", action="store_true", help="time what is there, nothing else")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    load = load_average()
    halves(options.set, options.work)
    benches = [Bench(file, options) for file in options.files]
    for bench in benches:
        (bench.times if options.times else bench.begin)()
    for capped in () if options.times else (False, True):
        for way in ways():
            for bench in benches:
                bench.run(way, capped)
    int8_page.write(benches, list(ways()), options.out, load)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
