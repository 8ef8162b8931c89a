"""The images on which a compressed network changed its mind, and where both networks look.

Runs engines, so it runs in a process of its own: `python -m edgecv.report.evidence JOB ANSWER`.
Nothing of it is kept: what it finds follows from the run's bundles, graphs and test images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import child
from edgecv.bundling.inference import sample, session_outputs
from edgecv.data.images import Images
from edgecv.errors import DataError, EdgecvError, one_line
from edgecv.report import saliency
from edgecv.report.folder import Row, Run
from edgecv.report.gather import compared
from edgecv.report.missing import Missing
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.bundle import opened

Pair = dict[str, Any]
Progress = Callable[..., None]

SHOWN = 8  # images for each compressed bundle
CANDIDATES = 64  # of those that changed, how many are asked how sure the float network was
SPREAD = 64  # images over which saliency drift is averaged, fewer where a map is dear
LEAST = 8
BUDGET = 2 << 30  # numbers through the tails of a graph, for all its maps


def collect(folder: Path, data: dict[str, Any], progress: Progress) -> None:
    """Add `minds`: one entry for each compressed bundle whose answers are kept.

    One process for each graph format, so that an engine's crash costs its own pictures only.
    """
    run, missing = Run(folder, data), Missing(data["missing"])
    rows = [row for target in data["targets"] for row in target["rows"]]
    jobs: dict[str, list[Pair]] = {}
    for row, node, other, images in compared(run, rows):
        pair = _job(run, row, node, other)
        if isinstance(pair, str):
            missing.add("images", f"{row['step']} on {row['target']}: {pair}")
        elif len(images):
            jobs.setdefault(Path(pair["graphs"][1]).suffix, []).append(pair)
    found: dict[str, Pair] = {}
    before = 0
    total = sum(map(len, jobs.values()))
    for pairs in jobs.values():
        tell = _shifted(progress, before, total)
        try:
            answer = child.call("edgecv.report.evidence", {"pairs": pairs}, "report", tell)
        except EdgecvError as e:
            missing.add("images", f"{', '.join(p['id'] for p in pairs)}: {e.what}")
            answer = {"pairs": []}
        found |= {p["id"]: p for p in answer["pairs"]}
        before += len(pairs)
    names = [f"{r['step']}@{r['target']}" for r in rows]
    data["minds"] = [found[name] for name in names if name in found]


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _, note: progress(before + done, total, note)


def _job(run: Run, row: Row, node: Any, other: Any) -> Pair | str:
    """What the process needs to know of one compressed bundle, or why it cannot be shown."""
    if other is None:
        return "no answers of the float network are kept"
    graph, reference = run.graph(node["inputs"].get("graph")), run.graph(run.float_graph(other))
    bundles = run.bundle_file(other), run.bundle_file(node)
    if graph is None or reference is None or None in bundles:
        return "its files are not in the run's store"
    return {
        "id": f"{row['step']}@{row['target']}",
        "step": row["step"],
        "target": row["target"],
        "reference": row["reference"],
        "bundles": [str(b) for b in bundles],
        "graphs": [str(reference), str(graph)],
        "images": str(run.place(node["inputs"].get("test"))),
    }


# the process


def work(job: dict[str, Any]) -> dict[str, Any]:
    """job: {"pairs": [...]} as `_job` makes them. Returns {"pairs": [...]}."""
    maps = Maps()
    answers = []
    for i, pair in enumerate(job["pairs"]):
        child.report(i, len(job["pairs"]), pair["id"])
        answers.append(_answer(pair, maps))
    return {"pairs": answers}


def _answer(pair: Pair, maps: Maps) -> Pair:
    images = Images.load(Path(pair["images"]))
    contents = [read_bundle(b) for b in pair["bundles"]]
    before, after = (_predictions(Path(b).parent, len(images)) for b in pair["bundles"])
    notes: list[str] = []
    changed = np.flatnonzero(before != after)
    right = before == images.labels
    candidates = _candidates(changed, right)
    sure = _probabilities(contents[0], images.pixels[candidates], notes)
    order = sorted(
        range(len(candidates)),
        key=lambda i: (not right[candidates[i]], -_best(sure, i), int(candidates[i])),
    )[:SHOWN]
    shown = [int(candidates[i]) for i in order]
    now = _probabilities(contents[1], images.pixels[shown], notes)
    answer = {k: pair[k] for k in ("id", "step", "target", "reference")}
    answer |= {"changed": len(changed), "samples": len(images), "drift": None, "notes": notes}
    answer["images"] = [
        {
            "index": index,
            "truth": images.classes[images.labels[index]],
            "float": _said(images.classes, int(before[index]), sure, order[row]),
            "compressed": _said(images.classes, int(after[index]), now, row),
        }
        for row, index in enumerate(shown)
    ]
    try:
        _look(pair, answer, maps, images, before, contents[0].preprocess)
    except EdgecvError as e:
        notes.append(f"no Grad-CAM: {e.what}")
    except Exception as e:  # a graph of whatever make: the rest of the report goes on
        notes.append(f"no Grad-CAM: {type(e).__name__}: {one_line(e, 120)}")
    return answer


def _predictions(folder: Path, count: int) -> np.ndarray:
    found = np.load(folder / "predictions.npy", allow_pickle=False)
    if found.shape != (count,):
        raise DataError(str(folder), f"{found.shape} answers for {count} images")
    return np.asarray(found)


def _candidates(changed: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of the images that changed, those to be ranked: the ones float had right come first."""
    first, rest = changed[right[changed]], changed[~right[changed]]
    first = sample(first, CANDIDATES)
    return np.concatenate([first, sample(rest, CANDIDATES - len(first))])


def _probabilities(contents: Any, pixels: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """float32 (images, classes), by the bundle on its own engine; None where that is not here."""
    if not len(pixels):
        return None
    try:
        bundle = opened(contents)
    except EdgecvError as e:
        if e.what not in notes:
            notes.append(e.what)
        return None
    try:
        scores = session_outputs(bundle.session, pixels, bundle.preprocess)
    finally:
        bundle.close()
    scores = scores.reshape(len(pixels), -1)
    if contents.manifest.get("scores", "logits") == "probabilities":
        return scores
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _best(probabilities: np.ndarray | None, row: int) -> float:
    return 0.0 if probabilities is None else round(float(probabilities[row].max()), 6)


def _said(
    names: tuple[str, ...], answer: int, probabilities: np.ndarray | None, row: int
) -> dict[str, Any]:
    """A network's answer and how sure it was of it."""
    label = names[answer] if answer < len(names) else str(answer)
    sure = None if probabilities is None else round(float(probabilities[row][answer]), 4)
    return {"label": label, "p": sure}


# Grad-CAM


class Maps:
    """Grad-CAM of the graphs at hand. Targets share graphs, and all share the float one."""

    def __init__(self) -> None:
        self._cams: dict[str, saliency.Cam] = {}
        self._found: dict[tuple[str, int, int], np.ndarray] = {}

    def cam(self, graph: str, preprocess: Any) -> saliency.Cam:
        if graph not in self._cams:
            self._cams[graph] = saliency.open_cam(Path(graph), preprocess)
        return self._cams[graph]

    def of(self, graph: str, images: Images, index: int, target: int) -> np.ndarray:
        key = (graph, index, target)
        if key not in self._found:
            self._found[key] = self._cams[graph].map(np.asarray(images.pixels[index]), target)
        return self._found[key]


def _look(
    pair: Pair, answer: Pair, maps: Maps, images: Images, before: np.ndarray, preprocess: Any
) -> None:
    """Add maps and their agreement to the images that are shown, and the drift over a sample."""
    cams = [maps.cam(graph, preprocess) for graph in pair["graphs"]]
    size = images.pixels.shape[1:3]

    def both(index: int) -> list[np.ndarray]:
        return [maps.of(g, images, index, int(before[index])) for g in pair["graphs"]]

    for shown in answer["images"]:
        small = both(shown["index"])
        shown["maps"] = [np.round(m, 6).tolist() for m in small]
        shown["agreement"] = _agreement(small, size)
    count = max(LEAST, min(SPREAD, BUDGET // max(c.cost for c in cams)))
    asked = sample(np.arange(len(images)), count)
    found = [a for a in (_agreement(both(int(i)), size) for i in asked) if a is not None]
    answer["drift"] = _drift(found, len(asked))


def _agreement(small: list[np.ndarray], size: tuple[int, ...]) -> list[float] | None:
    one, two = (saliency.upsampled(m, (size[0], size[1])) for m in small)
    found = saliency.agreement(one, two)
    return None if found is None else [round(v, 4) for v in found]


def _drift(found: list[list[float]], asked: int) -> dict[str, Any]:
    """How well the maps agree over the sample. flat: images of which a map is zero everywhere."""
    values = np.array(found).reshape(-1, 2)
    rs, ious = values[:, 0], values[:, 1]
    some = len(values) > 0
    return {
        "samples": len(values),
        "flat": asked - len(values),
        "r": round(float(rs.mean()), 4) if some else None,
        "r_low": round(float(np.percentile(rs, 10)), 4) if some else None,
        "iou": round(float(ious.mean()), 4) if some else None,
    }


if __name__ == "__main__":
    child.serve(work)
