"""Photographs without labels as a yardstick: how often a bundle agrees with fp32, and how closely.

They are cut in two halves; a network calibrated on one is judged on the other, and the other way
round, so every photograph is judged once, by a network that did not see it.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import record  # noqa: F401  (it puts the checkout's edgecv on the path)

from edgecv.data.decode import decode
from edgecv.data.files import calibration_images
from edgecv.fidelity import compare
from edgecv.runtime import open_bundle

SURE = 0.3  # fp32's softmax


class Judged:
    """What a bundle says of photographs: logits (N, classes), best class and its score."""

    def __init__(self, path: Path, photographs: list[Path]) -> None:
        bundle = open_bundle(path)
        logits, best, scores = [], [], []
        for photograph in photographs:
            image = decode(photograph, 3)
            (first,) = bundle(image, top=1)
            best.append(first.index)
            scores.append(first.score)
            (source,), (result,) = bundle.inputs, bundle.outputs
            feeds = {source.name: bundle.preprocess(image)}
            logits.append(bundle.run(feeds)[result.name].reshape(-1))
        bundle.close()
        self.logits, self.best, self.scores = map(np.array, (logits, best, scores))


def unpack(source: Path, folder: Path) -> list[Path]:
    """The image files of a folder, or of a zip (its names are not trusted: base names only)."""
    if source.is_dir():
        return calibration_images(source)
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                (folder / Path(info.filename).name).write_bytes(archive.read(info))
    return calibration_images(folder)


def halves(photographs: list[Path], room: Path, seed: int) -> tuple[Path, Path]:
    """Two folders: every second photograph, in an order drawn by the seed."""
    folders = (room / "half-0", room / "half-1")
    order = np.random.default_rng(seed).permutation(len(photographs))
    for place, j in enumerate(order):
        folders[place % 2].mkdir(exist_ok=True)
        shutil.copy(photographs[j], folders[place % 2] / f"{j:06}{photographs[j].suffix}")
    return folders


def judge(
    paths: list[Path], photographs: list[list[Path]], reference: list[Judged]
) -> dict[str, Any]:
    """What a pair of bundles, one for each split, says of the photographs it did not see."""
    seen = [Judged(path, split) for path, split in zip(paths, photographs, strict=True)]
    splits, missed = [], []
    for a, b in zip(reference, seen, strict=True):
        same, sure = a.best == b.best, a.scores > SURE
        splits.append({"all": _agreement(same), "sure": _agreement(same[sure])})
        missed += [_miss(a, i) for i in np.flatnonzero(sure & ~same)]
    total = {key: _pooled([s[key] for s in splits]) for key in ("all", "sure")}
    logits = [np.concatenate([s.logits for s in side]) for side in (reference, seen)]
    apart = [compare(a.logits, b.logits).sqnr_db for a, b in zip(reference, seen, strict=True)]
    manifest = open_bundle(paths[0]).manifest
    return {
        "path": str(paths[0]), **total, "halves": splits, "sure_missed": missed,
        "sqnr_db": round(compare(*logits).sqnr_db, 2),
        "sqnr_db_by_half": [round(v, 2) for v in apart],
        "executed": manifest["executed"],
        "bundle_bytes": paths[0].stat().st_size, "engine_bytes": manifest["size_bytes"],
    }  # fmt: skip


def described(photographs: list[Path], reference: list[Judged]) -> dict[str, Any]:
    """Which photographs, and of how many fp32 is sure."""
    return {
        "count": len(photographs),
        "sha256": hashlib.sha256(b"".join(p.read_bytes() for p in photographs)).hexdigest(),
        "sure": int(sum((r.scores > SURE).sum() for r in reference)),
        "sure_above": SURE,
        "halves": [len(r.scores) for r in reference],
    }


def share(part: dict[str, Any]) -> str:
    """ "245/247 (99.2%)"."""
    return f"{part['agree']}/{part['count']} ({part['agreement']:.1%})"


def _agreement(same: np.ndarray) -> dict[str, Any]:
    return _share(int(same.sum()), len(same))


def _pooled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return _share(sum(p["agree"] for p in parts), sum(p["count"] for p in parts))


def _share(agree: int, count: int) -> dict[str, Any]:
    return {"agree": agree, "count": count, "agreement": agree / max(1, count)}


def _miss(reference: Judged, i: int) -> dict[str, float]:
    """How sure fp32 was of a photograph: its confidence, and by how much the best logit led."""
    second, best = np.sort(reference.logits[i])[-2:]
    return {
        "confidence": round(float(reference.scores[i]), 3),
        "margin": round(float(best - second), 3),
    }
