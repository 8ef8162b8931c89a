"""Bundles of one residual network that are slow for one known reason each, and healthy ones.

    misaligned      20, 40 and 80 channels, where kernels work in blocks of 16
    s8s8            int8 with signed activations, on x86
    excluded        int8 with its first layer, 7x7 as ImageNet networks have it, kept in float
    subnormal       fp32 with 2% of the convolutions' weights at 1e-40
    transpose       fp32 with its first stage between two transpositions of height and width

Made with edgecv's own export, quantizer and compiler; what is wrong is put in between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.backends import compile_module, run_module
from edgecv.graph import Graph
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize.onnx_qdq import quantize_onnx
from edgecv.models import zoo
from edgecv.runtime.archive import write_bundle
from edgecv.runtime.preprocess import Preprocess
from edgecv.samples import adapted
from edgecv.target import Grid, load

SIZE, WIDTH, CLASSES = 64, 16, 10
SUBNORMAL = 1e-40
CAUSES = {
    "misaligned": "misaligned",
    "s8s8": "s8s8",
    "excluded": "left-in-float",
    "subnormal": "subnormal-weights",
    "transpose": "transpose",
}
HEALTHY = ("healthy-fp32", "healthy-int8", "healthy-deep-int8")


class Deep(nn.Module):
    """A residual network behind a 7x7 stem of stride 2 (the first layer of ResNet-18)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3), nn.ReLU())
        self.rest = zoo.build("resnet8", width=width, classes=CLASSES, channels=64)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class Maker:
    """Makes bundles by name in a folder, for one engine's target.

    size: input pixels; target: a profile whose engine reads ONNX
    """

    def __init__(self, room: Path, target: str = "cpu", size: int = SIZE) -> None:
        self.room, self.target, self.size = room, load(target), size
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (16, size, size, 3), dtype=np.uint8)
        self.preprocess = Preprocess((size, size), 3, (127.0,), (64.0,))

    def __call__(self, name: str) -> Path:
        """The bundle of that name: one of CAUSES or HEALTHY."""
        path = self.room / f"{name}.{self.target.name}.edgecv"
        makers: dict[str, Callable[[], Graph]] = {
            "healthy-fp32": self.floats,
            "healthy-int8": lambda: self.int8(self.floats(), self.target.grid),
            "healthy-deep-int8": lambda: self.int8(self.floats(deep=True), self.target.grid),
            "misaligned": lambda: self.floats(width=WIDTH + 4),
            "s8s8": lambda: self.int8(
                self.floats(), self.target.grid.model_copy(update={"activations": "int8"})
            ),
            "excluded": self._excluded,
            "subnormal": self._subnormal,
            "transpose": self._turned,
        }
        return path if path.exists() else self.bundle(makers[name](), path)

    def floats(self, width: int = WIDTH, deep: bool = False) -> Graph:
        """The float graph, exported from PyTorch."""
        torch.manual_seed(0)
        network = Deep(width) if deep else zoo.build("resnet8", width=width, classes=CLASSES)
        example = torch.zeros(1, 3, self.size, self.size)
        return export_onnx(network.eval(), example, self.room / f"float-{width}-{deep}")

    def int8(self, graph: Graph, grid: Grid) -> Graph:
        """The same on a grid, by edgecv's quantizer."""
        out = self.room / f"int8-{grid.activations}-{graph.path.parent.name}"
        return quantize_onnx(graph, self.preprocess.normalise(self.pixels), grid, out)

    def bundle(self, graph: Graph, path: Path) -> Path:
        """Compile a graph and pack it with two golden inputs."""
        out = self.room / f"{path.stem}-engine"
        compiled = compile_module(self.target.backend).compile(graph, self.target, out)
        files = {name: (out / name).read_bytes() for name in compiled.files}
        session = run_module(self.target.backend).Session(files)
        (source,) = session.inputs
        preprocess = adapted(self.preprocess, source)
        golden = preprocess.normalise(self.pixels[:1])
        manifest = {
            "name": path.stem, "task": "classification", "target": self.target.name,
            "engine": self.target.backend, "precision": graph.precision,
            "input": {"name": source.name, "preprocess": preprocess.to_json()},
            "inputs": [t.to_json() for t in session.inputs],
            "outputs": [t.to_json() for t in session.outputs],
            "executed": session.executed(), "grid": graph.facts.get("grid"),
        }  # fmt: skip
        answer = session.run({source.name: golden})
        session.close()
        return write_bundle(path, manifest, files, {source.name: golden}, answer)

    def _excluded(self) -> Graph:
        from onnxruntime import quantization

        source = self.floats(deep=True)
        images = iter(self.preprocess.normalise(self.pixels))

        class Reader(quantization.CalibrationDataReader):
            def get_next(self) -> dict[str, np.ndarray] | None:
                image = next(images, None)
                return None if image is None else {"input": image[None]}

        out = self.room / "excluded"
        out.mkdir(exist_ok=True)
        first = next(n for n in _load(source.path).graph.node if n.op_type == "Conv")
        quantization.quantize_static(
            str(source.path), str(out / "model.onnx"), Reader(), per_channel=True,
            activation_type=quantization.QuantType.QUInt8, nodes_to_exclude=[first.name],
            reduce_range=bool(self.target.grid.reduce_range),
        )  # fmt: skip
        facts = {"grid": self.target.grid.model_dump(mode="json")}
        return Graph(out / "model.onnx", "onnx", "int8", source.inputs, source.outputs, facts)

    def _subnormal(self) -> Graph:
        from onnx import numpy_helper

        source = self.floats()
        model, rng = _load(source.path), np.random.default_rng(0)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim == 4:
                values = np.where(rng.random(values.shape) < 0.02, np.float32(SUBNORMAL), values)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return self._saved(model, "subnormal", source)

    def _turned(self) -> Graph:
        from onnx import helper

        source = self.floats()
        model = _load(source.path)
        nodes = model.graph.node
        relus = [i for i, n in enumerate(nodes) if n.op_type == "Relu"]
        for place in (relus[2], relus[0]):  # behind the first stage, and behind the stem
            made = nodes[place].output[0]
            nodes[place].output[0] = f"{made}_upright"
            new = helper.make_node(
                "Transpose", [f"{made}_upright"], [made], name=f"/T{place}", perm=[0, 1, 3, 2]
            )
            nodes.insert(place + 1, new)
        return self._saved(model, "turned", source)

    def _saved(self, model: Any, name: str, source: Graph) -> Graph:
        import onnx

        out = self.room / name
        out.mkdir(exist_ok=True)
        onnx.save(model, str(out / "model.onnx"))
        return Graph(out / "model.onnx", "onnx", source.precision, source.inputs, source.outputs)


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))
