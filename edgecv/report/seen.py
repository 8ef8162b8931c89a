"""Two bundles of a detector or of a segmentation network, image by image and class by class.

Runs engines, so it runs in a process of its own: `python -m edgecv.report.seen JOB ANSWER`.

    figures   from what the bundles hold: the metric of each class, precision and recall
    seen      from their engines: the images on which they differ most, with what differs

Both networks are asked as they are deployed, at the float bundle's confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import child
from edgecv.bundling import task_score
from edgecv.data.annotations import Boxes, Maps
from edgecv.data.images import Images
from edgecv.errors import DataError, EdgecvError
from edgecv.report import found, pictures
from edgecv.report.differences import float_bundle
from edgecv.report.folder import Row, Run
from edgecv.report.missing import Missing
from edgecv.report.pairing import CLASSES
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.runtime.bundle import opened
from edgecv.runtime.placement import Placement
from edgecv.tasks.base import Task
from edgecv.tasks.drawing import IGNORED

Progress = Callable[..., None]

SHOWN = 8  # images of a pair
ALL = 64  # of all pairs together, about 2 MB of the page


def collect(folder: Path, data: dict[str, Any], progress: Progress) -> None:
    """Add `seen`: one entry for each compressed bundle whose test images have boxes or maps:
    {"step", "target", "reference", and what `figures` and `seen` give}."""
    run, missing = Run(folder, data), Missing(data["missing"])
    rows = [row for target in data["targets"] for row in target["rows"]]
    data["seen"] = []
    jobs = [job for row in rows if (job := _job(run, row, rows))]
    shown = max(2, min(SHOWN, ALL // max(1, len(jobs))))
    for i, job in enumerate(jobs):
        progress(i, len(jobs), f"{job['step']}@{job['target']}")
        try:
            made = child.call("edgecv.report.seen", {**job, "shown": shown}, "report")
        except EdgecvError as e:
            missing.add("what is found", f"{job['step']} on {job['target']}: {e.what}")
            continue
        data["seen"].append({k: job[k] for k in ("step", "target", "reference")} | made)


def _job(run: Run, row: Row, rows: Sequence[Row]) -> dict[str, Any] | None:
    """What the process needs to know of a compressed bundle; None where there is nothing to ask."""
    node = run.bundle(row)
    if row["is_reference"] or node is None or (path := run.bundle_file(node)) is None:
        return None
    images = run.images(node)
    if images is None or not isinstance(images.truth, Boxes | Maps):
        return None
    if (other := float_bundle(run, row, rows)) is None:
        return None
    return {
        "step": row["step"], "target": row["target"], "reference": row["reference"],
        "bundles": [str(other), str(path)], "images": str(run.place(node["inputs"].get("test"))),
    }  # fmt: skip


# the process


def work(job: dict[str, Any]) -> dict[str, Any]:
    """job: as `_job` makes it."""
    bundles = [Path(bundle) for bundle in job["bundles"]]
    images = Images.load(Path(job["images"]))
    contents = [read_bundle(path) for path in bundles]
    return {**figures(contents[0], contents[1]), **seen(bundles, images, job["shown"])}


def figures(before: Contents, after: Contents) -> dict[str, Any]:
    """{"classes": as `found.by_class`, "curves": {"before", "after": precision at 101 recalls}} of
    what the bundles hold; empty where they do not hold it."""
    metrics = [contents.manifest.get("metric") or {} for contents in (before, after)]
    per_class = [metric.get("per_class") or {} for metric in metrics]
    curves = {}
    if all("matched" in contents.parts for contents in (before, after)):
        both = (("before", before), ("after", after))
        curves = {key: found.curve(contents.parts).tolist() for key, contents in both}
    return {"classes": found.by_class(per_class[0], per_class[1], CLASSES), "curves": curves}


def seen(bundles: Sequence[Path], images: Images, shown: int = SHOWN) -> dict[str, Any]:
    """What the second of two bundles says otherwise.

    images: with boxes or maps, as the run keeps them; shown: how many, at the most
    {"counts": {kind: how many}, "images": [{"index", "visible": [y0, x0, y1, x1], ...}, ...]}:
    where in the network's input the picture lies; of a detector its "changes", as `found.Change` in
    pixels of that part; of segmentation the "share" of pixels that differ and maps as data URIs.
    Raises DataError: another task; MissingExtraError, EngineError.
    """
    contents = [read_bundle(path) for path in bundles]
    first, *reads = _read(contents, images)
    held = type(images.truth).__name__
    if first.truth == "Boxes" == held and hasattr(reads[0][0], "boxes"):
        return _boxes(images, reads, contents[0], shown)
    if first.truth == "Maps" == held and hasattr(reads[0][0], "map"):
        return _maps(images, reads, contents[0], shown)
    raise DataError("report", f"task {first.name} has no pictures of what it finds")


def _read(contents: Sequence[Contents], images: Images) -> list[Any]:
    """The first bundle's task, and what each of the bundles says of every image."""
    answers: list[Any] = []
    asked: dict[str, Any] = {}
    for one in contents:
        bundle = opened(one)
        try:
            task: Task | None = bundle.task
            if task is None:
                raise DataError(str(one.path), "has no task", "its outputs are compared in dB")
            if not answers:
                answers.append(task)
                asked = {k: getattr(task, k) for k in ("confidence", "iou") if k in task.asks}
            made = task_score.reads(
                task, bundle.session, bundle.outputs, images, bundle.preprocess, asked
            )
            answers.append(list(made))
        finally:
            bundle.close()
    return answers


def _boxes(images: Images, reads: Sequence[Any], contents: Contents, most: int) -> dict[str, Any]:
    truth = images.truth
    assert isinstance(truth, Boxes)
    made = found.compared(reads[0], reads[1], truth)
    shown = []
    for i in found.telling(made, most):
        lies = contents.preprocess.placement(*map(int, truth.sizes[i]))
        part = visible(images.pixels.shape[1:3], lies)
        moved = [_moved(change, lies, part)._asdict() for change in made[i]]
        shown.append({"index": i, "visible": part, "changes": moved})
    return {"counts": found.counted(made), "images": shown}


def _maps(images: Images, reads: Sequence[Any], contents: Contents, most: int) -> dict[str, Any]:
    truth = images.truth
    assert isinstance(truth, Maps)
    off = np.array([(a.map != b.map).mean() for a, b in zip(*reads, strict=True)])
    order = [int(i) for i in np.argsort(-off, kind="stable")[:most] if off[i] > 0]
    shown = []
    for i in order:
        maps = [r[i].map for r in reads]
        lies = contents.preprocess.placement(*map(int, truth.sizes[i]))
        present = [int(k) for k in np.unique(np.stack(maps)) if k != IGNORED]
        shown.append({
            "index": i, "visible": visible(images.pixels.shape[1:3], lies),
            "size": list(maps[0].shape),
            "truth": pictures.mask(truth[i]), "before": pictures.mask(maps[0]),
            "after": pictures.mask(maps[1]), "differing": pictures.differing(*maps),
            "share": float(off[i]), "classes": present,
        })  # fmt: skip
    return {"counts": {"pixels": float(off.mean())}, "images": shown}


def visible(side: Sequence[int], lies: Placement) -> list[int]:
    """[y0, x0, y1, x1]: where in a network's input, (height, width), a picture lies."""
    begin = [max(0, at) for at in lies.offset]
    ends = zip(side, lies.offset, lies.resized, strict=True)
    return [*begin, *(min(whole, at + n) for whole, at, n in ends)]


def _moved(change: found.Change, lies: Placement, part: Sequence[int]) -> found.Change:
    """A change with its boxes in pixels of the part that is seen."""
    scale = np.array(lies.scale[::-1] * 2)
    shift = np.array([lies.offset[1] - part[1], lies.offset[0] - part[0]] * 2)

    def placed(box: Sequence[float]) -> tuple[float, ...]:
        return tuple((np.array(box) * scale + shift).tolist())

    was = None if change.was is None else placed(change.was)
    return change._replace(box=placed(change.box), was=was)


if __name__ == "__main__":
    child.serve(work)
