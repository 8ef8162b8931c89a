"""A small residual network as real ONNX graphs, for every engine that reads ONNX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.target import Grid

LAYERS = 4  # three convolutions and one dense layer
SHAPE = (1, 3, 16, 16)
ROOT = Path(__file__).parent.parent.parent


class Net(nn.Module):
    """conv-bn-relu, a residual block, global pooling, dense to 10; weights from a fixed seed."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 10)
        self.stem[1].running_mean.uniform_(-0.5, 0.5)
        self.stem[1].running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ByHand(nn.Module):
    """logits = [m, 10 - m] where m is the mean of relu(2 x - 1): checkable on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 1), nn.Linear(1, 2)
        for parameter, value in (
            (self.conv.weight, [[[[2.0]]]]),
            (self.conv.bias, [-1.0]),
            (self.head.weight, [[1.0], [-1.0]]),
            (self.head.bias, [0.0, 10.0]),
        ):
            parameter.data = torch.tensor(value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


# relu(2x - 1) of these is 0 0 / 1 3, whose mean is 1
BY_HAND_INPUT = np.array([[[[0.0, 0.5], [1.0, 2.0]]]], np.float32)
BY_HAND_LOGITS = [[1.0, 9.0]]


def images(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *SHAPE[1:])).astype(np.float32)


def float_graph(out: Path, width: int = 16) -> Graph:
    return export_onnx(Net(width), torch.zeros(SHAPE), out)


def int8_graph(graph: Graph, out: Path, grid: Grid | None = None) -> Graph:
    return quantize_onnx(graph, images(32), grid or Grid(), out)


def mixed_graph(graph: Graph, out: Path, left_float: str) -> Path:
    """The graph in int8 but for one node, by ONNX Runtime's own quantizer."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images(4))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"input": image[None]}

    out.mkdir(parents=True, exist_ok=True)
    quantization.quantize_static(
        str(graph.path),
        str(out / "mixed.onnx"),
        Reader(),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        nodes_to_exclude=[left_float],
    )
    return out / "mixed.onnx"


def by_hand(out: Path) -> Graph:
    return export_onnx(ByHand(), torch.zeros(1, 1, 2, 2), out)


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def imports_without_torch(engine: str) -> None:
    python(
        "import sys\n"
        "for name in ('torch', 'onnx', 'pydantic', 'yaml'): sys.modules[name] = None\n"
        f"import edgecv.backends.{engine}.run as run\n"
        f"assert {engine!r} not in sys.modules, 'the engine is imported before it is used'\n"
        "run.probe()"
    )
