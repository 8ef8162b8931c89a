"""The report on what a network's integers cost, beside the float network it was made of.

One of the two is a bundle: it says how images are fed and how answers are read.

Run by `edgecv.child`: `python -m edgecv.diagnosis.why.rounding.report JOB ANSWER`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import data as datasets
from edgecv.backends import facts, reference, run_module
from edgecv.child import report, serve
from edgecv.data.images import Images, as_outputs
from edgecv.diagnosis.why.rounding.ablation import Ablation
from edgecv.diagnosis.why.rounding.judge import Judge
from edgecv.diagnosis.why.rounding.qdq import QdqNetwork
from edgecv.errors import DataError, RecipeError, UnsupportedError
from edgecv.runtime.archive import Contents, read_bundle

GEOMETRY = ("crop_pct", "interpolation", "resize", "pad_value", "pad_at")
HINT = "give the .onnx file of Q/DQ pairs, and the fp32 bundle for cpu or the float .onnx file"
SAMPLES = 128  # images, where there are as many


def work(job: dict[str, Any]) -> dict[str, Any]:
    """job: network, against (bundles or graph files, the quantized one and the float one), images
    (a source, `edgecv.data`), samples (at the most; None: SAMPLES).
    Returns `Ablation.run`, with "network", "against" and "source".

    Raises EdgecvError: no float network of this one's, nothing quantized, no images.
    """
    paths = [Path(job["network"]), Path(job["against"])]
    bundles = [read_bundle(p) if p.suffix == ".edgecv" else None for p in paths]
    contents = next((b for b in bundles if b is not None), None)
    if contents is None:
        what = "and --against are files, which do not say how images are fed"
        raise RecipeError(str(paths[0]), what, "give a bundle for one of them (edgecv export)")
    files, floats = (
        dict(b.files) if b else {p.name: _read(p)} for b, p in zip(bundles, paths, strict=True)
    )
    network = opened(files, floats, str(paths[0]), str(paths[1]))
    engine, into = str(contents.manifest["engine"]), contents.preprocess
    with tempfile.TemporaryDirectory(prefix="edgecv-why-") as room:
        images = images_of(contents, str(job["images"]), Path(room), job["samples"] or SAMPLES)
        judge = Judge(contents, images, str(job["images"]))
        session = run_module(reference(Path(next(iter(floats))).suffix[1:])).Session(floats)
        found = Ablation(network, session, judge, facts(engine), into, report).run()
    named = {"network": paths[0].name, "against": paths[1].name, "source": str(job["images"])}
    return {**named, **found}


def opened(
    files: dict[str, bytes], floats: dict[str, bytes], where: str, against: str
) -> QdqNetwork:
    """The quantized network, to be taken apart. Raises UnsupportedError, ModelError."""
    (name, content), (other, real) = (next(iter(f.items())) for f in (files, floats))
    for place, kind in ((where, Path(name).suffix), (against, Path(other).suffix)):
        if kind != ".onnx":
            what = f"holds a {kind or name} file, and roundings are taken out of .onnx files alone"
            raise UnsupportedError(place, what, HINT)
    return QdqNetwork(content, real, where)


def images_of(contents: Contents, source: str, room: Path, count: int) -> Images:
    """At most so many images of a source, evenly spread, for the bundle. Raises DataError."""
    into = contents.preprocess
    how = {key: getattr(into, key) for key in GEOMETRY}
    found = datasets.materialise(source, "test", into.size, into.channels, how, room)
    if found.kind:
        found = as_outputs(found, contents.manifest.get("labels"))
    keep = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))
    truth = None if found.truth is None else found.truth.some(keep)
    return replace(found, pixels=found.pixels[keep], labels=found.labels[keep], truth=truth,
                   arrays={n: v[keep] for n, v in found.arrays.items()})  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise DataError(str(path), f"cannot be read: {e.strerror}") from None


if __name__ == "__main__":
    serve(work)
