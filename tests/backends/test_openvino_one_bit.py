"""OpenVINO's BinaryConvolution: taken where it gives PyTorch's bits, refused everywhere else."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ov = pytest.importorskip("openvino")
from torch import nn  # noqa: E402

from edgecv.backends import Compiled  # noqa: E402
from edgecv.backends.openvino import one_bit  # noqa: E402
from edgecv.backends.openvino.compile import compile  # noqa: E402
from edgecv.backends.openvino.run import Session, precision  # noqa: E402
from edgecv.benchmark.machine import cpu_features  # noqa: E402
from edgecv.diagnosis.parity.openvino_network import OpenVinoForm  # noqa: E402
from edgecv.diagnosis.why.ir_view import IrView  # noqa: E402
from edgecv.errors import DataError  # noqa: E402
from edgecv.graphs.openvino.files import FILES  # noqa: E402
from edgecv.methods.binary.constants_for_export import frozen  # noqa: E402
from edgecv.methods.binary.modules import OneBit, RPReLU  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.target import Target  # noqa: E402

TARGET = Target(name="t", backend="openvino", graph="onnx")
pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="OpenVINO counts bits on x86 alone"
)


def layer(seed: int, channels: int = 32, filters: int = 48, **how) -> OneBit:
    torch.manual_seed(seed)
    conv = nn.Conv2d(channels, filters, how.pop("kernel", 3), **how)
    norm = nn.BatchNorm2d(filters)
    for value in (norm.weight.data, norm.bias.data, norm.running_mean):
        value.normal_()
    norm.running_var.uniform_(0.1, 2)
    made = OneBit(conv, norm)
    made.shift.data.normal_(std=0.3)
    return made.eval()


def run(module: nn.Module, x: torch.Tensor, folder: Path) -> tuple[Compiled, Session, np.ndarray]:
    net = nn.Sequential(module, nn.Flatten()).eval()
    made = compile(export_onnx(frozen(net), x, folder), TARGET, folder / "ir")
    session = Session({name: (folder / "ir" / name).read_bytes() for name in FILES})
    (got,) = session.run({session.inputs[0].name: x.numpy()}).values()
    return made, session, got


@pytest.mark.parametrize(
    "how",
    [
        {"padding": 1}, {"padding": 1, "channels": 64, "filters": 64}, {"kernel": 1},
        {"padding": 1, "stride": 2, "filters": 64}, {"kernel": 5, "padding": 2},
        {"padding": 2, "dilation": 2, "bias": False}, {"padding": (2, 0), "stride": (1, 2)},
        {"padding": 0, "channels": 16, "filters": 16},
    ],
    ids=str,
)  # fmt: skip
def test_it_gives_pytorch_s_bits(how: dict, tmp_path: Path, caplog) -> None:
    module = nn.Sequential(layer(1, **how), RPReLU(how.get("filters", 48))).eval()
    for value in module[1].parameters():
        value.data.normal_()  # a shift right behind a bias is not to be made one with it
    x = torch.randn(1, how.get("channels", 32), 9, 11)
    x[0, :, 0, :3] = module[0].shift[:, None].detach()  # at the border: +1
    x[0, :, 4:6, 4] = torch.nextafter(x[0, :, 0, :2], torch.tensor(-torch.inf))  # just below
    with torch.no_grad():
        wanted = module(x).flatten(1).numpy()
    made, session, got = run(module, x, tmp_path)
    if "stays float on OpenVINO" in caplog.text:  # other instructions, other refusals
        assert session.executed() == {"fp32": 1}
        pytest.skip(caplog.text)
    assert session.executed() == {"binary": 1}
    assert made.counted == 1
    np.testing.assert_array_equal(got, wanted)


def test_the_sign_of_zero_is_one(tmp_path: Path) -> None:
    module = layer(2, padding=1)
    module.shift.data.zero_()
    x = torch.randn(1, 32, 5, 7)
    x[0, :, 1] = torch.tensor([0.0, -0.0, 1e-45, -1e-45, -1e-40, -torch.inf, torch.inf])
    with torch.no_grad():
        wanted = module(x).flatten(1).numpy()
    _, session, got = run(module, x, tmp_path)
    np.testing.assert_array_equal(got, wanted)
    # NaN has another sign in each of OpenVINO's kernels: it is refused where it enters
    x[0, 3, 2, 2] = torch.nan
    (name,) = (t.name for t in session.inputs)
    if "binary" in session.executed():
        with pytest.raises(DataError, match="NaN, which has no sign"):
            session.run({name: x.numpy()})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"channels": 24}, "24 and 48 channels, no multiples of 16"),
        ({"filters": 40}, "32 and 40 channels"),
        ({"kernel": 7, "padding": 3}, "7x7 kernel"),
        ({"groups": 2}, ""),
    ],
    ids=str,
)
def test_what_it_would_get_wrong_stays_float(how: dict, said: str, tmp_path: Path, caplog) -> None:
    module = layer(3, **how)
    x = torch.randn(1, how.get("channels", 32), 9, 11)
    with torch.no_grad():
        wanted = module(x).flatten(1).numpy()
    made, session, got = run(module, x, tmp_path)
    assert (session.executed(), made.counted) == ({"fp32": 1}, 0)
    assert said in caplog.text
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_ternary_weights_stay_float(tmp_path: Path) -> None:
    conv = nn.Conv2d(32, 32, 3)
    made, session, _ = run(OneBit(conv, weights="ternary"), torch.randn(1, 32, 5, 5), tmp_path)
    assert (session.executed(), made.counted) == ({"fp32": 1}, 0)


def test_every_shape_is_tried_beside_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "dilations": [1, 1]}
    weight = np.ones((16, 17, 3, 3), np.float32)
    assert "no multiples" in one_bit._refusal((1, 17, 8, 8), weight, how)
    monkeypatch.setattr(one_bit, "BLOCK", 1)  # what OpenVINO itself does not refuse
    assert one_bit._refusal((1, 17, 8, 8), weight, how) != ""
    assert one_bit._refusal((1, 32, 8, 8), np.ones((16, 32, 3, 3), np.float32), how) == ""
    if any(f.startswith("avx512") for f in cpu_features()):
        return  # what follows is refused by the AVX2 kernels
    assert one_bit._refusal((1, 17, 8, 8), weight, how) == "comes out wrong"
    monkeypatch.setattr(one_bit, "LARGEST", 7)
    large = np.ones((16, 32, 7, 7), np.float32)
    assert "is refused" in one_bit._refusal(
        (1, 32, 8, 8), large, {**how, "pads_begin": [3, 3], "pads_end": [3, 3]}
    )


def test_profiles_and_why_name_the_layer(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layer(4, 32, 32, padding=1), layer(5, 32, 32, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)).mean((2, 3))

    x = torch.randn(1, 32, 9, 9)
    graph = export_onnx(frozen(Net().eval()), x, tmp_path)
    compile(graph, TARGET, tmp_path / "ir")
    files = {name: (tmp_path / "ir" / name).read_bytes() for name in FILES}
    session, view = Session(files), IrView(files)
    assert session.executed() == {"binary": 2}
    rows = session.profile({"input": x.numpy()}).layers
    assert [r.layer for r in rows if r.precision == "binary"] == ["first", "second"]
    assert [p.layer for p in view.counted] == ["first", "second"]
    assert {(p.kernel, p.channels, p.pads) for p in view.counted} == {
        ((3, 3), (32, 32), (1, 1, 1, 1))
    }
    form = OpenVinoForm(files, "the bundle")  # parity pairs them with convolutions
    convs = [x for x in form.layers if x.kind == "conv"]
    assert [x.path for x in convs] == [("first",), ("second",)]
    assert convs[1].inputs[0] in {x.tensor for x in form.layers}
    # a border just below 0 is a subnormal number, and no weight to be mended
    assert view.without_subnormals() is None


def test_a_kernel_that_only_refers_is_no_proof() -> None:
    class Text(str):
        def astype(self, kind: type) -> str:
            return kind(self)

    info = {"layerType": "BinaryConvolution", "runtimePrecision": "u1"}
    for kernel, ran in (("jit_avx2_u1", "binary"), ("ref_any_u1", "fp32")):
        told = {k: Text(v) for k, v in {**info, "primitiveType": kernel}.items()}
        assert precision(told) == ran
