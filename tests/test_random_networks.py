"""A fixed sample of `benchmarks/random_networks.py`: right, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
from benchmarks.random_nets import onnx_nets, task_judging, task_nets, task_reading, torch_nets
from benchmarks.random_nets.judging import Network, compared, judged, normalised
from benchmarks.random_nets.pictures import pictures
from benchmarks.random_nets.verdicts import FAULTS, RIGHT

# (network, target, precision): each export takes a second or two.
SAMPLE = [
    (0, "cpu", "fp32"), (1, "cpu", "fp32"), (2, "openvino", "fp32"), (3, "cpu", "int8"),
    (4, "c", "fp32"), (6, "c", "int8"), (9, "openvino", "int8"), (0, "cpu", "int8"),
]  # fmt: skip
# Detectors and segmentation networks: YOLOv5, YOLOv8, CenterNet, YOLOX's maps, a segmentation's
TASKS = [
    (1, "cpu", "fp32"), (6, "openvino", "fp32"), (8, "cpu", "fp32"), (17, "cpu", "int8"),
    (2, "cpu", "fp32"),
]  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@pytest.mark.parametrize(("number", "target", "precision"), SAMPLE)
def test_right_or_refused(
    number: int, target: str, precision: str, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")
    found = judged(Network(number, 0, room), target, precision)
    assert found["verdict"] not in FAULTS, found
    if target != "c":
        assert found["verdict"] == RIGHT, found


@pytest.mark.parametrize(("number", "target", "precision"), TASKS)
def test_a_task_is_right_or_refused(number: int, target: str, precision: str, room: Path) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    found = task_judging.judged(task_judging.Network(number, 0, room), target, precision)
    assert found["verdict"] not in FAULTS, found
    if precision == "fp32":
        assert found["verdict"] == RIGHT, found


def test_the_judge_of_boxes_sees_what_is_wrong(room: Path) -> None:
    network = task_judging.Network(1, 0, room)
    made, image = network.made, (50, 70)
    raw = network.raw(np.zeros((1, 3, *made.size), np.float32))
    whole = task_reading.candidates(made, raw, image)
    boxes, scores, _ = task_reading.suppressed(made, whole, image)
    assert len(boxes)
    assert (np.diff(scores) <= 0).all()
    assert scores.min() >= made.decode["confidence"]
    assert task_reading.overlap(boxes[0], boxes[0]) == 1
    assert task_reading.overlap(boxes[0], boxes[0] + 1000) == 0


def test_the_same_seed_is_the_same_network() -> None:
    import torch

    models = [task_nets.build(3).model.SerializeToString() for _ in range(2)]
    assert models[0] == models[1]

    first, again = onnx_nets.build(5), onnx_nets.build(5)
    assert first.SerializeToString() == again.SerializeToString()
    x = torch.ones(1, 3, 24, 24)
    assert torch.equal(*(torch_nets.build(4)(x) for _ in range(2)))
    assert np.array_equal(pictures(6, 16, 1)[0], pictures(6, 16, 1)[0])


def test_the_judge_sees_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(8, 6)).astype(np.float32)
    assert compared(wanted, wanted)[1] == 1
    db, same = compared(wanted, np.roll(wanted, 1, 1))
    assert db < 5
    assert same < 7 / 8
    assert compared(wanted + 100, wanted + 100.1)[0] < 30, "what all pictures share is no signal"
    assert compared(wanted, wanted[:, :5]) == (-np.inf, 0.0)
    boxes = wanted.reshape(8, 3, 2)
    assert compared(boxes, boxes.transpose(0, 2, 1)) == (-np.inf, 0.0), "another order of axes"
    assert normalised("net7.onnx: needs one output, has 2: 'n21'") == normalised(
        "net9.onnx: needs one output, has 3: 'n4'"
    )
