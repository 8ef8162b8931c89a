"""export_onnx writes the network and nothing else; load_onnx lets in only what can be compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgecv.backends.onnxruntime.run import Session
from edgecv.errors import ModelError
from edgecv.graph import Graph
from edgecv.methods.export.ends import with_kinds
from edgecv.methods.export.onnx import export_onnx, load_onnx
from edgecv.runtime.fidelity import kinds

ROOT = Path(__file__).parents[3]


class Net(nn.Module):
    """conv-bn-relu-pool-dense with statistics that make the normalisation matter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 5)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(self.drop(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)))


class Scaled(nn.Module):
    """A second affine after the normalisation, and a branch in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = Net(), nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x if x.shape[1] == 3 else x.repeat(1, 3, 1, 1)) * self.scale


EXAMPLE = torch.zeros(1, 3, 12, 12)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 12, 12)).astype(np.float32)


def outputs(graph: Graph, batch: np.ndarray) -> np.ndarray:
    session = Session({"model.onnx": graph.path.read_bytes()})
    name, out = graph.inputs[0].name, graph.outputs[0].name
    return np.concatenate([session.run({name: x[None]})[out] for x in batch])


@pytest.mark.parametrize("make", [Net, Scaled])
def test_the_graph_computes_what_the_network_does(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    module = make()
    graph = export_onnx(module, EXAMPLE, tmp_path)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(images(4))).numpy()
    np.testing.assert_allclose(outputs(graph, images(4)), expected, atol=1e-5)


def test_the_graph_is_static_folded_and_described(tmp_path: Path) -> None:
    graph = export_onnx(Net(), EXAMPLE, tmp_path)
    assert graph == Graph.load(tmp_path)
    assert (graph.inputs[0].name, graph.inputs[0].shape) == ("input", (1, 3, 12, 12))
    assert (graph.outputs[0].name, graph.outputs[0].shape) == ("logits", (1, 5))
    assert "BatchNormalization" not in graph.facts["ops"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.json", "model.onnx"]


def test_another_hardswish_can_be_put_into_what_was_written(tmp_path: Path) -> None:
    """ONNX Runtime inlines HardSwish, and refuses the names that it gave if it gives them again."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish(), nn.Conv2d(4, 2, 1), nn.Hardswish())
    graph = export_onnx(module.eval(), torch.zeros(1, 3, 4, 4), tmp_path)
    model = onnx.load_model(str(graph.path))
    (last,) = model.graph.output
    model.graph.node.append(helper.make_node("HardSwish", [last.name], ["twice"], "twice"))
    last.name = "twice"
    x = images(1)[:, :, :4, :4]
    expected = nn.functional.hardswish(module(torch.from_numpy(x))).detach().numpy()
    np.testing.assert_allclose(outputs(load(model, tmp_path), x), expected, rtol=1e-4, atol=1e-6)


def test_the_bytes_are_the_same_in_another_process_and_name_no_place(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_onnx import *\n"
        "export_onnx(Net(), EXAMPLE, Path(sys.argv[1]))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT), *sys.path])
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other")],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
    )
    mine = export_onnx(Net(), EXAMPLE, tmp_path / "mine").path.read_bytes()
    assert mine == (tmp_path / "other" / "model.onnx").read_bytes()
    for place in (str(ROOT), str(tmp_path), "site-packages", ".py"):
        assert place.encode() not in mine


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    graph = export_onnx(Net(), EXAMPLE, tmp_path, opset)
    assert graph.facts["opset"] == opset
    assert onnx.load(str(graph.path)).opset_import[0].version == opset


def test_the_networks_own_modes_come_back(tmp_path: Path) -> None:
    module = Net().train()
    module.norm.eval()  # frozen on purpose
    export_onnx(module, EXAMPLE, tmp_path)
    assert (module.training, module.drop.training, module.norm.training) == (True, True, False)


class Pair(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x), x  # type: ignore[return-value]


def broken_weights() -> nn.Module:
    module = Net()
    module.head.weight.data[0, 0] = float("nan")
    return module


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Pair, "output 'output_1': is the input as it came in"),
        (broken_weights, "head.weight.*NaN"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 5)), "fails on an input"),
    ],
    ids=["image", "NaN", "wrong size"],
)
def test_networks_that_cannot_be_shipped_are_refused(
    make: Callable[[], nn.Module], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says):
        export_onnx(make(), EXAMPLE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- a user's own file ------------------------------------------------------------------------


def user_model(shape: tuple[int | str, ...] = (1, 3, 12, 12), norm: bool = True) -> onnx.ModelProto:
    """Conv → BatchNormalization → ReLU → pool → dense, as another tool would write it."""
    rng = np.random.default_rng(1)
    arrays = {
        "w": rng.normal(size=(4, 3, 3, 3)),
        "g": rng.uniform(0.5, 2, 4),
        "b": rng.normal(size=4),
        "m": rng.normal(size=4),
        "v": rng.uniform(0.5, 2, 4),
        "d": rng.normal(size=(4, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n" if norm else "c"], ["r"], doc_string="/home/me/net.py"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes if norm else [n for n in nodes if n.op_type != "BatchNormalization"],
        "user",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (shape[0], 5))],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def load(model: onnx.ModelProto, folder: Path) -> Graph:
    path = folder / "user.onnx"
    onnx.save(model, str(path))
    return load_onnx(path, folder / "out")


def test_a_users_file_keeps_its_function_and_its_names(tmp_path: Path) -> None:
    graph = load(user_model(), tmp_path)
    assert (graph.inputs[0].name, graph.outputs[0].name) == ("image", "scores")
    assert graph.outputs[0].shape == (1, 5)
    assert graph.precision == "fp32"
    original = Session({"m": (tmp_path / "user.onnx").read_bytes()})
    expected = np.concatenate([original.run({"image": x[None]})["scores"] for x in images(3)])
    np.testing.assert_allclose(outputs(graph, images(3)), expected, atol=1e-5)


def test_normalisation_is_folded_and_notes_are_dropped(tmp_path: Path) -> None:
    graph = load(user_model(), tmp_path)
    assert "BatchNormalization" not in graph.facts["ops"]
    assert b"/home/me" not in graph.path.read_bytes()
    assert [o.domain for o in onnx.load(str(graph.path)).opset_import] == [""]


def test_weights_that_are_listed_as_inputs_are_folded_too(tmp_path: Path) -> None:
    model = user_model()
    for weight in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, weight.dims)
        )
    graph = load(model, tmp_path)
    assert "BatchNormalization" not in graph.facts["ops"]
    assert len(graph.inputs) == 1


def test_a_dynamic_batch_becomes_one(tmp_path: Path) -> None:
    graph = load(user_model(("N", 3, 12, 12)), tmp_path)
    assert graph.inputs[0].shape == (1, 3, 12, 12)
    assert graph.outputs[0].shape == (1, 5)


def test_loading_is_idempotent(tmp_path: Path) -> None:
    once = load(user_model(), tmp_path)
    twice = load_onnx(once.path, tmp_path / "again")
    assert once.path.read_bytes() == twice.path.read_bytes()


def test_external_weights_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "user.onnx"
    onnx.save(
        user_model(), str(path), save_as_external_data=True, location="user.data", size_threshold=0
    )
    graph = load_onnx(path, tmp_path / "out")
    (tmp_path / "user.data").unlink()
    assert outputs(graph, images(1)).shape == (1, 5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["graph.json", "model.onnx"]


@pytest.mark.parametrize("way", ["../secret.data", "link.data", "absolute"])
def test_external_weights_may_not_leave_the_folder(tmp_path: Path, way: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = home / "user.onnx"
    onnx.save(
        user_model(), str(path), save_as_external_data=True, location="user.data", size_threshold=0
    )
    (home / "user.data").rename(tmp_path / "secret.data")
    (home / "link.data").symlink_to(tmp_path / "secret.data")
    model = onnx.load(str(path), load_external_data=False)
    location = str(tmp_path / "secret.data") if way == "absolute" else way
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside"):
        load_onnx(path, tmp_path / "out")


def nan_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "w")
    )
    return model


def two_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, (1, 4)))
    return model


def old(model: onnx.ModelProto) -> onnx.ModelProto:
    model.opset_import[0].version = 6
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: user_model((1, 3, "height", 12)), "dimension H is dynamic.*'height'"),
        (lambda: user_model((1, 3, 12, "")), "dimension W is dynamic"),
        (
            lambda: user_model((1, 12, 12, 3)),
            r"\(1, 12, 12, 3\): node .* \(Conv\): Input channels C",
        ),
        (lambda: nan_weights(user_model()), "w: holds NaN"),
        (lambda: old(user_model()), "opset 6"),
    ],
    ids=["height", "width", "nhwc", "nan", "old"],
)
def test_files_that_cannot_be_compiled_are_refused(
    make: Callable[[], onnx.ModelProto], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        load(make(), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_every_output_is_kept_with_what_it_holds(tmp_path: Path) -> None:
    graph = with_kinds(load(two_outputs(user_model()), tmp_path), None)
    assert len(graph.outputs) == 2
    assert graph.outputs[0].kind == "classes"
    assert {t.name for t in graph.outputs} == set(kinds(graph.outputs))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = user_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            load_onnx(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.onnx"):
        load_onnx(tmp_path / "nothing.onnx", tmp_path / "out")


def test_an_lstm_with_a_projection_is_refused_by_its_name(tmp_path):
    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 8, batch_first=True, proj_size=4)

        def forward(self, x):
            return self.lstm(x.mean(2).transpose(1, 2))[0][:, -1]

    with pytest.raises(ModelError, match=r"layer 'lstm' \(LSTM\): projects its state"):
        export_onnx(Columns(), torch.zeros(1, 3, 8, 8), tmp_path, where="net:make")


def test_what_torchscript_cannot_export_is_not_printed(tmp_path, capfd):
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x.mean((1, 2))).abs()  # only torch.export's route has that

    export_onnx(Spectrum(), torch.zeros(1, 3, 8, 8), tmp_path)
    seen = capfd.readouterr()
    assert "graph(" not in seen.out + seen.err
