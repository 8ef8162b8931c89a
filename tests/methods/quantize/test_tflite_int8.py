"""int8 .tflite: the dtypes asked for, the accuracy kept, the traps of the quantizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from torch import nn

from edgecv import cores
from edgecv.backends.tflite.run import Session
from edgecv.errors import DataError, ModelError, TargetError
from edgecv.graphs.tflite import flatbuffer
from edgecv.graphs.tflite.layers import layers, operand
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize import tflite_int8
from edgecv.methods.quantize._tflite_grids import widened
from edgecv.methods.quantize._tflite_measured import measure_tflite
from edgecv.methods.quantize.options import Options
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from edgecv.target import Grid
from tests.backends.tflite_graphs import GRID, float_graph, images, int8_graph, torch_logits


def logits(graph, batch: np.ndarray) -> np.ndarray:
    """Real-valued answers of a graph, whatever its own input and output are."""
    net = Session({"m": graph.path.read_bytes()})
    (x,), (y,) = net.inputs, net.outputs
    answers = []
    for image in batch[:, None]:
        if x.scale is not None:
            limits = np.iinfo(x.dtype)
            image = np.rint(image / x.scale) + x.zero_point
            image = image.clip(limits.min, limits.max).astype(x.dtype)
        out = net.run({x.name: image})[y.name].astype(np.float64)
        answers.append(out if y.scale is None else y.scale * (out - y.zero_point))
    return np.concatenate(answers)


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()))


@pytest.mark.parametrize(
    ("io", "extra", "dtypes", "executed"),
    [
        ("int8", {"DEQUANTIZE": 2}, ("int8", "float32"), {"int8": 5, "fp32": 1}),
        ("uint8", {"QUANTIZE": 1}, ("uint8", "int8"), {"int8": 6}),
        (
            "float32",
            {"QUANTIZE": 1, "DEQUANTIZE": 2},
            ("float32", "float32"),
            {"int8": 5, "fp32": 1},
        ),
    ],
)
def test_io_is_what_was_asked_for(io, extra, dtypes, executed):
    graph = int8_graph(io)
    assert graph.facts["ops"] == {**float_graph().facts["ops"], **extra}
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == dtypes
    assert (graph.inputs[0].name, graph.outputs[0].name) == ("input", "logits")
    assert graph.precision == "int8"
    assert graph.facts["executed"] == executed


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_int8_is_close_to_pytorch_on_other_images(io):
    held_out = images()[16:]
    assert sqnr_db(torch_logits(held_out), logits(int8_graph(io), held_out)) > 25


def test_uint8_is_the_same_grid_128_higher():
    signed, unsigned = int8_graph("int8").inputs[0], int8_graph("uint8").inputs[0]
    assert unsigned.scale == signed.scale
    assert unsigned.zero_point == signed.zero_point + 128
    batch, step = images()[:4], int8_graph("uint8").outputs[0].scale
    apart = logits(int8_graph("int8"), batch) - logits(int8_graph("uint8"), batch)
    assert np.abs(apart).max() < step  # its answers alone are rounded


def test_a_file_holds_no_constant_that_nothing_reads():
    for graph in (float_graph(), *map(int8_graph, tflite_int8.IO)):
        model = flatbuffer.read(graph.path)
        read = {t.buffer for t in flatbuffer.graph_of(model).tensors}
        assert set(range(1, len(model.buffers))) <= read


def test_the_same_samples_give_the_same_bytes(tmp_path: Path):
    for io in tflite_int8.IO:
        again = quantize_tflite(float_graph(), images()[:16], GRID, io, tmp_path / io)
        assert again.path.read_bytes() == int8_graph(io).path.read_bytes()


def test_the_bytes_are_the_same_on_two_cores(tmp_path: Path):
    with cores.free(2):
        again = quantize_tflite(float_graph(), images()[:16], GRID, "int8", tmp_path)
    assert again.path.read_bytes() == int8_graph("int8").path.read_bytes()


def test_what_is_known_of_the_outputs_is_kept(tmp_path: Path):
    told = replace(float_graph(), facts={**float_graph().facts, "sigmoid": ["logits"]})
    made = quantize_tflite(told, images()[:2], GRID, "int8", tmp_path)
    assert made.facts["sigmoid"] == ["logits"]


def test_the_console_stays_quiet(tmp_path: Path, capfd):
    quantize_tflite(float_graph(), images()[:2], GRID, "int8", tmp_path)
    assert capfd.readouterr() == ("", "")


def test_the_float_graph_is_not_touched(tmp_path: Path):
    before = float_graph().path.read_bytes()
    quantize_tflite(float_graph(), images()[:2], GRID, "int8", tmp_path)
    assert float_graph().path.read_bytes() == before


def test_ranges_are_the_extremes_over_all_samples():
    seen = measure_tflite(float_graph(), images()).ranges("minmax")
    assert seen["input"] == (images().min(), images().max())
    want = torch_logits(images())
    assert seen["logits"][1] == pytest.approx(want.max(), abs=1e-5)


class Hard(nn.Module):
    """A dead channel with a bias, a grouped and a widening depthwise layer, outlier weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.c = nn.Conv2d(32, 16, 1, groups=4)
        self.head = nn.Linear(16, 8)
        with torch.no_grad():
            self.a.weight[3] *= 1e-10
            self.a.bias[3] = 2.0
            for layer in (self.b, self.c):
                layer.weight.flatten(1)[:, 0] *= 12

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x))))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return export_tflite(
        Hard().eval(), torch.zeros(1, 3, 24, 24), tmp_path_factory.mktemp("hard") / "f"
    )


def test_a_dead_channel_keeps_the_sign_of_its_bias(hard, tmp_path: Path):
    graph = quantize_tflite(hard, images()[:16], GRID, "int8", tmp_path)
    assert graph.facts["raised_weight_scales"] == 1
    model = flatbuffer.read(graph.path)
    main = flatbuffer.graph_of(model)
    bias = main.tensors[main.operators[0].inputs[2]]
    value = flatbuffer.constant(model, bias)[3] * bias.quantization.scale[3]
    assert value == pytest.approx(2.0, rel=1e-5)


def test_bias_correction_takes_out_the_shift_of_the_mean(hard, tmp_path: Path):
    held_out = images()[16:]
    want = logits(hard, held_out)
    good = logits(quantize_tflite(hard, images()[:16], GRID, "int8", tmp_path / "a"), held_out)
    plain = Options(bias_correction=False)
    bad = logits(
        quantize_tflite(hard, images()[:16], GRID, "int8", tmp_path / "b", plain), held_out
    )
    assert np.abs((good - want).mean(0)).mean() < 0.8 * np.abs((bad - want).mean(0)).mean()
    assert sqnr_db(want, good) > sqnr_db(want, bad)


def test_weight_rounding_brings_the_layers_outputs_closer(hard, tmp_path: Path):
    floats = flatbuffer.read(hard.path)
    unseen = measure_tflite(hard, images()[16:]).moments
    squares = [m.square for m in unseen.values() if m.square is not None]
    assert len(squares) == 3

    def errors(how: str) -> list[float]:
        options = Options(rounding=how)
        graph = quantize_tflite(hard, images()[:16], GRID, "int8", tmp_path / how, options)
        model = flatbuffer.read(graph.path)
        return [
            np.einsum("gok,gkl,gol->", e, h, e)
            for e, h in zip(weight_errors(model, floats), squares, strict=True)
        ]

    nearest = errors("nearest")
    for how, share in (("gptq", 0.7), ("descent", 0.7), ("adaround", 0.9)):
        for closer, further in zip(errors(how), nearest, strict=True):
            assert closer < share * further


def weight_errors(model, floats) -> list[np.ndarray]:
    """w - s q of the three convolutions, (groups, O, K) with K as in `columns`."""
    found = []
    for (name, op), (_, twin), groups in zip(
        layers(model), layers(floats), (1, 16, 4), strict=False
    ):
        held = flatbuffer.graph_of(model).tensors[op.inputs[1]]
        real = flatbuffer.constant(floats, flatbuffer.graph_of(floats).tensors[twin.inputs[1]])
        last = name == "DEPTHWISE_CONV_2D"
        scale = np.array(held.quantization.scale)
        scale = scale if last else scale.reshape(-1, 1, 1, 1)
        error = real - scale * flatbuffer.constant(model, held)
        error = error.transpose((3, 0, 1, 2) if last else (0, 3, 1, 2))
        found.append(error.reshape(groups, len(error) // groups, -1))
    return found


def test_a_lone_large_pixel_narrows_the_input_and_the_logits_stay_whole(tmp_path: Path):
    batch = images(256).copy()
    batch[3, 0, 0, 0] = 1.5
    graph = quantize_tflite(float_graph(), batch, GRID, "uint8", tmp_path)
    (x,), (y,) = graph.inputs, graph.outputs
    low, high = measure_tflite(float_graph(), batch).spans["logits"]
    assert x.scale < 2.2 / 255
    assert y.scale == pytest.approx((high - low) * 1.25 / 255, rel=1e-3)  # with room for others


BAD = images()[:3].copy()
BAD[1, 2, 3, 0] = np.nan


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (images()[:0], "there are none"),
        (BAD, "number 1 holds NaN"),
        (images()[0], r"float32 \(24, 3\)"),
        (images()[:2, :20], r"\(20, 24, 3\)"),
        (images()[:2].astype(np.float64), "float64"),
    ],
    ids=["empty", "nan", "one image", "wrong size", "float64"],
)
def test_bad_samples(samples, what, tmp_path: Path):
    with pytest.raises(DataError, match=what):
        quantize_tflite(float_graph(), samples, GRID, "int8", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [{"activations": "uint8"}, {"symmetric": True}, {"quantize_bias": False}, {"reduce_range": 1}],
    ids=str,
)
def test_a_grid_that_tflite_does_not_compute_on(change, tmp_path: Path):
    grid = Grid(**{"activations": "int8", **change})
    with pytest.raises(TargetError, match="grid"):
        quantize_tflite(float_graph(), images()[:2], grid, "int8", tmp_path / "out")


def test_an_unknown_io_and_an_integer_graph(tmp_path: Path):
    with pytest.raises(TargetError, match="'int16' is not one of"):
        quantize_tflite(float_graph(), images()[:2], GRID, "int16", tmp_path)
    with pytest.raises(ModelError, match="takes a float"):
        quantize_tflite(int8_graph(), images()[:2], GRID, "int8", tmp_path)
    with pytest.raises(ModelError, match="onnx"):
        quantize_tflite(replace(float_graph(), format="onnx"), images()[:2], GRID, "int8", tmp_path)


class Silent(nn.Module):
    """Leaky ReLU, a maximum over padding behind it, a layer that answers zero everywhere, sizes,
    and a minimum with a maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3)
        self.off, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        nn.init.constant_(self.off.bias, -1000.0)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.a(x), 0.2)
        x = 1.0 - self.b(nn.functional.max_pool2d(x, 3, 2, 1))  # LiteRT folds it, once wrongly
        x = torch.minimum(x.abs(), 0.5 * x.amax(1, keepdim=True))
        return self.head((x + nn.functional.relu6(self.off(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    room = tmp_path_factory.mktemp("silent")
    module = Silent().eval()
    graph = export_tflite(module, torch.zeros(1, 3, 24, 24), room / "float")
    with torch.no_grad():
        want = module(torch.from_numpy(images()[:8].transpose(0, 3, 1, 2).copy())).numpy()
    return graph, want, room


def test_leaky_relu_and_a_silent_layer_are_integers(silent):
    """max(x, a x), max(x, -x), an edge instead of minus infinity, a grid for a map that is always
    zero, and what the quantizer knows no kernel of."""
    graph, want, room = silent
    floats = flatbuffer.op_counts(flatbuffer.read(graph.path))
    assert {"ABS", "MINIMUM", "REDUCE_MAX", "LEAKY_RELU"} <= set(floats)
    made = quantize_tflite(graph, images()[:16], GRID, "uint8", room / "uint8")
    assert {"MAXIMUM", "MUL", "CONCATENATION"} <= set(made.facts["ops"])
    assert {"MINIMUM", "REDUCE_MAX"} <= set(made.facts["ops"])
    assert not {"ABS", "LEAKY_RELU", "PADV2", "DEQUANTIZE"} & set(made.facts["ops"])
    assert not any("stays float" in w for w in made.facts["warnings"])
    got = logits(made, images()[:8])
    centred = want - want.mean(0)
    assert 10 * np.log10((centred**2).sum() / ((got - want) ** 2).sum()) > 15


def test_ranges_that_no_grid_holds_are_widened(silent):
    graph, _, _ = silent
    seen = measure_tflite(graph, images()[:4])
    ranges = seen.ranges("minmax")
    empty = [name for name, (low, high) in ranges.items() if low == high == 0]
    assert empty
    wide = widened(seen.model, ranges)
    assert all(high > low for low, high in wide.values())
    assert {n: r for n, r in wide.items() if n not in empty} == {
        n: r for n, r in ranges.items() if n not in empty
    }


class Faint(nn.Module):
    """A layer that answers 1e-9 before a ReLU6, whose 6 is no 32-bit integer on its grid."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)
        with torch.no_grad():
            self.conv.weight.mul_(1e-9)
            self.conv.bias.mul_(1e-9)
            self.head.weight.mul_(1e9)

    def forward(self, x):
        return self.head(nn.functional.relu6(self.conv(x))).mean((2, 3))


def test_an_end_that_no_integer_says_is_where_int8_ends_anyway(tmp_path: Path):
    module = Faint().eval()
    graph = export_tflite(module, torch.zeros(1, 3, 24, 24), tmp_path / "float")
    with torch.no_grad():
        want = module(torch.from_numpy(images()[:8].transpose(0, 3, 1, 2).copy())).numpy()
    plain = replace(Options(), equalization=False)
    made = quantize_tflite(graph, images()[:16], GRID, "int8", tmp_path / "int8", plain)
    assert sqnr_db(want - want.mean(0), logits(made, images()[:8]) - want.mean(0)) > 20
    plain_kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # XNNPACK's do not mind
    content = made.path.read_bytes()
    Interpreter(
        model_content=content, experimental_op_resolver_type=plain_kernels
    ).allocate_tensors()


class Token(nn.Module):
    """A constant row before the pixels of an image, as a ViT has its class token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 6, 8, 8), nn.Linear(60, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x):
        rows = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(torch.cat([self.token.expand(len(x), -1, -1), rows], 1).flatten(1))


def test_a_constant_is_joined_on_the_grid_of_the_whole(tmp_path: Path):
    module = Token().eval()
    graph = export_tflite(module, torch.zeros(1, 3, 24, 24), tmp_path / "float")
    with torch.no_grad():
        want = module(torch.from_numpy(images()[:8].transpose(0, 3, 1, 2).copy())).numpy()
    made = quantize_tflite(graph, images()[:16], GRID, "int8", tmp_path / "int8")
    assert "CONCATENATION" in made.facts["ops"]
    assert sqnr_db(want, logits(made, images()[:8])) > 20


class Residual(nn.Module):
    """LiteRT folds the scale into the dense layer, whose bias is then of four axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep = nn.Conv2d(3, 6, 3, padding=1)
        self.wide, self.back = nn.Linear(6, 12), nn.Linear(12, 6)
        self.scale = nn.Parameter(0.5 + torch.rand(6))

    def forward(self, x):
        x = self.deep(x)
        y = self.scale * self.back(nn.functional.gelu(self.wide(x.permute(0, 2, 3, 1))))
        return (x + y.permute(0, 3, 1, 2)).mean((2, 3))


def test_a_bias_of_four_axes_has_a_scale_for_each_channel(tmp_path: Path):
    graph = export_tflite(Residual().eval(), torch.zeros(1, 3, 24, 24), tmp_path / "float")
    model = flatbuffer.read(graph.path)
    shapes = [operand(model, name, op, 2).shape for name, op in layers(model)]
    assert max(map(len, shapes)) == 4
    made = quantize_tflite(graph, images()[:16], GRID, "float32", tmp_path / "int8")
    assert sqnr_db(logits(graph, images()[16:24]), logits(made, images()[16:24])) > 20
