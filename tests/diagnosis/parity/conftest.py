"""One network as a Model folder and as bundles of three engines, float and int8; and climbing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import child
from edgecv.runtime.preprocess import Preprocess

MEAN, STD = (110.0, 120.0, 130.0), (60.0, 70.0, 80.0)
PREPROCESS = Preprocess((24, 24), 3, MEAN, STD, crop_pct=1.0)
NAMES = tuple("abcdefghij")


@dataclass(frozen=True)
class Made:
    """model: the Model folder; bundles by "fp32.cpu", "int8.tflite" and the like; images: a folder
    of the test images as decoded arrays."""

    model: Path
    bundles: dict[str, Path]
    root: Path

    def __getitem__(self, name: str) -> Path:
        return self.bundles[name]


def pixels(count: int = 48) -> np.ndarray:
    """uint8 (count, 24, 24, 3): smooth, brighter to one corner, other colours in each."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 6, 6, 3))
    smooth = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    ramp = np.arange(24)[None, :, None, None] * np.array([3.0, 1.0, 0.0])
    return np.clip(0.7 * smooth + ramp, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks here are built by a function of the tests."""
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch = pytest.importorskip("torch")
    for library in ("onnx", "onnxruntime", "openvino", "ai_edge_litert", "ai_edge_quantizer"):
        pytest.importorskip(library)
    from edgecv import target
    from edgecv.bundling import build
    from edgecv.data.images import Images
    from edgecv.methods.export.onnx import export_onnx
    from edgecv.methods.quantize.onnx_qdq import quantize_onnx
    from edgecv.methods.quantize.tflite_int8 import quantize_tflite
    from edgecv.models.model import Model
    from tests.backends import tflite_graphs as nets

    root = tmp_path_factory.mktemp("parity")
    module = nets.net()
    model = Model("tests.backends.tflite_graphs:net", {}, (), PREPROCESS.to_json(), NAMES)
    model.save(root / "model", module)
    x = PREPROCESS.normalise(pixels())
    with torch.inference_mode():
        labels = module(torch.from_numpy(x)).numpy().argmax(1).astype(np.int64)
    Images(pixels(), labels, NAMES).save(root / "images")
    onnx = export_onnx(module, torch.zeros(1, 3, 24, 24), root / "onnx")
    cpu, lite = target.load("cpu"), target.load("tflite")
    channels_last = x.transpose(0, 2, 3, 1).copy()
    graphs = {
        "fp32.cpu": onnx,
        "fp32.openvino": onnx,
        "int8.cpu": quantize_onnx(onnx, x, cpu.grid, root / "onnx-int8"),
        "fp32.tflite": nets.float_graph(),
        "int8.tflite": quantize_tflite(
            nets.float_graph(), channels_last, lite.grid, lite.io, root / "tflite-int8"
        ),
    }
    bundles = {}
    for name, graph in graphs.items():
        graph.save_facts()
        out = root / "bundles" / name
        facts = build.work(
            {
                "graph": str(graph.path.parent),
                "target": target.load(name.partition(".")[2]).model_dump(mode="json"),
                "preprocess": PREPROCESS.to_json(),
                "labels": list(NAMES),
                "images": str(root / "images"),
                "test": str(root / "images"),
                "test_digest": "images",
                "name": name,
                "made_from": "0" * 32,
                "out": str(out),
            }
        )
        bundles[name] = out / facts["bundle"]
    return Made(root / "model", bundles, root)


@pytest.fixture
def climb(made: Made, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """climb(bundle, against, samples=...) -> what `climb` answers, on the images."""
    from edgecv.diagnosis.parity import compare as climbing
    from edgecv.diagnosis.parity import images, reference

    monkeypatch.setattr(child, "report", lambda *_: None)
    find = reference.find

    def with_images(contents: Any, against: Path | None) -> Any:
        found = find(contents, against)
        found.images = images.of_run(made.root / "images")
        return found

    monkeypatch.setattr(reference, "find", with_images)

    def run(bundle: Path, against: Path | None, count: int = 16) -> dict[str, Any]:
        given = str(against) if against else None
        job = {"bundle": str(bundle), "against": given, "images": None, "samples": count}
        return climbing.work(job)

    return run


def wrong(data: dict[str, Any]) -> dict[str, Any]:
    """The first rung that differs."""
    return next(r for r in data["rungs"] if not r["agrees"])
