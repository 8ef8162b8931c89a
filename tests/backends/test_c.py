"""Generated C computes what its reference does, on this processor and on others; what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from edgecv import source_trust, target  # noqa: E402
from edgecv.backends.c import codegen, reference  # noqa: E402
from edgecv.backends.c.arena import lives, plan  # noqa: E402
from edgecv.backends.c.compile import compile  # noqa: E402
from edgecv.backends.c.network import Network, Step, Tensor, multiplier, words  # noqa: E402
from edgecv.backends.c.run import Session, probe  # noqa: E402
from edgecv.backends.c.window import outputs  # noqa: E402
from edgecv.backends.onnxruntime.run import Session as OrtSession  # noqa: E402
from edgecv.binary import build  # noqa: E402
from edgecv.bundling.precision import float_layers  # noqa: E402
from edgecv.errors import EngineError, MissingExtraError, TrustError, UnsupportedError  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.methods.binary.constants_for_export import frozen, one_bit  # noqa: E402
from edgecv.methods.binary.replacing import binarize  # noqa: E402
from edgecv.methods.binary.selection import choose  # noqa: E402
from edgecv.methods.export.onnx import export_onnx, load_onnx  # noqa: E402
from edgecv.methods.quantize.onnx_qdq import quantize_onnx  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.target import Grid  # noqa: E402
from tests import networks  # noqa: E402
from tests.methods.qat.nets import settled  # noqa: E402

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C compiler")

C = target.load("c")


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")


CROSS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "arm": ("arm-linux-gnueabihf-gcc", "qemu-arm"),
    "riscv64": ("riscv64-linux-gnu-gcc", "qemu-riscv64"),
}
NETS = {
    "residual": lambda: zoo.build("resnet8", width=8, classes=5),
    "depthwise": lambda: zoo.build("mobilenet_v2_small", width=8, classes=5),
    "gated": networks.Gated,
    "lenet": lambda: zoo.build("lenet5", classes=5, channels=3, size=16),
    "odd": lambda: Odd(),
    "mixed": lambda: Mixed(),
}


class Odd(nn.Module):
    """Joins, dilation, groups, other activations, a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, dilation=2, padding=2)
        self.b = nn.Conv2d(3, 9, 5, 1, 2, groups=3)
        self.slope = nn.PReLU(15)
        self.c = nn.Conv2d(15, 10, (3, 1), 2)
        self.head = nn.Linear(10 * 3 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([torch.sigmoid(self.a(x)), torch.tanh(self.b(x))], 1)
        y = nn.functional.avg_pool2d(nn.functional.hardswish(self.slope(y)), 2, 2)
        y = nn.functional.max_pool2d(self.c(y), 3, 1, 1)
        return self.head(nn.functional.relu6(y).flatten(1))


class Mixed(nn.Module):
    """Norms, attention, joins along the width, a gate by place, a bilinear resize."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8)
        self.mix, self.token = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.b, self.place = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)
        self.instance, self.head = nn.InstanceNorm2d(8, affine=True), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.a(x)))
        tokens = self.token(y.flatten(2).transpose(1, 2))
        tokens = tokens + self.mix(tokens, tokens, tokens, need_weights=False)[0]
        y = y - tokens.transpose(1, 2).reshape(y.shape)
        y = torch.cat([y, self.instance(self.b(y))], 3)
        y = nn.functional.interpolate(y, scale_factor=2, mode="bilinear")
        gate = self.place(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1))
        return self.head((y * torch.sigmoid(gate)).mean((2, 3)))


def made(name: str, kind: str, room: Path, side: tuple[int, int] = (16, 16)) -> Graph:
    """A network's graph: fp32, int8 or bits."""
    torch.manual_seed(0)
    net = settled(NETS[name]())
    if kind == "bits":
        layers, _ = choose(net, torch.zeros(1, 3, *side), "b", None)
        edit = {"op": "binarize", "step": "b", "form": "react", "weights": "ternary"}
        edit |= {"real_inputs": False, "estimator": "polynomial", "layers": layers}
        binarize(net, edit)
        net = frozen(settled(net))
    graph = export_onnx(net.eval(), torch.zeros(1, 3, *side), room / "float")
    if kind == "bits":
        graph.facts["one_bit"] = one_bit(net)
    if kind != "int8":
        return graph
    samples = np.random.default_rng(1).normal(size=(16, 3, *side)).astype(np.float32)
    return quantize_onnx(graph, samples, Grid(activations="int8"), room / "int8")


@pytest.mark.parametrize("kind", ["fp32", "int8", "bits"])
@pytest.mark.parametrize("name", NETS)
def test_networks_answer_as_in_onnx_runtime(name: str, kind: str, tmp_path: Path) -> None:
    if kind == "bits" and name in ("odd", "mixed"):
        pytest.skip("has no layer of one bit")
    graph = made(name, kind, tmp_path)
    compiled = compile(graph, C, tmp_path / "c")
    files = {n: (tmp_path / "c" / n).read_bytes() for n in compiled.files}
    net = Session(files)
    assert (net.inputs, net.outputs) == (compiled.inputs, compiled.outputs)
    x = np.random.default_rng(2).normal(size=(8, 3, 16, 16)).astype(np.float32)
    other = OrtSession({"model.onnx": graph.path.read_bytes()}, fused=kind != "int8")
    wanted = np.concatenate([other.run({other.inputs[0].name: v[None]})["logits"] for v in x])
    got = np.concatenate(
        [net.run({"input": v.transpose(1, 2, 0)[None].copy()})["logits"] for v in x]
    )
    near = np.abs(got - wanted).max(1) <= {"fp32": 2e-4, "int8": 0.02, "bits": 2e-3}[kind] * max(
        1.0, np.abs(wanted).max()
    )
    assert near.mean() >= {"fp32": 1.0, "int8": 0.8, "bits": 0.7}[kind]
    ran = net.executed()
    if kind == "int8":
        assert ran.keys() == {"int8"}
    assert ran.get("binary", 0) == compiled.counted == graph.facts.get("one_bit", 0)


ONE_VALUE: dict[str, dict[str, float]] = {
    "Abs": {}, "Neg": {}, "Exp": {}, "Erf": {}, "Softplus": {}, "Softsign": {}, "Mish": {},
    "Sqrt": {}, "Log": {}, "Elu": {"alpha": 0.7}, "Celu": {"alpha": 1.4}, "Selu": {},
    "Tanh": {}, "Sigmoid": {}, "HardSwish": {},
}  # fmt: skip


def test_functions_of_one_value_are_onnx_runtimes(tmp_path: Path) -> None:
    """Each alone behind the mean of an image, all joined: from -12 to 12, and 0."""
    from onnx import TensorProto, helper

    nodes, positive = [], {"Sqrt", "Log"}
    for op, how in ONE_VALUE.items():
        nodes.append(
            helper.make_node(op, ["abs" if op in positive else "x"], [f"y{op}"], name=op, **how)
        )
    nodes.insert(0, helper.make_node("Max", ["x", "low"], ["abs"], name="max"))
    # the mean and the largest of equal values, halved together
    nodes.insert(0, helper.make_node("GlobalAveragePool", ["input"], ["mean"], name="mean"))
    nodes.insert(1, helper.make_node("ReduceMax", ["input", "axes"], ["most"], name="most"))
    nodes.insert(2, helper.make_node("Sum", ["mean", "most"], ["twice"], name="twice"))
    nodes.insert(3, helper.make_node("Div", ["twice", "two"], ["x"], name="half"))
    nodes.append(helper.make_node("Div", ["x", "three"], ["yDiv"], name="third"))
    named = [*(f"y{op}" for op in ONE_VALUE), "yDiv"]
    nodes.append(helper.make_node("Concat", named, ["all"], axis=1))
    nodes.append(helper.make_node("Flatten", ["all"], ["logits"]))
    image, count = (1, 3, 2, 2), 3 * len(ONE_VALUE) + 3
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, count))],
        [helper.make_tensor("low", TensorProto.FLOAT, (), [1e-3]),
         helper.make_tensor("axes", TensorProto.INT64, (2,), [2, 3]),
         helper.make_tensor("two", TensorProto.FLOAT, (), [2.0]),
         helper.make_tensor("three", TensorProto.FLOAT, (), [3.0])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    loaded = load_onnx(tmp_path / "model.onnx", tmp_path / "float")
    compile(loaded, C, tmp_path / "c")
    net = Session({p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()})
    other = OrtSession({"model.onnx": loaded.path.read_bytes()})
    for values in np.linspace(-12, 12, 57, dtype=np.float32).reshape(19, 3):
        x = np.broadcast_to(values[None, :, None, None], image).copy()
        (wanted,) = other.run({other.inputs[0].name: x}).values()
        (got,) = net.run({"input": x.transpose(0, 2, 3, 1).copy()}).values()
        for op, a, b in zip(
            (*ONE_VALUE, "Div"), got.reshape(-1, 3), wanted.reshape(-1, 3), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=op)


class Moved(nn.Module):
    """A channel shuffle, slices, a split, paddings of each kind, a resize, pixels to channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(32, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x)).view(1, 2, 4, 16, 16).transpose(1, 2).reshape(1, 8, 16, 16)
        first, second = y[:, :, 1:-1:2, ::2].chunk(2, 1)
        y = nn.functional.pad(torch.cat([second, first * 2], 1), (1, 0, 0, 2), value=0.5)
        y = nn.functional.pad(y, (1, 1, 0, 1), mode="reflect")
        y = nn.functional.pad(y, (0, 0, 1, 1), mode="replicate")
        y = nn.functional.interpolate(y[:, :, :10, :10], scale_factor=2)
        y = self.b(nn.functional.pixel_unshuffle(y, 2))
        return y.flatten(1)  # the order of channels first, though they lie last in C


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_what_only_moves_is_moved_as_in_onnx_runtime(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = export_onnx(Moved().eval(), torch.zeros(1, 3, 16, 16), tmp_path / "float")
    x = np.random.default_rng(2).normal(size=(8, 3, 16, 16)).astype(np.float32)
    if kind == "int8":
        graph = quantize_onnx(graph, x, Grid(activations="int8"), tmp_path / "int8")
    compiled = compile(graph, C, tmp_path / "c")
    net = Session({n: (tmp_path / "c" / n).read_bytes() for n in compiled.files})
    other = OrtSession({"model.onnx": graph.path.read_bytes()}, fused=kind != "int8")
    for image in x[:3]:
        (wanted,) = other.run({other.inputs[0].name: image[None]}).values()
        (got,) = net.run({"input": image.transpose(1, 2, 0)[None].copy()}).values()
        tolerance = {"fp32": 1e-5, "int8": 0.02}[kind] * np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, atol=tolerance)


def some_step(rng: np.random.Generator, kind: str) -> Network:
    """One layer of random shape with random constants, of one image or of several."""
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, filters = groups * int(rng.integers(1, 40)), groups * int(rng.integers(1, 40))
    kernel = tuple(map(int, rng.integers(1, 5, 2)))
    about = {
        "kernel": kernel, "stride": tuple(map(int, rng.integers(1, 4, 2))),
        "dilation": tuple(map(int, rng.integers(1, 3, 2))),
        "pads": tuple(map(int, rng.integers(0, 3, 4))), "groups": groups,
    }  # fmt: skip
    images = int(rng.choice([1, 1, 2, 3]))
    shape = (images * int(rng.integers(9, 14)), int(rng.integers(9, 14)), channels)
    own = channels // groups
    taps = (filters, *kernel, own)
    tensors = {"x": Tensor("x", shape, images=images)}
    steps = []

    def on_grid(name: str, source: str, of: tuple[int, int, int]) -> dict[str, int]:
        zero = int(rng.integers(-50, 50))
        tensors[name] = Tensor(name, of, "int8", images=images)
        steps.append(Step("quantize", [source], [name], about={"scale": 0.02, "zero": zero}))
        return {"x_zero": zero}

    if kind == "pool":
        about |= {"groups": 1, "largest": int(rng.integers(0, 2)), "whole": int(rng.integers(0, 2))}
        about["pads"] = (0, 0, 0, 0)
        out = outputs(tensors["x"], about, channels)
        about |= on_grid("q", "x", shape)
        m, shift = multiplier(float(rng.uniform(0.1, 3)))
        about |= {"m": m, "shift": shift, "y_zero": int(rng.integers(-50, 50))}
        tensors |= {"p": Tensor("p", out, "int8"), "y": Tensor("y", out)}
        steps.append(Step("pool_i8", ["q"], ["p"], about=about))
        steps.append(Step("dequantize", ["p"], ["y"], about={"scale": 0.5, "zero": 3}))
        return Network(steps, tensors, "x", "y")
    out = outputs(tensors["x"], about, filters)
    tensors["y"] = Tensor("y", out)
    if kind == "int8":
        about |= on_grid("q", "x", shape)
        pairs = [multiplier(float(v)) for v in rng.uniform(1e-4, 0.01, filters)]
        tensors["p"] = Tensor("p", out, "int8")
        constants = {
            "w": rng.integers(-127, 128, taps).astype(np.int8),
            "b": rng.integers(-9999, 9999, filters).astype(np.int32),
            "m": np.array([m for m, _ in pairs], np.int32),
            "shift": np.array([k for _, k in pairs], np.uint8),
        }  # fmt: skip
        limits = {"y_zero": int(rng.integers(-50, 50)), "low": -100, "high": 127}
        steps.append(Step("conv_i8", ["q"], ["p"], constants, about | limits))
        steps.append(Step("dequantize", ["p"], ["y"], about={"scale": 0.5, "zero": 3}))
        return Network(steps, tensors, "x", "y")
    tensors |= {"bits": Tensor("bits", shape, "bits", images=images), "more": Tensor("more", out)}
    real = {n: rng.normal(size=filters).astype(np.float32) for n in codegen.AFTER[:6]}
    flip = rng.integers(0, 2, filters).astype(np.uint8)
    constants = {"w": words(rng.integers(0, 2, taps).astype(bool))}
    if rng.integers(0, 2):
        constants["mask"] = words(rng.random(taps) < 0.6)
    borders = {"least": rng.normal(size=channels).astype(np.float32),
               "flip": rng.integers(0, 2, channels).astype(np.uint8)}  # fmt: skip
    steps.append(Step("binarize", ["x"], ["bits"], borders))
    steps.append(Step("conv_bits", ["bits"], ["more"], {**constants, **{
        r: real[r] for r in ("scale", "bias")}}, about | {"real": True}))  # fmt: skip
    tensors["b2"] = Tensor("b2", out, "bits")
    whole = {**constants, **real, "flip": flip}
    steps.append(Step("conv_bits", ["bits", "more"], ["y", "b2"], whole, about | {"real": True}))
    return Network(steps, tensors, "x", "y")


@pytest.mark.parametrize("kind", ["int8", "pool", "bits"])
def test_random_layers_are_equal_to_the_reference_bit_for_bit(kind: str, tmp_path: Path) -> None:
    """Many layers in one library: a compiler takes longer than they do."""
    rng = np.random.default_rng(0)
    nets, program = [some_step(rng, kind) for _ in range(12)], []
    flags = ["-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    for i, net in enumerate(nets):
        x = rng.normal(size=(2, *net.tensors["x"].shape)).astype(np.float32)
        wanted = np.stack([reference.run(net, v)["y"].reshape(-1) for v in x])
        folder = tmp_path / str(i)
        folder.mkdir()
        for name, text in codegen.files(net, (x, wanted), "layer", "y").items():
            (folder / name).write_text(text)
        assert "#define GOLDEN_EXACT 1" in (folder / "golden.h").read_text()
        out = str(folder / "test")
        sources = [str(folder / n) for n in ("main.c", "model.c")]
        program.append((out, [str(build.compiler()), *flags, *sources, "-o", out]))
    for out, command in program:
        subprocess.run(command, check=True)
        done = subprocess.run([out], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("family", CROSS)
@pytest.mark.parametrize("kind", ["int8", "bits"])
def test_other_processors_give_the_golden_vectors(family: str, kind: str, tmp_path: Path) -> None:
    cc, emulator = CROSS[family]
    if not shutil.which(cc) or not shutil.which(emulator):
        pytest.skip(f"no {cc} or {emulator}")
    compile(made("residual", kind, tmp_path), C, tmp_path / "c")
    command = ["make", "-s", f"CC={cc}", "CFLAGS=-O2 -static -Werror", "model_test"]
    subprocess.run(command, cwd=tmp_path / "c", check=True)
    done = subprocess.run(
        [emulator, str(tmp_path / "c" / "model_test")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "golden 4 of 4" in done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_takes_the_compiler_that_it_is_given(tmp_path: Path) -> None:
    """What another compiler made before is no proof of this one."""
    compile(made("lenet", "int8", tmp_path / "graph"), C, tmp_path / "out")
    make = ["make", "-C", str(tmp_path / "out"), "check"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout
    again = subprocess.run([*make, "CC=no-such-cc"], capture_output=True, text=True, check=False)
    assert again.returncode != 0


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("kind", ["fp32", "int8", "bits"])
def test_compilers_have_nothing_to_say(cc: str, kind: str, tmp_path: Path) -> None:
    if not shutil.which(cc):
        pytest.skip(f"no {cc}")
    compile(made("residual", kind, tmp_path), C, tmp_path / "c")
    sanitize = "-fsanitize=address,undefined -fno-sanitize-recover" if cc == "gcc" else ""
    flags = f"CFLAGS=-O1 -Werror -pedantic {sanitize}"
    done = subprocess.run(
        ["make", "-s", f"CC={cc}", flags, "check"],
        cwd=tmp_path / "c",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = "equal" if kind == "int8" else "within"
    assert f"golden 4 of 4 {kinds}" in done.stdout


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), min_size=2, max_size=12))
@settings(max_examples=200, deadline=None)
def test_tensors_that_live_at_one_time_never_overlap(layers: list[tuple[int, int]]) -> None:
    tensors = {"t0": Tensor("t0", (1, 1, 4))}
    steps = []
    for i, (channels, back) in enumerate(layers, 1):
        tensors[f"t{i}"] = Tensor(f"t{i}", (1, 1, channels))
        reads = {f"t{i - 1}", f"t{max(0, i - 1 - back)}"}
        steps.append(Step("add_f32", sorted(reads), [f"t{i}"]))
    net = Network(steps, tensors, "t0", f"t{len(layers)}")
    places, size = plan(net)
    alive = lives(net)
    for a in places:
        assert places[a] % 8 == 0
        assert places[a] + tensors[a].size_bytes <= size
        for b in places:
            apart = alive[a][1] < alive[b][0] or alive[b][1] < alive[a][0]
            clear = (
                places[a] + tensors[a].size_bytes <= places[b]
                or places[b] + tensors[b].size_bytes <= places[a]
            )
            assert a == b or apart or clear


@given(st.floats(1e-6, 100.0))
def test_a_multiplier_is_the_ratio(ratio: float) -> None:
    m, shift = multiplier(ratio)
    assert abs(m / 2.0**shift / ratio - 1) < 2**-30
    assert 2**30 <= m < 2**31


def test_a_network_that_does_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    small = C.model_copy(update={"name": "tiny", "memory_kb": 4})
    with pytest.raises(UnsupportedError, match=r"tiny: needs [\d,]+ bytes of memory, .* 4,096"):
        compile(made("residual", "fp32", tmp_path), small, tmp_path / "c")
    small = C.model_copy(update={"flash_kb": 1})
    with pytest.raises(UnsupportedError, match="bytes of constants"):
        compile(made("residual", "fp32", tmp_path), small, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_an_operator_without_a_kernel_is_named(tmp_path: Path) -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(x).mean((2, 3))

    graph = export_onnx(Turned(), torch.zeros(1, 3, 8, 8), tmp_path)
    with pytest.raises(UnsupportedError, match="Sin has no C kernel"):
        compile(graph, C, tmp_path / "c")


@pytest.mark.parametrize("name", ["a/b:0", "bn;1", 'a.b[0] "x"', "模型 %5"])
@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1)])
def test_tensors_keep_the_names_that_the_file_gives_them(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """A bundle calls its answers by them: other names would be other tensors."""
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("GlobalAveragePool", [f"in {name}"], ["p"]),
             helper.make_node("Reshape", ["p", "s"], [name])]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(f"in {name}", kind.FLOAT, (1, 5, 8, 8))],
        [helper.make_tensor_value_info(name, kind.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.array(shape, np.int64), "s")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "n.onnx")
    loaded = load_onnx(tmp_path / "n.onnx", tmp_path / "onnx")
    compiled = compile(loaded, C, tmp_path / "c")
    session = Session({n: (tmp_path / "c" / n).read_bytes() for n in compiled.files})
    assert [t.name for t in (*session.inputs, *session.outputs)] == [f"in {name}", name]


def test_layers_that_run_in_float_have_names(tmp_path: Path) -> None:
    compiled = compile(made("lenet", "fp32", tmp_path), C, tmp_path / "c")
    session = Session({n: (tmp_path / "c" / n).read_bytes() for n in compiled.files})
    names = [layer.layer for layer in float_layers(session)]
    assert len(names) == session.executed()["fp32"]
    assert all(names)


def test_a_damaged_file_is_an_error_in_a_line(tmp_path: Path) -> None:
    compiled = compile(made("residual", "int8", tmp_path), C, tmp_path / "c")
    files = {n: (tmp_path / "c" / n).read_bytes() for n in compiled.files}
    with pytest.raises(EngineError) as caught:
        Session({**files, "model.c": files["model.c"][: len(files["model.c"]) // 2]})
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="not written by edgecv"):
        Session({"model.c": b"int nothing;"})
    net = Session(files)
    with pytest.raises(EngineError, match="feed the shapes"):
        net.run({"input": np.zeros((1, 3, 16, 16), np.float32)})


def test_source_of_another_s_making_is_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile(made("lenet", "fp32", tmp_path / "graph"), C, tmp_path / "out")
    files = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    for value in (None, "0", "yes"):
        monkeypatch.delenv(source_trust.VARIABLE, raising=False)
        if value:
            monkeypatch.setenv(source_trust.VARIABLE, value)
        with pytest.raises(TrustError, match="source code") as refused:
            Session(files)
        assert "EDGECV_TRUST_SOURCE=1" in refused.value.hint
        with source_trust.own():
            Session(files)
            assert source_trust.passed() == {source_trust.VARIABLE: "1"}
        assert source_trust.passed() == {}


def test_trust_is_a_thread_s_own_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(source_trust.VARIABLE, raising=False)
    first, second = source_trust.own(), source_trust.own()
    with first:
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(source_trust.given).result()
        with second:
            assert source_trust.given()
        assert source_trust.given()
    assert not source_trust.given()
    assert source_trust.VARIABLE not in os.environ


def test_without_a_compiler_the_code_is_written_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = made("residual", "int8", tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert not probe().available
    compiled = compile(graph, C, tmp_path / "c")
    assert (tmp_path / "c" / "model.c").is_file()
    files = {n: (tmp_path / "c" / n).read_bytes() for n in compiled.files}
    with pytest.raises(MissingExtraError, match="CC names 'no-such-compiler'"):
        Session(files)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="no C compiler"):
        Session(files)
