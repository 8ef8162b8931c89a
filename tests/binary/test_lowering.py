"""An exported network with one-bit layers, lowered: the kernels run, and answers are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from torch import nn  # noqa: E402

from edgecv.binary.float_fallback import plain  # noqa: E402
from edgecv.binary.lowering import lower  # noqa: E402
from edgecv.methods.binary.constants_for_export import frozen  # noqa: E402
from edgecv.methods.binary.modules import OneBit, RPReLU  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.stages.binarize import Binarize  # noqa: E402
from tests import networks as nets  # noqa: E402
from tests.methods.qat.nets import settled  # noqa: E402


def bit(c_in: int, c_out: int, k: int = 3, stride: int = 1, **options) -> OneBit:
    conv = nn.Conv2d(c_in, c_out, k, stride, k // 2, bias=False)
    return OneBit(conv, nn.BatchNorm2d(c_out), **options)


def dense(c_in: int, c_out: int, **options) -> OneBit:
    return OneBit(nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out), **options)


def random_act(channels: int) -> RPReLU:
    act = RPReLU(channels)
    for part in act.parameters():
        part.data = torch.randn(channels) / 2
    return act


CHAINS = {
    "packed through": (
        ["Binarize", "BinaryBits", "BinaryBits", "BinaryConv"],
        lambda: [bit(3, 40, shortcut=False), bit(40, 70, shortcut=False), nn.ReLU(),
                 bit(70, 8, 1, 2, shortcut=False)],
    ),
    "shortcuts": (
        ["Binarize", "BinaryBoth", "BinaryConv", "Halve"],
        lambda: [bit(6, 6), RPReLU(6), bit(6, 12, stride=2)],
    ),
    "a shortcut from floats": (
        ["Binarize", "BinaryConv", "Halve"], lambda: [bit(6, 12, stride=2)],
    ),
    "long": (
        ["Binarize", "Binarize", "BinaryBoth", "BinaryBoth", "BinaryConv", "BinaryConv", "Halve"],
        lambda: [bit(70, 70), random_act(70), bit(70, 70), nn.ReLU(), bit(70, 140, stride=2),
                 random_act(140), nn.MaxPool2d(2, 1), nn.MaxPool2d(1), bit(140, 140)],
    ),
    "ternary": (
        ["Binarize", "BinaryBits", "BinaryConv"],
        lambda: [bit(5, 9, weights="ternary", shortcut=False), bit(9, 18, weights="ternary",
                                                                   shortcut=False)],
    ),
    "dense": (
        ["Binarize", "BinaryBits", "BinaryConv"],
        lambda: [nn.Flatten(), dense(4 * 63, 50), dense(50, 70, weights="ternary"), nn.ReLU()],
    ),
    "dense with slopes": (
        ["Binarize", "BinaryBoth", "BinaryConv"],
        lambda: [nn.Flatten(), dense(4 * 63, 50), random_act(50), dense(50, 9)],
    ),
    "a pool between": (
        ["Binarize", "Binarize", "BinaryConv", "BinaryConv"],
        lambda: [bit(4, 8, shortcut=False), nn.MaxPool2d(2), bit(8, 8, shortcut=False)],
    ),
}  # fmt: skip


def lowered(module: nn.Module, shape: tuple[int, ...], out: Path) -> onnx.ModelProto:
    graph = export_onnx(frozen(module), torch.zeros(1, *shape), out)
    return onnx.load(str(graph.path))


def run(model: onnx.ModelProto, kernels: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(kernels))
    net = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.concatenate([net.run(None, {net.get_inputs()[0].name: one[None]})[0] for one in x])


class Whole(nn.Module):
    """Layers, and the mean of what comes out."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).flatten(1)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_equal_bit_for_bit(name: str, kernels: Path, tmp_path: Path) -> None:
    wanted_ops, make = CHAINS[name]
    torch.manual_seed(0)
    module = settled(Whole(make()))
    for part in module.modules():
        if isinstance(part, OneBit) and part.shift is not None:
            part.shift.data = torch.randn(len(part.shift)) / 3
    c = next(m for m in module.modules() if isinstance(m, OneBit)).weight.shape[1]
    c = 4 if "dense" in name else c
    model = lowered(module, (c, 9, 7), tmp_path)
    layers = sum(isinstance(m, OneBit) for m in module.modules())
    assert len(lower(model)) == layers
    onnx.checker.check_model(model)
    own = sorted(n.op_type for n in model.graph.node if n.domain == "edgecv")
    assert own == sorted(wanted_ops)
    assert "Where" not in {n.op_type for n in model.graph.node}
    x = np.random.default_rng(1).normal(size=(6, c, 9, 7)).astype(np.float32)
    with torch.no_grad():
        wanted = torch.cat([module(torch.from_numpy(one[None])) for one in x]).numpy()
    rounded = 0.0
    got = run(model, kernels, x)
    np.testing.assert_allclose(got, wanted, rounded, rounded)
    standard = onnx.load_model_from_string(plain(model.SerializeToString()))
    assert {n.domain for n in standard.graph.node} == {""}
    np.testing.assert_array_equal(run(standard, kernels, x), got)


def test_a_trained_network_answers_alike(kernels: Path, tmp_path: Path) -> None:
    module = nets.seeded(lambda: zoo.build("resnet8", width=8, classes=nets.CLASSES))
    context = nets.context(tmp_path / "model", where="b")
    from edgecv.models.model import Model

    Binarize(epochs=8, batch_size=8, flip=False, lr=0.01, teacher="none").run(
        (Model("none:here"), module), context
    )
    model = lowered(module.eval(), (3, nets.SIZE, nets.SIZE), tmp_path)
    assert len(lower(model)) == 6
    x = context.preprocess.normalise(nets.images(40, 1).pixels)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    got = run(model, kernels, x)
    assert np.mean(np.abs(got - wanted).max(1) < 1e-3) > 0.9, "float layers may flip a sign"
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.95


def test_a_float_network_stays_as_it_is(tmp_path: Path) -> None:
    module = nets.seeded(lambda: zoo.build("resnet8", width=8, classes=nets.CLASSES)).eval()
    model = lowered(module, (3, nets.SIZE, nets.SIZE), tmp_path)
    before = model.SerializeToString()
    assert lower(model) == []
    assert model.SerializeToString() == before


def test_why_reads_what_was_lowered(tmp_path: Path) -> None:
    from edgecv.diagnosis.why.onnx_view import OnnxView

    torch.manual_seed(0)
    module = settled(Whole([bit(6, 6), RPReLU(6), bit(6, 12, stride=2), nn.Conv2d(12, 5, 3)]))
    model = lowered(module, (6, 9, 7), tmp_path)
    lower(model)
    view = OnnxView("model.onnx", model.SerializeToString(), True)
    first, second = view.counted
    assert (first.channels, first.result, second.strides) == ((6, 6), (9, 7), (2, 2))
    assert second.macs == 5 * 4 * 12 * 6 * 9
    (behind,) = view.products
    assert behind.size == (5, 4), "sizes behind operators of edgecv are known"
