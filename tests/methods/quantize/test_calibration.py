"""Calibration images that cannot be right: refused, or told with their numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecv import target
from edgecv.backends.onnxruntime.run import Session
from edgecv.errors import DataError, UnsupportedError
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize.calibration import FEW, check_samples, doubts
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.runtime.spec import TensorSpec
from edgecv.stages.quantize import Quantize
from edgecv.target import Grid
from tests.backends.tflite_graphs import GRID
from tests.networks import SIZE, chain, context

SHAPE = (3, 8, 8)
TAKES = TensorSpec("input", "float32", (1, *SHAPE), "NCHW")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, *SHAPE)).astype(np.float32)
MEAN, STD = (np.float32(v).reshape(3, 1, 1) for v in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (PIXELS[:0], "there are none"),
        (PIXELS[:, :2], r"\(2, 8, 8\), the network takes float32 \(3, 8, 8\)"),
        (PIXELS.astype(np.float64), "float64"),
        (np.where(np.arange(40).reshape(-1, 1, 1, 1) == 7, np.inf, PIXELS), "number 7"),
        (np.repeat(PIXELS[:1], 5, axis=0), "all 5 are the same"),
        (np.ones_like(PIXELS), "every image is of one colour"),
    ],
    ids=["none", "shape", "dtype", "infinite", "equal", "blank"],
)
def test_refused(samples: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_samples(samples, [TAKES])


@pytest.mark.parametrize(
    "samples",
    [PIXELS, PIXELS / 255, (PIXELS - 127) / 128, (PIXELS - MEAN) / STD, PIXELS - MEAN],
    ids=["0..255", "0..1", "-1..1", "standardised", "mean taken off"],
)
def test_nothing_is_said_of_what_networks_expect(samples: np.ndarray) -> None:
    check_samples(samples, [TAKES])
    assert doubts(samples) == []


@pytest.mark.parametrize(
    "samples",
    [
        PIXELS / 255 / 255,
        ((PIXELS - 127) / 128 - 127) / 128,
        ((PIXELS - MEAN) / STD - MEAN / 255) / (STD / 255),
    ],
    ids=["divided twice", "-1..1 twice", "standardised twice"],
)
def test_what_was_normalised_twice_is_told_with_its_numbers(samples: np.ndarray) -> None:
    (said,) = doubts(samples)
    assert "normalised twice" in said
    assert f"standard deviation {samples.std():.3g}" in said


def test_few_are_told() -> None:
    (said,) = doubts(PIXELS[: FEW - 1] / 255)
    assert f"{FEW - 1} calibration images are few" in said


def test_the_stage_logs_and_the_graph_keeps_what_was_odd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = chain().eval()
    graph = export_onnx(module, torch.zeros(1, 3, SIZE, SIZE), tmp_path / "f")
    room = context(tmp_path / "q", target=target.load("cpu"), where="small-int8")
    with caplog.at_level(logging.WARNING, "edgecv"):
        Quantize(samples=8, min_sqnr_db=0, min_agreement=0).run(graph, room)
    assert "small-int8: 8 calibration images are few" in caplog.text


class Odd(nn.Module):
    """A sine between two convolutions: no engine has an int8 kernel for it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.sin(self.a(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_an_operator_without_an_int8_kernel_stays_float_and_is_named(tmp_path: Path) -> None:
    samples = PIXELS / 255
    graph = export_onnx(Odd(), torch.zeros(1, *SHAPE), tmp_path / "onnx")
    made = quantize_onnx(graph, samples, Grid(), tmp_path / "a")
    assert made.facts["warnings"] == [
        "Sin (x1) has no int8 kernel and stays float, with conversions around it"
    ]
    assert Session({"m": made.path.read_bytes()}).executed() == {"int8": 3}
    floats = export_tflite(Odd().eval(), torch.zeros(1, *SHAPE), tmp_path / "tflite")
    images = np.ascontiguousarray(samples.transpose(0, 2, 3, 1))
    lite = quantize_tflite(floats, images, GRID, "int8", tmp_path / "b")
    assert lite.facts["warnings"][0].startswith("SIN (x1) has no int8 kernel")
    assert lite.facts["executed"] == {"int8": 2, "fp32": 1}  # its last product's answers are float
    with pytest.raises(UnsupportedError, match=r"SIN \(\w+\) has no integer kernel"):
        quantize_tflite(floats, images, GRID, "uint8", tmp_path / "c")


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_mean_is_of_each_images_own_extremes(form: str, tmp_path: Path) -> None:
    """One image's outlier moves it by its share; what the network answers keeps its extremes."""
    from edgecv.methods.quantize._tflite_measured import measure_tflite
    from edgecv.methods.quantize.onnx_measured import measure_onnx

    x = np.random.default_rng(0).normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)
    x[5, 0, 0, 0] = 100.0
    example = torch.zeros(1, 3, SIZE, SIZE)
    if form == "onnx":
        held = measure_onnx(export_onnx(chain().eval(), example, tmp_path), x)
        means, spans = held.ranges("mean", False), held.ranges("minmax", False)
    else:
        graph = export_tflite(chain().eval(), example, tmp_path)
        made = measure_tflite(graph, x.transpose(0, 2, 3, 1))
        means, spans = made.ranges("mean"), made.ranges("minmax")
    source, *_, answer = spans
    low, high = x.min((1, 2, 3)), x.max((1, 2, 3))
    assert spans[source] == (low.min(), high.max())
    assert means[source] == pytest.approx((low.mean(), high.mean()), rel=1e-6)
    assert means[answer] == spans[answer]
