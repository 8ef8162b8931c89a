"""What a row of `int8_detectors.py` does in a process of its own, and how its files are opened.

    python benchmarks/int8_work.py JOB.json ANSWER.json

A job is {"do": "data", "raw", "rewritten", "quantize" or "judge", "network": folder of the
network's work, ...}; the answer holds {"error": sentence} where it could not be done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import int8_rivals as rivals
import numpy as np
import record  # noqa: F401  (it puts the checkout's edgecv on the path)

from edgecv import tasks
from edgecv.backends import Session, run_module
from edgecv.bundling.task_score import judge
from edgecv.data import materialise
from edgecv.data.images import Images
from edgecv.graphs.openvino.files import cleaned, wishing_bf16
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.runtime.preprocess import Preprocess
from edgecv.samples import Feeds
from edgecv.tasks.base import Task

MAIN = {"onnxruntime": "model.onnx", "openvino": "model.xml", "tflite": "model.tflite"}
TARGETS = {"onnxruntime": "cpu", "openvino": "openvino", "tflite": "tflite"}  # of fp32 exports
EVEN, ODD = "even", "odd"


class Opened(NamedTuple):
    """A network on its engine, one thread, and how its answers are read."""

    session: Session
    task: Task
    shown: Sequence[Any]
    preprocess: Preprocess
    bytes: int

    def feed(self, images: Images) -> dict[str, np.ndarray]:
        return Feeds(images.samples, self.session.inputs, self.preprocess)[0]


def reference(network: Path) -> Contents:
    """The fp32 bundle for the cpu target: how pictures go in, and what the outputs mean."""
    (bundle,) = (network / "fp32").glob("*.cpu.edgecv")
    return read_bundle(bundle)


def opened(network: Path, folder: Path, engine: str, floats: str = "f32") -> Opened:
    """folder: of a bundle, or of one engine's files. floats: "bf16" asks OpenVINO for it"""
    contents = next(iter(map(read_bundle, folder.glob("*.edgecv"))), None)
    files = dict(contents.files) if contents else files_of(folder, engine)
    engine = contents.manifest["engine"] if contents else engine
    if floats == "bf16":
        main = MAIN[engine]
        files[main] = wishing_bf16(cleaned(files[main]))
    said = contents or reference(network)
    task = tasks.of_manifest(said.manifest)
    if task is None:
        raise ValueError("its manifest names no task")
    session = run_module(engine).Session(files, threads=1)
    shown = said.graph[1] or said.outputs
    return Opened(session, task, shown, said.preprocess, sum(map(len, files.values())))


def files_of(folder: Path, engine: str) -> dict[str, bytes]:
    """An engine's files, the main one first."""
    paths = sorted(folder.iterdir(), key=lambda p: p.name != MAIN[engine])
    return {p.name: p.read_bytes() for p in paths}


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


# --- jobs


def data(job: dict[str, Any], network: Path) -> dict[str, Any]:
    """Both halves at the network's input size, beside its other work."""
    how = reference(network).preprocess
    geometry = {k: getattr(how, k) for k in
                ("resize", "crop_pct", "interpolation", "pad_value", "pad_at")}  # fmt: skip
    counts = {}
    for half in (EVEN, ODD):
        out = network / "images" / half
        images = materialise(f"yolo:{job['sets'][half]}", "test", how.size, how.channels, geometry,
                             out)  # fmt: skip
        counts[half] = len(images)
    return counts


def raw(job: dict[str, Any], network: Path) -> dict[str, Any]:
    """The user's file in one engine's form."""
    file, engine = Path(job["file"]), job["engine"]
    if engine == "onnxruntime":
        files = {MAIN[engine]: file.read_bytes()}
    elif engine == "openvino":
        files = rivals.openvino_of(file.read_bytes())
    else:
        files = rivals.tflite_of(file, Images.load(network / "images" / EVEN).pixels)
    write(Path(job["out"]) / engine, files)
    return {}


def rewritten(job: dict[str, Any], network: Path) -> dict[str, Any]:
    """edgecv's fp32 export for an engine, as that engine's files."""
    engine = job["engine"]
    (bundle,) = (network / "fp32").glob(f"*.{TARGETS[engine]}.edgecv")
    write(Path(job["out"]) / engine, read_bundle(bundle).files)
    return {}


def quantize(job: dict[str, Any], network: Path) -> dict[str, Any]:
    """What somebody's quantizer makes of a float form, calibrated on the even half."""
    rival = rivals.RIVALS[job["rival"]]
    form, out = Path(job["floats"]) / rival.engine, Path(job["out"])
    floats, images = opened(network, form, rival.engine), Images.load(network / "images" / EVEN)
    (source,) = floats.session.inputs
    feeds = Feeds(images.samples, floats.session.inputs, floats.preprocess)
    samples = [feed[source.name] for feed in feeds]
    begin = time.perf_counter()
    made = rival.make(files_of(form, rival.engine), samples, source.name, metric(floats, images))
    seconds = time.perf_counter() - begin
    write(out / rival.engine, made)
    found: dict[str, Any] = {"quantizer_seconds": round(seconds, 1)}
    if rival.openvino:
        try:
            write(out / "openvino", rivals.openvino_of(next(iter(made.values()))))
        except Exception as error:
            found["openvino"] = sentence(error)
    return found


def metric(network: Opened, images: Images) -> rivals.Metric:
    """The task's metric of some of the images, by a function that answers one of them."""
    sizes, names = images.sizes(network.preprocess.size), [spec.name for spec in network.shown]
    judging = network.task.judging()

    def value(run: Callable[[int], Mapping[str, np.ndarray]], picked: Sequence[int]) -> float:
        reads = []
        for i in picked:
            answers = dict(zip(names, run(i).values(), strict=True))
            lies = network.preprocess.placement(*sizes[i])
            reads.append(network.task.read(answers, lies, sizes[i], **judging))
        truth = images.truth.some(picked)  # type: ignore[union-attr]
        if truth.crowd.all():  # a picture without an object: right is to find nothing
            return float(not any(len(read.boxes) for read in reads))
        return network.task.score(reads, truth, images.classes).value

    return value


def judged(job: dict[str, Any], network: Path) -> dict[str, Any]:
    """The metric on the odd half, by edgecv's own code for every row alike."""
    images = Images.load(network / "images" / ODD)
    one = opened(network, Path(job["folder"]), job["engine"], job["floats"])
    executed = one.session.executed()
    found, parts, _ = judge(one.task, one.session, one.shown, images, one.preprocess)
    np.savez(Path(job["parts"]), **parts)
    return {"metric": found["value"], "more": found["more"], "images": len(images),
            "executed": executed, "size_bytes": one.bytes}  # fmt: skip


JOBS = {"data": data, "raw": raw, "rewritten": rewritten, "quantize": quantize, "judge": judged}


def sentence(error: BaseException) -> str:
    """An error of any tool in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def main() -> int:
    job = json.loads(Path(sys.argv[1]).read_text())
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rivals.no_telemetry()
    try:
        answer = JOBS[job["do"]](job, Path(job["network"]))
    except (Exception, SystemExit) as error:
        answer = {"error": sentence(error)}
    Path(sys.argv[2]).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
