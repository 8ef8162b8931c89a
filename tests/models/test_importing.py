"""ONNX to torch: equal outputs for exported networks and for single operators, clear refusals."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgecv.errors import ModelError, UnsupportedError
from edgecv.models import zoo
from edgecv.models.importing import onnx_to_torch

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


# --- whole networks ------------------------------------------------------------------------


class Branches(nn.Module):
    """What the zoo does not have: concat, dilation, groups, transposed convolution, resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(3, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 16, (3, 5), padding=(1, 2), groups=4)
        self.norm = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 16, 2, stride=2)
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.slope = nn.PReLU(8)
        self.head = nn.Linear(40, 5)

    def forward(self, x):
        a = F.leaky_relu(self.dilated(x), 0.2)
        b = self.norm(F.hardswish(self.grouped(a)))
        c = F.interpolate(self.down(b), scale_factor=2.0, mode="bilinear", align_corners=False)
        d = self.slope(self.up(F.max_pool2d(F.pad(F.relu(b), (0, 1, 0, 1)), 3, 2)))
        e = torch.cat([torch.sigmoid(b) * torch.tanh(c) / 2, 1 - d, c], 1)
        e = F.adaptive_avg_pool2d(F.avg_pool2d(e, 3, 2, 1), 1)
        return torch.softmax(self.head(e.flatten(1)), 1)


def network(name):
    torch.manual_seed(0)
    model = Branches() if name == "branches" else zoo.build(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh statistics would hide a mistake
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    return model.eval()


def export(model, x, path, dynamo=False, opset=18):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = {"external_data": False} if dynamo else {}
        torch.onnx.export(model, (x,), str(path), opset_version=opset, dynamo=dynamo, **keys)
    return path


def assert_same(ours, theirs, x):
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "opset"),
    [("resnet8", 18), ("mobilenet_v2_small", 13), ("branches", 11), ("branches", 18)],
)
def test_exported_networks_come_back(tmp_path, name, opset):
    model, x = network(name), torch.randn(1, 3, 32, 32)
    back = onnx_to_torch(export(model, x, tmp_path / "m.onnx", opset=opset))
    assert_same(back, model, x)
    assert_same(back, model, torch.randn(3, 3, 32, 32))  # any batch
    assert not back.training


@pytest.mark.parametrize("name", ["resnet8", "branches"])
def test_the_dynamo_exporter_too(tmp_path, name):
    model, x = network(name), torch.randn(1, 3, 32, 32)
    back = onnx_to_torch(export(model, x, tmp_path / "m.onnx", dynamo=True))
    assert_same(back, model, torch.randn(2, 3, 32, 32))


def test_layers_are_standard_and_named(tmp_path):
    model, x = network("branches"), torch.randn(1, 3, 32, 32)
    back = onnx_to_torch(export(model, x, tmp_path / "m.onnx"))
    kinds = {name: type(module).__name__ for name, module in back.named_children()}
    assert kinds == {
        "dilated": "Conv2d",
        "grouped": "Conv2d",
        "norm": "BatchNorm2d",
        "down": "Conv2d",
        "up": "ConvTranspose2d",
        "slope_PRelu": "PReLU",
        "head": "Linear",
    }
    assert back.norm.momentum == pytest.approx(model.norm.momentum)
    theirs = {key for key, _ in model.named_parameters() if "slope" not in key}
    assert theirs <= {key for key, _ in back.named_parameters()}


@pytest.mark.parametrize("name", ["resnet8", "branches"])
def test_torch_export_traces_and_training_works(tmp_path, name):
    model, x = network(name), torch.randn(1, 3, 32, 32)
    back = onnx_to_torch(export(model, x, tmp_path / "m.onnx"))
    assert_same(torch.export.export(back, (x,)).module(), model, x)
    back.train()(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in back.parameters())


# --- single operators, against ONNX Runtime ------------------------------------------------


def one_op(op, inputs, attrs=None, shape=(1, 4, 7, 9), opset=18, outputs=1):
    """A model of one node: `inputs` are constants behind the image; None leaves one out."""
    names = ["x"] + [f"c{k}" if value is not None else "" for k, value in enumerate(inputs)]
    made = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, made, name="the_node", **(attrs or {}))
    constants = [
        numpy_helper.from_array(np.asarray(value), f"c{k}")
        for k, value in enumerate(inputs)
        if value is not None
    ]
    return model_of([node], shape, constants, opset)


def model_of(nodes, shape=(1, 4, 7, 9), constants=(), opset=18, kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model, path, shape=(1, 4, 7, 9)):
    """The imported module gives what ONNX Runtime gives."""
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = normal(*shape) * 4
    (expected,) = session.run(None, {"x": x})
    with torch.no_grad():
        got = onnx_to_torch(path)(torch.from_numpy(x)).numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


def ints(*values):
    return np.array(values, np.int64)


SCALES = np.array([1, 1, 2, 3], np.float32)
NO_ROI = np.array([], np.float32)
W = normal(6, 4, 3, 3)
K3 = {"kernel_shape": [3, 3]}

# operator -> (constant inputs, attributes[, opset]) of each case
CASES = {
    "Add": [([normal(4, 1, 1)],), ([np.float32(2)],), ([normal(1)],)],
    "AveragePool": [
        ([], K3),
        ([], K3 | {"pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ([], K3 | {"pads": [1, 1, 1, 1], "count_include_pad": 0, "strides": [2, 1]}),
        ([], K3 | {"pads": [0, 0, 1, 2], "count_include_pad": 1}),
        ([], K3 | {"strides": [2, 2], "ceil_mode": 1}),
    ],
    "BatchNormalization": [([normal(4), normal(4), normal(4), normal(4) ** 2], {"epsilon": 0.1})],
    "Cast": [([], {"to": 1})],
    "Clip": [
        ([np.float32(0), np.float32(6)],),
        ([np.float32(0)],),
        ([None, np.float32(1)],),
        ([np.float32(-1), np.float32(1)],),
    ],
    "Concat": [([normal(1, 2, 7, 9)], {"axis": 1}), ([normal(1, 4, 7, 1)], {"axis": -1})],
    "Conv": [
        ([W, normal(6)], {}),
        ([W], {"dilations": [2, 1], "pads": [2, 0, 2, 0]}),
        ([W], {"pads": [0, 1, 2, 0], "strides": [2, 2]}),
        ([W], {"auto_pad": "VALID"}),
        ([normal(6, 4, 2, 4)], {"auto_pad": "SAME_UPPER"}),
        ([normal(6, 4, 2, 4)], {"auto_pad": "SAME_LOWER"}),
        ([normal(8, 2, 1, 1), normal(8)], {"group": 2}),
    ],
    "ConvTranspose": [
        ([normal(4, 3, 3, 3), normal(6)], {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ([normal(4, 3, 2, 3)], {"output_padding": [1, 0], "strides": [2, 1]}),
    ],
    "Div": [([normal(4, 1, 1) + 9],)],
    "Dropout": [([],)],
    "Flatten": [([], {"axis": axis}) for axis in (0, 1, 2, 4, -1)],
    "GlobalAveragePool": [([],)],
    "GlobalMaxPool": [([],)],
    "HardSigmoid": [([],), ([], {"alpha": 1 / 6, "beta": 0.5})],
    "HardSwish": [([],)],
    "Identity": [([],)],
    "LeakyRelu": [([],), ([], {"alpha": 0.3})],
    "MatMul": [([normal(9, 5)],)],
    "MaxPool": [
        ([], K3),
        ([], K3 | {"pads": [1, 0, 1, 1], "strides": [2, 2]}),
        ([], K3 | {"dilations": [2, 2], "ceil_mode": 1}),
        ([], K3 | {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ],
    "Mul": [([normal(1, 4, 1, 1)],)],
    "PRelu": [([normal(4, 1, 1)],), ([normal(1)],)],
    "Pad": [
        ([ints(0, 0, 1, 2, 0, 0, 3, 0)],),
        ([ints(0, 1, 0, 0, 0, 0, 0, 0), np.float32(2.5)],),
        ([ints(1, 2), None, ints(3)],),
    ],
    "ReduceMean": [
        ([ints(2, 3)],),
        ([ints(-1, -2)], {"keepdims": 0}),
        ([ints(1)], {"keepdims": 0}),
        ([],),
        ([], {"axes": [2, 3], "keepdims": 0}, 13),
    ],
    "Relu": [([],)],
    "Reshape": [([ints(1, -1)],), ([ints(0, 2, 2, -1)],), ([ints(-1, 9)],), ([ints(1, 2, 2, 63)],)],
    "Resize": [
        ([NO_ROI, SCALES], {"mode": "nearest"}),
        ([NO_ROI, SCALES], {"mode": "linear"}),
        ([NO_ROI, NO_ROI, ints(1, 4, 5, 13)], {"mode": "linear"}),
        (
            [NO_ROI, NO_ROI, ints(1, 4, 14, 20)],
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ),
        (
            [NO_ROI, NO_ROI, ints(1, 4, 5, 20)],
            {
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            },
        ),
    ],
    "Sigmoid": [([],)],
    "Softmax": [([],), ([], {"axis": 1}), ([], {"axis": 3}, 11)],
    "Squeeze": [([ints(0)],), ([],), ([], {"axes": [0]}, 11)],
    "Sub": [([np.float32(1)],)],
    "Tanh": [([],)],
    "Transpose": [([],), ([], {"perm": [0, 2, 3, 1]})],
    "Unsqueeze": [([ints(1, -1)],), ([], {"axes": [2]}, 11)],
}


@pytest.mark.parametrize(
    ("op", "case"), [(op, case) for op, cases in CASES.items() for case in cases]
)
def test_operator(tmp_path, op, case):
    inputs, attrs, opset = (*case, {}, 18)[:3] if len(case) < 2 else (*case, 18)[:3]
    check(one_op(op, inputs, attrs, opset=opset), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("inputs", "attrs"),
    [
        ([normal(12, 5), normal(5)], {}),
        ([normal(5, 12)], {"transB": 1, "alpha": 0.5}),
        ([normal(12, 5), normal(1, 5)], {"beta": 2.0}),
        ([normal(12, 5), np.float32(3)], {}),
    ],
)
def test_gemm(tmp_path, inputs, attrs):
    check(one_op("Gemm", inputs, attrs, shape=(1, 12)), tmp_path / "m.onnx", (1, 12))


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(8, 12), st.integers(8, 12)),
    groups=st.sampled_from([1, 2, 4]),
    padding=st.one_of(
        st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]),
        st.lists(st.integers(0, 3), min_size=4, max_size=4),
    ),
)
def test_convolution_geometry(tmp_path_factory, kernel, strides, dilations, size, groups, padding):
    attrs = {"strides": strides, "dilations": dilations, "group": groups}
    if isinstance(padding, str):
        attrs["auto_pad"] = padding
        if padding.startswith("SAME"):
            attrs["dilations"] = (1, 1)  # ONNX Runtime refuses SAME with dilation
    else:
        attrs["pads"] = padding
    shape = (1, 4, *size)
    model = one_op("Conv", [normal(8, 4 // groups, *kernel)], attrs, shape)
    check(model, tmp_path_factory.mktemp("conv") / "m.onnx", shape)


# --- small graphs --------------------------------------------------------------------------


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, **attrs)


def test_a_computed_shape_is_folded(tmp_path):
    """x.view(x.size(0), -1) as older exporters write it, with a symbolic batch."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(0), "zero"),
        numpy_helper.from_array(ints(0), "axis"),
        numpy_helper.from_array(ints(-1), "rest"),
    ]
    onnx.save(model_of(nodes, ("N", 4, 7, 9), constants), tmp_path / "m.onnx")
    back = onnx_to_torch(tmp_path / "m.onnx")
    x = torch.randn(3, 4, 7, 9)
    assert torch.equal(back(x), x.flatten(1))


def test_a_channel_shuffle_takes_any_batch(tmp_path):
    """The file says (1, 2, 2, 7, 9); the one is the batch."""
    nodes = [
        node("Reshape", ["x", "split"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["b", "join"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(ints(1, 2, 2, 7, 9), "split"),
        numpy_helper.from_array(ints(1, 4, 7, 9), "join"),
    ]
    onnx.save(model_of(nodes, constants=constants), tmp_path / "m.onnx")
    x = torch.randn(3, 4, 7, 9)
    assert torch.equal(onnx_to_torch(tmp_path / "m.onnx")(x), F.channel_shuffle(x, 2))


def test_matmul_and_add_become_one_linear(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["y"])]
    w, b = normal(12, 5), normal(5)
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    model = model_of(nodes, (1, 12), constants)
    check(model, tmp_path / "m.onnx", (1, 12))
    (layer,) = onnx_to_torch(tmp_path / "m.onnx").children()
    assert isinstance(layer, nn.Linear)
    assert np.array_equal(layer.bias.detach().numpy(), b)


def test_a_bias_is_not_moved_where_the_product_is_read_twice(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Add", ["m", "b"], ["a"]),
        node("Mul", ["a", "m"], ["y"]),
    ]
    constants = [numpy_helper.from_array(normal(*s), n) for s, n in (((12, 5), "w"), ((5,), "b"))]
    check(model_of(nodes, (1, 12), constants), tmp_path / "m.onnx", (1, 12))


def test_padding_behind_a_relu_stays_finite(tmp_path):
    """-inf would become the range of an int8 grid; behind a ReLU zero is the same."""
    pool = node("MaxPool", ["r"], ["y"], kernel_shape=[3, 3], pads=[0, 0, 1, 1])
    check(model_of([node("Relu", ["x"], ["r"]), pool]), tmp_path / "m.onnx")
    assert "inf" not in onnx_to_torch(tmp_path / "m.onnx").code


def test_one_weight_read_by_two_layers(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("Conv", ["a", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    check(
        model_of(nodes, constants=[numpy_helper.from_array(normal(4, 4, 3, 3), "w")]),
        tmp_path / "m.onnx",
    )


# --- refusals ------------------------------------------------------------------------------


def refusal(model, path, error=UnsupportedError):
    onnx.save(model, path)
    with pytest.raises(error) as caught:
        onnx_to_torch(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "says"),
    [
        ("Det", [], {}, "cannot be read"),
        ("Cast", [], {"to": TensorProto.FLOAT16}, "a cast to float16"),
        (
            "AveragePool",
            [],
            K3 | {"auto_pad": "SAME_UPPER", "strides": [2, 2], "count_include_pad": 0},
            None,
        ),
    ],
)
def test_operators_that_are_refused_name_the_node(tmp_path, op, inputs, attrs, says):
    model = one_op(op, inputs, attrs)
    if says is None:  # 7x9 at stride 2 is padded evenly: this one is read
        check(model, tmp_path / "m.onnx")
        return
    message = refusal(model, tmp_path / "m.onnx")
    assert "'the_node'" in message
    assert f"({op})" in message
    assert says in message


def test_a_quantized_file_is_refused_not_dequantized(tmp_path):
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["w"]),
        node("Conv", ["x", "w"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.ones((4, 4, 1, 1), np.int8), "q"),
        numpy_helper.from_array(np.float32(0.1), "s"),
    ]
    message = refusal(model_of(nodes, constants=constants), tmp_path / "m.onnx")
    assert "(DequantizeLinear): this operator cannot be read" in message


def test_inputs_that_are_refused(tmp_path):
    relu = [node("Relu", ["x"], ["y"])]
    message = refusal(model_of(relu, (1, 3, "H", "W")), tmp_path / "m.onnx", ModelError)
    assert "dynamic axis 2" in message
    assert "'x' has no shape" in refusal(model_of(relu, None), tmp_path / "m.onnx", ModelError)
    message = refusal(model_of(relu, kind=TensorProto.FLOAT16), tmp_path / "m.onnx")
    assert "float16" in message
    message = refusal(model_of(relu, opset=9), tmp_path / "m.onnx", ModelError)
    assert "opset 9 is older than 11" in message


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, keep):
    path = export(network("resnet8"), torch.randn(1, 3, 32, 32), tmp_path / "m.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ModelError, match="not a valid ONNX file"):
        onnx_to_torch(path)


def test_files_that_are_no_onnx(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        onnx_to_torch(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello, this is not a network")
    with pytest.raises(ModelError, match="not a valid ONNX file"):
        onnx_to_torch(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelError):
        onnx_to_torch(tmp_path / "empty.onnx")
