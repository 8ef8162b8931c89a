"""Where OpenVINO's one kernel for two operators errs, they are parted, and stay integers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
ov = pytest.importorskip("openvino")
from torch import nn  # noqa: E402

from edgecv.backends.onnxruntime.run import Session as Reference  # noqa: E402
from edgecv.backends.openvino.compile import compile  # noqa: E402
from edgecv.backends.openvino.run import Session  # noqa: E402
from edgecv.diagnosis.parity.openvino_network import OpenVinoForm  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.graphs.openvino.files import FILES  # noqa: E402
from edgecv.graphs.openvino.layers import BETWEEN  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.runtime.fidelity import Energy  # noqa: E402
from edgecv.target import Grid, Target, saturates  # noqa: E402
from tests.backends import onnx_graphs as graphs  # noqa: E402

TARGET = Target(name="t", backend="openvino", graph="onnx")


def chain(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    start = nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*start, *layers).eval()


class Excited(nn.Module):
    """Squeeze and excite: two dense layers weigh the channels of a map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.less, self.more = nn.Linear(16, 4, bias=False), nn.Linear(4, 16)
        self.head = nn.Conv2d(16, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        weight = self.more(self.less(x.mean((2, 3))).relu()).sigmoid()
        return self.head(x * weight[:, :, None, None]).mean((2, 3))


class Extreme(nn.Module):
    """The largest and the smallest of a map of floats (softsign has no integer kernel)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.softsign(self.stem(x) + 1)
        return self.head(x.amax((2, 3)) + x.amin(3).amin(2))


class Summed(nn.Module):
    """log Σ exp, which OpenVINO writes with nodes that it names itself, one of them a maximum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.less, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.less(torch.logsumexp(self.stem(x), (2, 3))))


# A network and its layers in integers.
NETS = {
    "first without bias": (chain(nn.Linear(16, 24, bias=False), nn.ReLU(), nn.Linear(24, 10)), 3),
    "last without bias": (chain(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 9, bias=False)), 3),
    "none with bias": (
        chain(
            nn.Linear(16, 13, bias=False), nn.LeakyReLU(), nn.Linear(13, 30, bias=False),
            nn.ReLU(), nn.Linear(30, 10, bias=False),
        ), 4,
    ),
    "squeeze and excite": (Excited().eval(), 4),
    "largest and smallest": (Extreme().eval(), 2),
    "a logarithm of a sum": (Summed().eval(), 3),
}  # fmt: skip


def int8(net: nn.Module, out: Path) -> Graph:
    floats = export_onnx(net, torch.zeros(graphs.SHAPE), out / "float")
    return graphs.int8_graph(floats, out, Grid(reduce_range=saturates()))


@pytest.mark.parametrize("name", NETS)
def test_it_answers_as_the_same_integers_do(name: str, tmp_path: Path) -> None:
    net, layers = NETS[name]
    graph = int8(net, tmp_path)
    compile(graph, TARGET, tmp_path / "ir")
    session = Session({f: (tmp_path / "ir" / f).read_bytes() for f in FILES})
    assert session.executed() == {"int8": layers}  # of a chain in one kernel one is seen, or none
    reference = Reference({"m": graph.path.read_bytes()})
    found = Energy()
    for x in graphs.images(32):
        feeds = {"input": x[None]}
        found.add(reference.run(feeds)["logits"], session.run(feeds)["logits"])
    assert found.sqnr_db > 25


def test_each_layer_but_the_first_is_parted_from_the_one_before(tmp_path: Path) -> None:
    compile(int8(NETS["none with bias"][0], tmp_path), TARGET, tmp_path / "ir")
    model = ov.Core().read_model(tmp_path / "ir" / FILES[0])
    assert [op.get_type_name() for op in model.get_ordered_ops()].count(BETWEEN) == 2


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    graph = int8(NETS["a logarithm of a sum"][0], tmp_path)
    found = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        compile(graph, TARGET, folder)
        found.append((folder / FILES[0]).read_bytes())
    assert BETWEEN.encode() in found[0]
    assert found[0] == found[1]


def test_nothing_is_parted_in_float_or_where_one_layer_stands_alone(tmp_path: Path) -> None:
    for graph in (
        export_onnx(NETS["none with bias"][0], torch.zeros(graphs.SHAPE), tmp_path / "float"),
        int8(chain(nn.Linear(16, 10)), tmp_path),
    ):
        compile(graph, TARGET, tmp_path / "ir")
        assert BETWEEN.encode() not in (tmp_path / "ir" / FILES[0]).read_bytes()


def test_the_layers_are_seen_as_before(tmp_path: Path) -> None:
    graph = int8(NETS["none with bias"][0], tmp_path)
    compile(graph, TARGET, tmp_path / "ir")
    form = OpenVinoForm({f: (tmp_path / "ir" / f).read_bytes() for f in FILES}, "t")
    dense = [layer for layer in form.layers if layer.kind == "dense"]
    assert len(dense) == 3
    assert all(form.constants(layer)["weight"].ndim == 2 for layer in dense)
    known = {layer.tensor for layer in form.layers}
    assert all(set(layer.inputs) <= known for layer in dense)
    assert BETWEEN.lower() not in {layer.kind for layer in form.layers}
