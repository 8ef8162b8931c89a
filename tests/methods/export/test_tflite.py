"""PyTorch -> .tflite: what is in the file, what is repaired, what is refused and how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.backends.tflite.run import Session, plain
from edgecv.errors import ModelError, UnsupportedError
from edgecv.graph import Graph
from edgecv.methods.export._nhwc import keep_channels_last, suspects
from edgecv.methods.export.tflite import export_tflite
from tests.backends.tflite_graphs import Residual, float_graph, net

IMAGE = torch.zeros(1, 3, 24, 24)


class Forward(nn.Module):
    """A convolution, then whatever the test says."""

    def __init__(self, then) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 24 * 24, 5)
        self.then = then

    def forward(self, x):
        return self.then(self, self.conv(x))


def test_the_file_holds_the_network_and_no_transpose():
    graph = float_graph()
    assert graph.facts["ops"] == {
        "ADD": 1,
        "CONV_2D": 4,
        "DEPTHWISE_CONV_2D": 1,
        "FULLY_CONNECTED": 1,
        "MEAN": 1,
        "PAD": 1,
    }
    assert (graph.format, graph.precision) == ("tflite", "fp32")
    assert [t.name for t in (*graph.inputs, *graph.outputs)] == ["input", "logits"]
    assert set(graph.facts["versions"]) == {"torch", "litert-torch", "litert-converter"}
    assert Graph.load(graph.path.parent) == graph


def test_another_process_writes_the_same_bytes(tmp_path: Path):
    code = """
import sys, torch
from pathlib import Path
from edgecv.methods.export.tflite import export_tflite
from tests.backends.tflite_graphs import net
export_tflite(net(), torch.ones(1, 3, 24, 24), Path(sys.argv[1]))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "model.tflite").read_bytes() == float_graph().path.read_bytes()


def test_a_flattened_image_becomes_a_convolution(tmp_path: Path):
    module = Forward(lambda self, x: self.head(torch.relu(x.flatten(1)))).eval()
    graph = export_tflite(module, IMAGE, tmp_path)
    assert "TRANSPOSE" not in graph.facts["ops"]
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    net = Session({"m": graph.path.read_bytes()})
    got = net.run({"input": image.permute(0, 2, 3, 1).contiguous().numpy()})["logits"]
    np.testing.assert_allclose(got, module(image).detach().numpy(), atol=1e-5)


def test_a_layout_transpose_that_is_left_is_told_with_its_line(tmp_path: Path):
    """And two outputs keep their order, a map channels last."""

    class Positions(Forward):
        def forward(self, x):
            x = self.conv(x)
            return (x.flatten(2) * torch.arange(576.0)).flatten(1), x.relu()

    module = Positions(None).eval()
    graph = export_tflite(module, IMAGE, tmp_path / "out")
    cause = "flatten of a (1, 4, 24, 24) tensor"
    assert f"left by {cause}" in graph.facts["transposes"]
    assert "in `return (x.flatten(2) * torch.arange(576.0))" in graph.facts["transposes"]
    assert "slower, never wrong" in graph.facts["notes"][0]
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    net = Session({"m": graph.path.read_bytes()})
    assert [(o.name, o.layout) for o in graph.outputs] == [("output_0", "NC"), ("output_1", "NHWC")]
    got = net.run({"input": image.permute(0, 2, 3, 1).contiguous().numpy()})
    first, second = (y.detach() for y in module(image))
    np.testing.assert_allclose(got["output_0"], first.numpy(), atol=1e-3)
    np.testing.assert_allclose(got["output_1"], second.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_an_operator_without_a_conversion_is_named_in_one_line(tmp_path: Path):
    module = Forward(lambda _, x: torch.linalg.eigvals(x).real)
    with pytest.raises(UnsupportedError, match=r"cannot convert aten\.linalg_eig") as refused:
        export_tflite(module, IMAGE, tmp_path)
    assert "in `return self.then(self, self.conv(x))`" in refused.value.what
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("then", "error", "what"),
    [
        (lambda _, x: {"map": x, "seen": {1}}, ModelError, "returns a set in 'seen'"),
        (lambda _, x: x.double(), ModelError, "answers in float64"),
        (lambda self, x: self.head(x), ModelError, r"fails on an input of \(1, 3, 24, 24\)"),
        (lambda _, x: x if x.sum() > 0 else -x, ModelError, r"reads the values of an image, at \w"),
    ],
    ids=["set", "double", "shape", "control flow"],
)
def test_networks_that_cannot_be_exported(then, error, what, tmp_path: Path):
    with pytest.raises(error, match=what):
        export_tflite(Forward(then), IMAGE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nearest_pixels_are_those_that_torch_picks(tmp_path: Path):
    """Made smaller, and larger by no whole number, floor(i * in / out) is not the pixel whose
    centre is nearest."""

    def several(_, x):
        sizes = [(12, 12), (7, 31), (48, 24)]
        return tuple(nn.functional.interpolate(x, size) for size in sizes)

    module, image = Forward(several).eval(), torch.randn(1, 3, 24, 24)
    graph = export_tflite(module, image, tmp_path)
    assert graph.facts["ops"]["RESIZE_NEAREST_NEIGHBOR"] == 3
    session = plain({"model.tflite": graph.path.read_bytes()})
    found = session.run({"input": image.numpy().transpose(0, 2, 3, 1).copy()})
    with torch.no_grad():
        for i, want in enumerate(module(image)):
            got = found[f"output_{i}"].transpose(0, 3, 1, 2)
            np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 1, 3, 24, 24)])
def test_the_example_is_one_image(shape, tmp_path: Path):
    with pytest.raises(ModelError, match="example"):
        export_tflite(net(), torch.zeros(shape), tmp_path)


def test_the_module_is_left_in_the_mode_it_was_in(tmp_path: Path):
    module = Residual().train()
    module.stem[1].eval()
    before = [m.training for m in module.modules()]
    module.then = None
    with pytest.raises(ModelError):
        export_tflite(module, torch.zeros(1, 1, 24, 24), tmp_path)
    assert [m.training for m in module.modules()] == before


@pytest.mark.parametrize(
    "then",
    [
        lambda _, x: x.mean((2, 3)),
        lambda _, x: x.mean((-1, -2), keepdim=True),
        lambda _, x: x.amax((2, 3)),
        lambda _, x: nn.functional.max_pool2d(x.relu(), 3, 2, 1),
        lambda _, x: nn.functional.max_pool2d(x.relu(), (4, 3), 2, (2, 0)),
        lambda _, x: nn.functional.max_pool2d(x, 3, 2, 1),
        lambda _, x: x.mean(3),
        lambda _, x: x.mean((1, 2)),
        lambda self, x: self.head(x.flatten(1)),
        lambda self, x: self.head(torch.relu(x.reshape(1, -1))).relu(),
        lambda self, x: nn.functional.linear(x.mean((2, 3)).flatten(1), self.head.weight[:, :4]),
        lambda _, x: nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
        lambda _, x: nn.functional.adaptive_max_pool2d(x, (5, 8)),
        lambda _, x: nn.functional.celu(x, 0.5),
    ],
    ids=[
        "mean",
        "keepdim",
        "max",
        "padded",
        "uneven",
        "plain",
        "rows",
        "channels",
        "flatten",
        "reshape",
        "mean-linear",
        "global-max",
        "uneven-max",
        "celu",
    ],
)
def test_rewrites_keep_the_value(then):
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    module = Forward(then).eval()
    program = torch.export.export(module, (image,)).module()
    keep_channels_last(program, image)
    torch.testing.assert_close(program(image), module(image), atol=1e-5, rtol=1e-5)


def test_a_padded_max_pool_after_relu_pads_with_zero():
    image = torch.zeros(1, 3, 24, 24)
    module = Forward(lambda _, x: nn.functional.max_pool2d(x.relu(), 3, 2, 1)).eval()
    program = torch.export.export(module, (image,)).module()
    keep_channels_last(program, image)
    (pool,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.max_pool2d.default)
    assert pool.args[3] == [0, 0]
    assert pool.args[0].target is torch.ops.aten.pad.default


def test_only_what_reads_the_layout_is_suspect():
    image = torch.zeros(1, 3, 24, 24)

    def after(then):
        program = torch.export.export(Forward(then).eval(), (image,)).module()
        keep_channels_last(program, image)
        return suspects(program)

    assert after(lambda _, x: x.mean((2, 3))) == []
    assert after(lambda self, x: self.head(x.flatten(1))) == []
    gate = after(lambda _, x: x * x.mean((2, 3)).view(1, 4, 1, 1))
    assert gate[0].startswith("view to a (1, 4, 1, 1) tensor")
    assert "permute of a (1, 4, 24, 24)" in after(lambda _, x: x.permute(0, 3, 1, 2).exp())[0]
