"""Networks that take more than an image, and answer more than a row: from file to bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv.backends.c.run import probe
from edgecv.benchmark.measure import Plan, measure
from edgecv.runtime import open_bundle

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image (1, 3, 16, 16) and four numbers in; a map, a row and a number out."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *shape: int) -> object:
        values = RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["map"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Concat", ["f", "more"], ["j"], axis=1),
        helper.make_node("Gemm", ["j", "w3"], ["row"], transB=1),
        helper.make_node("ReduceSum", ["row"], ["number"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes, "two",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16]),
         helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
         for n, s in (("map", [1, 2, 16, 16]), ("row", [1, 6]), ("number", []))],
        [weight("w1", 8, 3, 3, 3), weight("w2", 2, 8, 1, 1), weight("w3", 6, 12)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("several") / "two.onnx"
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def arrays(network: Path) -> Path:
    path = network.with_name("samples.npz")
    coarse = RNG.integers(0, 256, (60, 5, 5, 3), dtype=np.uint8)
    pixels = coarse.repeat(4, 1).repeat(4, 2)
    np.savez(path, anything=pixels, more=RNG.normal(size=(60, 4)).astype(np.float32))
    return path


def answers(network: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


TARGETS = ["cpu", pytest.param("c", marks=pytest.mark.skipif(not probe().available,
                                                             reason="no C compiler"))]  # fmt: skip


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")  # the C is ours


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("precision", "least"), [("fp32", 60.0), ("int8", 15.0)])
def test_from_file_to_bundle(
    network: Path, arrays: Path, precision: str, least: float, target: str, edgecv: Callable,
    tmp_path: Path,
) -> None:  # fmt: skip
    given = ("--calibration", arrays) if precision == "int8" else ()
    done = edgecv(
        "export", network, "--target", target, "--precision", precision, "--out", tmp_path,
        "--json", *given,
    )  # fmt: skip
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("*.edgecv")
    bundle = open_bundle(path)
    assert {s.name: s.shape for s in bundle.inputs} == {"image": (1, 3, 16, 16), "more": (1, 4)}
    assert {s.name for s in bundle.outputs} == {"map", "row", "number"}
    held = np.load(arrays)
    rows: dict[str, list] = {}
    for i in range(8):
        image = held["anything"][i : i + 1].transpose(0, 3, 1, 2)[:, :, 2:18, 2:18]
        feed = {"image": (image / 255).astype(np.float32), "more": held["more"][i : i + 1]}
        want, got = answers(network, feed), bundle.run(feed)
        for name in want:
            rows.setdefault(name, []).append((want[name].ravel(), got[name].ravel()))
            assert got[name].shape == want[name].shape
    for pairs in rows.values():
        a, b = (np.stack(side).astype(np.float64) for side in zip(*pairs, strict=True))
        noise = max(((a - b) ** 2).sum(), 1e-30)
        assert 10 * np.log10(((a - a.mean(0)) ** 2).sum() / noise) > least
    assert set(json.loads(done.out)["parity"]["float"]["outputs"]) == {"map", "row", "number"}
    assert edgecv("verify", path).code == 0
    if target == "c" and precision == "int8":  # whose layers cannot be looked into
        done = edgecv("parity", path, "--against", network)
        assert done.code == 0, done.err
    bundle.close()


def test_images_alone_do_not_calibrate_it(network: Path, edgecv: Callable, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    done = edgecv(
        "export", network, "--target", "cpu", "--calibration", tmp_path, "--out", tmp_path / "o"
    )
    assert done.code == 2
    assert "'more' (1, 4)" in done.err
    assert not (tmp_path / "o").exists()


def test_an_image_alone_is_not_enough(network: Path, edgecv: Callable, tmp_path: Path) -> None:
    from edgecv.errors import DataError

    assert edgecv("export", network, "--target", "cpu", "--out", tmp_path).code == 0
    (path,) = tmp_path.glob("*.edgecv")
    with pytest.raises(DataError, match="'more'"):
        open_bundle(path)(np.zeros((20, 20, 3), np.uint8))


NETS = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.more, self.head = nn.Linear(4, 8), nn.Linear(16, 5)

    def forward(self, more, image):
        found = self.image(image)
        both = torch.cat([found.mean((2, 3)), self.more(more)], 1)
        return {"row": self.head(both), "map": found}

def make():
    torch.manual_seed(0)
    return Two()
"""


@pytest.mark.parametrize("target", TARGETS)
def test_a_torch_network_of_several_inputs(target: str, edgecv: Callable, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "nets_of_two.py").write_text(NETS)
    network = ("export", "nets_of_two:make", "--target", target, "--out", tmp_path / "out")
    done = edgecv(*network, cwd=tmp_path)
    assert done.code == 2
    assert "--input image:" in done.err
    shapes = ("--input", "image:1x3x16x16", "--input", "more:1x4")
    done = edgecv(*network, *shapes, cwd=tmp_path)
    assert done.code == 0, done.err
    (path,) = (tmp_path / "out").glob("*.edgecv")
    bundle = open_bundle(path)
    space: dict = {}
    exec(NETS, space)
    feed = {s.name: RNG.normal(size=s.shape).astype(np.float32) for s in bundle.inputs}
    given = [torch.from_numpy(feed[n]) for n in ("more", "image")]
    with torch.no_grad():
        want = space["make"]().eval()(*given)
    got = bundle.run(feed)
    for name in want:
        np.testing.assert_allclose(got[name], want[name].numpy(), atol=1e-5)


def test_every_output_is_told_beside_the_table_of_several_targets(
    edgecv: Callable, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("openvino")
    (tmp_path / "nets_told.py").write_text(NETS)
    done = edgecv(
        "export", "nets_told:make", "--input", "image:1x3x16x16", "--input", "more:1x4",
        "--target", "cpu,openvino", "--out", tmp_path / "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    for target in ("cpu", "openvino"):
        (line,) = [s for s in done.out.splitlines() if s.startswith(f"{target}: against float")]
        assert "row " in line
        assert "map " in line


@pytest.mark.parametrize("target", TARGETS)
def test_a_batch_of_a_torch_network(target: str, edgecv: Callable, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = edgecv(
        "export", "resnet8", "--batch", "3", "--input-size", "32", "--target", target,
        "--out", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("*.edgecv")
    bundle = open_bundle(path)
    x = RNG.normal(size=(3, 3, 32, 32)).astype(np.float32)
    (answer,) = bundle.run({bundle.inputs[0].name: x}).values()
    (turned,) = bundle.run({bundle.inputs[0].name: x[::-1].copy()}).values()
    np.testing.assert_allclose(answer, turned[::-1], rtol=1e-4, atol=1e-5)
    done = edgecv("export", "resnet8", "--input-size", "32", "--target", target, "--out",
                  tmp_path / "one")  # fmt: skip
    both = [path, *(tmp_path / "one").glob("*.edgecv")]
    told = measure(both, Plan(rounds=3, precision=1e6, burst_ms=1.0), starts=False)
    for row, images in zip(told["bundles"], (3, 1), strict=True):
        assert row["throughput"] == pytest.approx(1000 * images / row["latency_ms"]["p50"])
    assert any("3" in w and "of calls" in w for w in told["warnings"])
