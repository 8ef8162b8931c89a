"""Grad-CAM without gradients is Grad-CAM: against autograd, dense weights, the int8 tail itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecv import fidelity
from edgecv.backends.onnxruntime.run import Session
from edgecv.data.images import Images
from edgecv.errors import UnsupportedError
from edgecv.methods.export.onnx import export_onnx
from edgecv.report import saliency, surgery
from edgecv.report.folder import Run, load
from edgecv.report.saliency import OnnxCam, agreement, open_cam, upsampled
from edgecv.runtime.preprocess import Preprocess

SIZE = (20, 24)
PREPROCESS = Preprocess(SIZE, 3, (127.0,), (64.0,), crop_pct=1.0)
IMAGE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


class Residual(nn.Module):
    """A sum and a ReLU behind the last convolution, pooling, and a head that is not linear."""

    def __init__(self, reshape: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.reshape = reshape
        self.stem, self.conv = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 1, 1)
        self.hidden, self.head = nn.Linear(12, 16), nn.Linear(16, 5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return torch.relu(x + self.conv(x))

    def tail(self, feature: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(feature, 2).mean((2, 3))
        if self.reshape:
            pooled = pooled.reshape(1, 12)
        return self.head(torch.tanh(self.hidden(pooled)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.features(x))


def exported(module: nn.Module, folder: Path) -> Path:
    return export_onnx(module.eval(), torch.zeros(1, 3, *SIZE), folder).path


def by_autograd(net: Residual, target: int) -> tuple[np.ndarray, np.ndarray]:
    """(alpha, map) as the paper has them."""
    with torch.no_grad():
        feature = net.features(torch.from_numpy(PREPROCESS.normalise(IMAGE[None])))
    feature.requires_grad_(True)
    net.tail(feature)[0, target].backward()
    alpha = feature.grad.mean((0, 2, 3))
    cam = torch.relu((alpha[:, None, None] * feature[0]).sum(0))
    return alpha.detach().numpy(), cam.detach().numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("reshape", [False, True])
def test_central_differences_are_the_gradient(tmp_path: Path, reshape: bool) -> None:
    net = Residual(reshape)
    cam = OnnxCam(exported(net, tmp_path), PREPROCESS)
    assert (cam._batch == 1) == reshape, "a tail that mixes a batch's images goes one by one"
    for target in range(5):
        alpha, small = by_autograd(net, target)
        assert cosine(cam.alphas(cam.features(IMAGE), target), alpha) > 0.999
        assert cosine(cam.map(IMAGE, target), small) > 0.999


def test_the_feature_map_lies_behind_the_sum_and_before_the_pooling(tmp_path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(str(exported(Residual(), tmp_path))))
    name = surgery.feature_map(model)
    (maker,) = (n for n in model.graph.node if name in n.output)
    assert maker.op_type == "Relu"
    assert maker.input[0] in {o for n in model.graph.node if n.op_type == "Add" for o in n.output}


def test_logits_are_asked_also_where_the_graph_ends_in_a_softmax(tmp_path: Path) -> None:
    net = Residual()
    cam = OnnxCam(exported(nn.Sequential(net, nn.Softmax(1)), tmp_path), PREPROCESS)
    assert cosine(cam.alphas(cam.features(IMAGE), 2), by_autograd(net, 2)[0]) > 0.999


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_a_network_without_feature_maps_has_no_saliency(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no convolution"):
        OnnxCam(exported(Dense(), tmp_path), PREPROCESS)


# the graphs of the finished run, float and int8, ONNX and TFLite


@pytest.fixture(scope="module")
def graphs(finished) -> dict[str, Any]:
    run = Run(finished.out, load(finished.out))
    named = {n: run.graph(n) for n in
             ("dense.onnx", "dense.tflite", "small-int8@cpu", "small-int8@tflite")}  # fmt: skip
    images = Images.load(run.place("data:test"))
    from edgecv.runtime.archive import read_bundle

    bundle = run.bundle_file(run.nodes["bundle:dense@cpu"])
    return {**named, "images": images, "preprocess": read_bundle(bundle).preprocess}


def weights_of(path: Path) -> np.ndarray:
    """The last dense layer's weights as real numbers (classes, channels), from the graph's file."""
    model = onnx.load(str(path))
    (gemm,) = (n for n in model.graph.node if n.op_type == "Gemm")
    known = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    made_by = {o: n for n in model.graph.node for o in n.output}
    name = gemm.input[1]
    if name in known:
        return known[name]
    quantized, scale = (known[i] for i in made_by[name].input[:2])
    return quantized.astype(np.float64) * np.reshape(scale, (-1, 1))


@pytest.mark.parametrize("graph", ["dense.onnx", "small-int8@cpu"])
def test_behind_a_mean_and_a_dense_layer_alpha_is_its_weights(graphs, graph: str) -> None:
    cam = OnnxCam(graphs[graph], graphs["preprocess"])
    feature = cam.features(np.asarray(graphs["images"].pixels[0]))
    alive = feature.max((0, 2, 3)) > 0
    pixels = feature.shape[2] * feature.shape[3]
    for target in range(3):
        alpha = cam.alphas(feature, target) * pixels
        np.testing.assert_allclose(
            alpha[alive], weights_of(graphs[graph])[target][alive], atol=2e-3
        )


def test_the_tail_that_is_asked_is_the_int8_tail_but_for_its_rounding(graphs) -> None:
    cam = OnnxCam(graphs["small-int8@cpu"], graphs["preprocess"])
    model = onnx.shape_inference.infer_shapes(onnx.load(str(graphs["small-int8@cpu"])))
    tail = onnx.utils.Extractor(model).extract_model([cam._feature], [model.graph.output[0].name])
    rounding = Session({"tail.onnx": tail.SerializeToString()})
    soft, ships = [], []
    for image in graphs["images"].pixels[:16]:
        feature = cam.features(np.asarray(image))
        soft.append(cam._scores(feature)[0])
        (scores,) = rounding.run({cam._feature: feature}).values()
        ships.append(scores[0])
    assert fidelity.compare(np.array(ships), np.array(soft)).sqnr_db > 25


def test_onnx_and_tflite_of_one_network_look_alike(graphs) -> None:
    pytest.importorskip("ai_edge_litert")
    one, two = (open_cam(graphs[g], graphs["preprocess"]) for g in ("dense.onnx", "dense.tflite"))
    for image in graphs["images"].pixels[:4]:
        np.testing.assert_allclose(one.map(image, 1), two.map(image, 1), atol=1e-4)
    one, two = (
        open_cam(graphs[g], graphs["preprocess"]) for g in ("small-int8@cpu", "small-int8@tflite")
    )
    for image in graphs["images"].pixels[:4]:
        a, b = one.map(image, 1), two.map(image, 1)
        assert a.max() == b.max() == 0 or cosine(a, b) > 0.98


# maps


def test_upsampling_is_torchs_bilinear() -> None:
    small = np.random.default_rng(1).random((3, 5), np.float32)
    expected = nn.functional.interpolate(torch.from_numpy(small)[None, None], (20, 24),
                                         mode="bilinear")[0, 0].numpy()  # fmt: skip
    np.testing.assert_allclose(upsampled(small, (20, 24)), expected, atol=1e-6)
    assert upsampled(np.ones((1, 1), np.float32), (4, 6)).shape == (4, 6)


def test_agreement() -> None:
    ramp = np.arange(100.0).reshape(10, 10)
    assert agreement(ramp, 3 * ramp + 1) == pytest.approx((1.0, 1.0))
    assert agreement(ramp, -ramp) == pytest.approx((-1.0, 0.0))
    half = ramp.copy()
    half[8] = -1.0  # half of the strongest fifth is weak now
    assert agreement(ramp, half)[1] == pytest.approx(10 / 30)
    assert agreement(ramp, np.zeros((10, 10))) is None


def test_a_map_that_is_zero_everywhere_is_no_crash() -> None:
    assert saliency.weighted(np.ones((2, 3, 3)), np.array([-1.0, -1.0])).max() == 0.0
