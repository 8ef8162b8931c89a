"""The operators in ONNX Runtime: a chain that stays packed, and graphs that lie about sizes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecv.binary.reference import Shape, dots, packed  # noqa: E402

FIRST = Shape(9, 7, 70, 130, kernel=(3, 3), pads=(1, 1, 1, 1))
SECOND = Shape(9, 7, 130, 70, kernel=(3, 3), pads=(1, 1, 1, 1), groups=2)


class Chain:
    """Binarize, BinaryBits, BinaryConv with ternary weights, and what came in added."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(1, 70, 9, 7)).astype(np.float32)
        self.x[0, 0, 0, 0] = np.nan
        self.low = rng.normal(size=70).astype(np.float32)
        self.turn = rng.integers(0, 2, 70).astype(np.uint8)
        self.a = rng.integers(0, 2, (130, 3, 3, 70)).astype(bool)
        self.b = rng.integers(0, 2, (70, 3, 3, 65)).astype(bool)
        self.mask = rng.random(self.b.shape) < 0.5
        self.least = rng.integers(-20, 20, 130).astype(np.int32)
        self.flip = rng.integers(0, 2, 130).astype(np.uint8)
        self.scale, self.bias = rng.normal(size=(2, 70)).astype(np.float32)

    def wanted(self) -> np.ndarray:
        bits = (self.x[0] >= self.low[:, None, None]) ^ (self.turn[:, None, None] == 1)
        first = dots(FIRST, np.where(bits.transpose(1, 2, 0), 1, -1), np.where(self.a, 1, -1))
        middle = np.where((first >= self.least) ^ (self.flip == 1), 1, -1)
        second = dots(SECOND, middle, np.where(self.b, 1, -1) * self.mask)
        real = second.astype(np.float32) * self.scale + self.bias
        return real.transpose(2, 0, 1)[None] + self.x

    def model(self, first: Shape = FIRST, second: Shape = SECOND, **swap: np.ndarray) -> bytes:
        held = {
            "low": self.low, "turn": self.turn, "a": packed(self.a), "least": self.least,
            "flip": self.flip, "b": packed(self.b), "mask": packed(self.mask),
            "scale": self.scale, "bias": self.bias, **swap,
        }  # fmt: skip
        nodes = [
            helper.make_node("Binarize", ["x", "low", "turn"], ["p"], domain="edgecv"),
            helper.make_node("BinaryBits", ["p", "a", "", "least", "flip"], ["q"],
                             domain="edgecv", shape=numbers(first)),
            helper.make_node("BinaryConv", ["q", "b", "mask", "scale", "bias", "x"], ["y"],
                             domain="edgecv", shape=numbers(second)),
        ]  # fmt: skip
        real = TensorProto.FLOAT
        graph = helper.make_graph(
            nodes, "chain", [helper.make_tensor_value_info("x", real, [1, 70, "h", "w"])],
            [helper.make_tensor_value_info("y", real, None)],
            [numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in held.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("edgecv", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def numbers(s: Shape) -> list[int]:
    return [s.height, s.width, s.channels, s.filters, *s.kernel, *s.stride, *s.dilation, *s.pads,
            s.groups]  # fmt: skip


def session(model: bytes, kernels: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.register_custom_ops_library(str(kernels))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_a_packed_chain_is_equal_to_its_reference(kernels: Path) -> None:
    chain = Chain()
    net = session(chain.model(), kernels)
    wanted = chain.wanted()
    for _ in range(3):
        np.testing.assert_array_equal(net.run(None, {"x": chain.x})[0], wanted)


def test_runs_side_by_side_do_not_meet(kernels: Path) -> None:
    chain = Chain()
    net, wanted = session(chain.model(), kernels), chain.wanted()
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: net.run(None, {"x": chain.x})[0], range(40)):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("swap", "said"),
    [
        ({"a": np.zeros((130, 3, 3, 1), np.uint64)}, "BinaryBits: weights"),
        ({"a": np.zeros((129, 3, 3, 2), np.uint64)}, "BinaryBits: weights"),
        ({"mask": np.zeros((70, 3, 3, 1), np.uint64)}, "BinaryConv: mask"),
        ({"scale": np.zeros(69, np.float32)}, "BinaryConv: constants by filter"),
        ({"least": np.zeros(1, np.int32)}, "BinaryBits: constants by filter"),
        ({"turn": np.zeros(3, np.uint8)}, "Binarize: least and flip"),
        ({"first": dataclasses.replace(FIRST, filters=1 << 30)}, "BinaryBits: `shape` is no layer"),
        ({"first": dataclasses.replace(FIRST, groups=3)}, "BinaryBits: `shape` is no layer"),
        ({"second": dataclasses.replace(SECOND, stride=(0, 0))}, "BinaryConv: `shape` is no"),
    ],
)  # fmt: skip
def test_a_graph_that_lies_is_refused_when_it_is_loaded(
    swap: dict, said: str, kernels: Path
) -> None:
    with pytest.raises(Exception, match=said):
        session(Chain().model(**swap), kernels)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first": dataclasses.replace(FIRST, height=10)}, "BinaryBits: bits are not"),
        ({"second": dataclasses.replace(SECOND, width=900)}, "BinaryConv: "),
        ({"second": dataclasses.replace(SECOND, pads=(0, 0, 0, 0))}, "BinaryConv: what is added"),
    ],
)
def test_a_graph_that_lies_is_refused_when_it_runs(change: dict, said: str, kernels: Path) -> None:
    chain = Chain()
    net = session(chain.model(**change), kernels)
    with pytest.raises(Exception, match=said):
        net.run(None, {"x": chain.x})
    with pytest.raises(Exception, match=r"Binarize|BinaryBits"):
        net.run(None, {"x": chain.x[..., :5]})


FUZZ = """
import sys
import numpy as np, onnx, onnxruntime as ort
content, kernels, x = open(sys.argv[1], "rb").read(), sys.argv[2], np.load(sys.argv[3])
rng = np.random.default_rng(0)
ran = refused = 0
for _ in range(300):
    model = onnx.load_model_from_string(content)
    for _ in range(int(rng.integers(1, 4))):
        node = model.graph.node[int(rng.integers(len(model.graph.node)))]
        what = int(rng.integers(4))
        if what == 0 and node.attribute:
            held = node.attribute[int(rng.integers(len(node.attribute)))]
            at = int(rng.integers(len(held.ints)))
            held.ints[at] = int(rng.choice([-1, 0, 1, 2, 3, 7, 64, 65, 2**20, 2**31 - 1, 2**40]))
        elif what == 1:
            tensor = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
            array = onnx.numpy_helper.to_array(tensor)
            cut = array.reshape(-1)[: int(rng.integers(1, array.size + 1))]
            tensor.CopyFrom(onnx.numpy_helper.from_array(cut.copy(), tensor.name))
        elif what == 2:
            node.input[int(rng.integers(len(node.input)))] = ""
        else:
            others = [t.name for t in model.graph.initializer]
            other = others[int(rng.integers(len(others)))]
            node.input[int(rng.integers(1, len(node.input)))] = other
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.register_custom_ops_library(kernels)
    try:
        net = ort.InferenceSession(model.SerializeToString(), options,
                                   providers=["CPUExecutionProvider"])
        net.run(None, {"x": x})
        ran += 1
    except Exception:
        refused += 1
print(ran, refused)
"""


@pytest.mark.parametrize("both", [False, True])
def test_damaged_graphs_never_crash_the_process(both: bool, kernels: Path, tmp_path: Path) -> None:
    chain = Chain()
    model = onnx.load_model_from_string(chain.model())
    if both:  # the last layer gives floats and bits, with everything that it can have
        node = model.graph.node[-1]
        extra = {n: np.ones(70, np.float32) for n in ("before", "slope", "after", "border")}
        for name, value in (*extra.items(), ("turned", np.zeros(70, np.uint8))):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        inputs = [*node.input, "", *extra, "turned"]
        made = helper.make_node("BinaryBoth", inputs, ["y", "z"], domain="edgecv",
                                shape=numbers(SECOND), last=[0])  # fmt: skip
        del model.graph.node[-1]
        model.graph.node.append(made)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "x.npy", chain.x)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path / "model.onnx"), str(kernels),
         str(tmp_path / "x.npy")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ran, refused = map(int, done.stdout.split())
    assert refused > 100
    assert ran > 5
