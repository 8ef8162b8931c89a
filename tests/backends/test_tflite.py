"""LiteRT: what a session says of a file, what it computes, what it refuses."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv import target
from edgecv.backends.tflite import profiler
from edgecv.backends.tflite.compile import compile
from edgecv.backends.tflite.profile import Operator, matched, operators
from edgecv.backends.tflite.profiler import Event
from edgecv.backends.tflite.run import COMPUTE, Session, probe
from edgecv.errors import DataError, EngineError, ModelError, UnsupportedError
from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.quantize._tflite_measured import measure_tflite
from edgecv.runtime.spec import Layer, Profile
from tests.backends.tflite_graphs import float_graph, images, int8_graph, torch_logits
from tests.calls import calls


def session(graph) -> Session:
    return Session({graph.path.name: graph.path.read_bytes()})


def test_probe_names_the_package_and_its_version():
    found = probe()
    assert found.available
    assert found.version
    assert found.version.startswith(("ai-edge-litert ", "tflite-runtime "))


def test_a_float_session_computes_what_pytorch_does():
    net = session(float_graph())
    (x,), (y,) = net.inputs, net.outputs
    assert (x.name, x.dtype, x.shape, x.layout) == ("input", "float32", (1, 24, 24, 3), "NHWC")
    assert (y.name, y.dtype, y.shape, y.layout) == ("logits", "float32", (1, 10), "NC")
    assert x.scale is None
    assert x.zero_point is None
    got = np.concatenate([net.run({"input": i[None]})["logits"] for i in images()])
    np.testing.assert_allclose(got, torch_logits(images()), atol=1e-5)


def test_results_are_fresh_arrays():
    net = session(float_graph())
    first = net.run({"input": images()[:1]})["logits"]
    kept = first.copy()
    net.run({"input": images()[1:2]})
    np.testing.assert_array_equal(first, kept)


def test_executed_is_read_from_the_engine():
    assert session(float_graph()).executed() == {"fp32": 6}
    assert session(int8_graph()).executed() == {"int8": 5, "fp32": 1}
    assert session(int8_graph("uint8")).executed() == {"int8": 6}


def test_xnnpack_takes_every_layer():
    assert session(int8_graph()).delegated() == 6


def test_integer_tensors_carry_their_grid():
    whole = session(int8_graph("uint8"))
    (x,), (y,) = session(int8_graph()).inputs, whole.outputs
    assert (x.dtype, y.dtype) == ("int8", "int8")
    assert x.scale == pytest.approx((images()[:16].max() - images()[:16].min()) / 255, rel=0.01)
    assert y.scale
    assert -128 <= y.zero_point <= 127


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"image": images()[:1]},
        {"input": images()[:2]},
        {"input": images()[:1].astype(np.float64)},
        {"input": None},
    ],
    ids=["missing", "misnamed", "two images", "float64", "none"],
)
def test_a_wrong_input_says_what_the_network_takes(feeds):
    with pytest.raises(DataError, match=r"takes input: float32 \(1, 24, 24, 3\), got"):
        session(float_graph()).run(feeds)


def test_a_strided_view_is_a_good_input():
    net, image = session(float_graph()), images()[:1]
    flipped = image[:, ::-1, ::-1]
    want = net.run({"input": np.ascontiguousarray(flipped)})["logits"]
    np.testing.assert_array_equal(net.run({"input": flipped})["logits"], want)


@pytest.mark.parametrize("content", [b"not a network", b""], ids=["text", "empty"])
def test_a_damaged_file_is_an_engine_error(content):
    with pytest.raises(EngineError, match=r"broken\.tflite: LiteRT refuses it"):
        Session({"broken.tflite": content})


def test_a_closed_session_says_so():
    net = session(float_graph())
    net.close()
    with pytest.raises(EngineError, match="closed"):
        net.run({"input": images()[:1]})


def test_the_wrapper_does_little():
    net, image = session(float_graph()), images()[:1]
    engine, x, y = net._engine, net._in[0][1], net._out[0][1]

    def bare():
        engine.set_tensor(x, image)
        engine.invoke()
        return {"logits": engine.get_tensor(y)}

    net.run({"input": image})
    assert calls(lambda: net.run({"input": image})) - calls(bare) < 10


@pytest.mark.parametrize("engine", ["tflite", "edgetpu"])
def test_the_device_side_needs_numpy_alone(engine):
    code = f"""
import sys
for name in ("torch", "pydantic", "rich", "yaml", "jax", "litert_torch", "ai_edge_quantizer"):
    sys.modules[name] = None
import edgecv.backends.{engine}.run as run
assert "ai_edge_litert" not in sys.modules
session = run.Session({{"m": open(sys.argv[1], "rb").read()}})
assert session.executed() == {{"int8": 5, "fp32": 1}}
assert run.probe().engine == "{engine}"
"""
    path = str(int8_graph().path)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Created TensorFlow Lite" not in done.stderr


def test_compile_copies_the_graph_and_loads_it(tmp_path: Path):
    graph = int8_graph()
    made = compile(graph, target.load("rpi5"), tmp_path)
    assert made.files == ("model.tflite",)
    assert made.compiled
    assert (tmp_path / "model.tflite").read_bytes() == graph.path.read_bytes()
    assert made.inputs == graph.inputs
    assert made.outputs == graph.outputs
    assert "ai-edge-litert" in made.versions


def test_compile_refuses_onnx(tmp_path: Path):
    onnx = replace(float_graph(), format="onnx")
    with pytest.raises(UnsupportedError, match=r"takes a \.tflite, got \.onnx"):
        compile(onnx, target.load("tflite"), tmp_path)


def test_compile_refuses_a_custom_operator(tmp_path: Path):
    model = flatbuffer.read(float_graph().path)
    model.operatorCodes[0].customCode = b"MyOwnConv"
    flatbuffer.write(model, tmp_path / "custom.tflite")
    graph = replace(float_graph(), path=tmp_path / "custom.tflite")
    with pytest.raises(UnsupportedError, match="MyOwnConv is not a builtin"):
        compile(graph, target.load("tflite"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 7, 400, 0.5, 0.9])
def test_a_truncated_file_is_a_model_error_or_an_engine_error(tmp_path: Path, keep):
    content = float_graph().path.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: keep if keep > 1 else int(keep * len(content))])
    graph = replace(float_graph(), path=tmp_path / "cut.tflite")
    with pytest.raises((ModelError, EngineError)):
        compile(graph, target.load("tflite"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_writing_what_was_read_changes_nothing_that_runs(tmp_path: Path):
    model = flatbuffer.read(int8_graph().path)
    flatbuffer.write(model, tmp_path / "again.tflite")
    again = Session({"m": (tmp_path / "again.tflite").read_bytes()})
    feeds = {"input": np.zeros((1, 24, 24, 3), np.int8)}
    want = session(int8_graph()).run(feeds)["logits"]
    np.testing.assert_array_equal(again.run(feeds)["logits"], want)


LAYERS = ["CONV_2D", "CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"]


def profiled(graph, runs: int = 5) -> Profile:
    net = session(graph)
    (x,) = net.inputs
    return net.profile({x.name: images()[:1].astype(x.dtype)}, runs)


def multiplying(profile: Profile) -> list[Layer]:
    words = ("Convolution", "Fully Connected")
    return [layer for layer in profile.layers if layer.op.startswith(words)]


@pytest.mark.parametrize(
    ("graph", "precision"), [(float_graph, {"fp32"}), (int8_graph, {"int8", "fp32"})]
)
def test_a_profile_has_the_files_operators_in_their_order(graph, precision):
    profile = profiled(graph())
    assert profile.reason == ""
    held = [op for op in operators(session(graph())._engine) if op.op in COMPUTE]
    assert [op.op for op in held] == LAYERS
    assert [x.name for x in multiplying(profile)] == [op.name for op in held]
    assert {x.precision for x in multiplying(profile)} == precision
    assert any(x.op.startswith("Add") for x in profile.layers)
    assert not any("Clamp" in x.op for x in profile.layers), "an activation has a row of its own"
    assert sum(x.time_ms for x in profile.layers) > 0


@pytest.mark.parametrize(("graph", "size"), [(float_graph, 4), (int8_graph, 1)])
def test_an_operators_bytes_by_hand(graph, size):
    """A 3x3 convolution, 16 channels of 24x24 in and out; the bias is 4 bytes wide in both."""
    conv = multiplying(profiled(graph()))[1]
    assert conv.bytes == size * (2 * 16 * 24 * 24 + 16 * 16 * 3 * 3) + 4 * 16


def test_a_layer_that_was_left_in_float_is_seen(tmp_path: Path):
    path = tmp_path / "mixed.tflite"
    path.write_bytes(mixed())
    profile = profiled(replace(float_graph(), path=path))
    assert [x.precision for x in multiplying(profile)] == ["int8"] * 5 + ["fp32"]


def mixed() -> bytes:
    """The float graph in int8 but for its dense layer, by ai_edge_quantizer itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

        work = quantizer.Quantizer(str(float_graph().path))
        names, by = qtyping.TFLOperationName, qtyping.QuantGranularity.CHANNELWISE
        never = algorithm_manager.AlgorithmName.NO_QUANTIZE
        work.add_static_config(".*", names.ALL_SUPPORTED, 8, 8, by)
        work.update_quantization_recipe(".*", names.FULLY_CONNECTED, algorithm_key=never)
        seen = {
            name: {
                "min": np.full((1, 1, 1, 1), low, "f4"),
                "max": np.full((1, 1, 1, 1), high, "f4"),
            }
            for name, (low, high) in measure_tflite(float_graph(), images()[:4]).spans.items()
        }
        made = work.quantize(seen, enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model)


@pytest.mark.parametrize("gone", ["not tried with", "has no libNone.so"])
def test_without_a_profiler_there_are_layers_and_a_reason(monkeypatch, gone):
    if gone.startswith("not"):
        monkeypatch.setattr(profiler, "TRIED", ("0.0.",))
    else:
        monkeypatch.setattr(profiler, "LIBRARY", "libNone.so")
    profile = profiled(int8_graph())
    assert gone in profile.reason
    assert [x.op for x in profile.layers if x.op in COMPUTE] == LAYERS
    assert {x.time_ms for x in profile.layers} == {None}
    ran = [x.precision for x in profile.layers if x.op in COMPUTE]
    assert ran == ["int8"] * 5 + ["fp32"]  # the last product's answers are float
    assert all(x.bytes for x in profile.layers)


@pytest.mark.parametrize("graph", [float_graph, int8_graph])
def test_what_is_profiled_answers_as_the_session_does(graph):
    net = session(graph())
    (x,), (y,) = net.inputs, net.outputs
    feeds = {x.name: images()[3:4].astype(x.dtype)}
    want = net.run(feeds)[y.name]
    with profiler.Profiler(graph().path.read_bytes(), threads=1) as profiled:
        profiled.feed(feeds)
        assert profiled.events()
        (buffer,), place = profiled._outputs.values(), ctypes.c_void_p()
        profiled._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(place), 0)
        got = np.frombuffer(ctypes.string_at(place, want.nbytes), want.dtype)
    np.testing.assert_array_equal(got, want.reshape(-1))


def test_a_profile_refuses_wrong_feeds():
    with pytest.raises(DataError, match="the network takes"):
        session(float_graph()).profile({"input": images()[:2]})


def op(name: str, kind: str) -> Operator:
    return Operator(name, kind, "fp32", 0, ())


def events(*tags: str, took_us: int = 1) -> list[Event]:
    return [Event(tag, took_us, None) for tag in tags]


def test_xnnpacks_operators_are_matched_to_the_files():
    held = [op("p", "PAD"), op("a", "CONV_2D"), op("b", "ADD"), op("c", "CONV_2D"), op("r", "RELU")]
    tags = ("Convolution (NHWC, F32) IGEMM", "Add (ND)", "Clamp (NC)",
            "Fully Connected (NC, F32) GEMM", "Clamp (NC)")  # fmt: skip
    rows = matched([events(*tags), events(*tags, took_us=3)], held)
    assert [row.operator.name for row in rows] == ["a", "b", "c", "r"], "PAD was fused away"
    assert [row.calls_us.tolist() for row in rows] == [[1, 3], [2, 6], [1, 3], [1, 3]]


def test_what_litert_ran_itself_is_known_by_its_place():
    held = [op("a", "CONV_2D"), op("m", "FLOOR_MOD"), op("c", "CONV_2D")]
    convolution = "Convolution (NHWC, F32) IGEMM"
    call = [*events(convolution), Event("FLOOR_MOD", 7, 1), Event("DELEGATE", 9, 3)]
    rows = matched([[*call, *events(convolution)]], held)
    assert [(row.operator.name, row.calls_us.tolist()) for row in rows] == [
        ("a", [1]),
        ("m", [7]),
        ("c", [1]),
    ]


@pytest.mark.parametrize("tags", [("Convolution (A) B",), ("Convolution (A) B",) * 3])
def test_nothing_is_matched_where_something_that_multiplies_is_left_over(tags):
    rows = matched([events(*tags)], [op("a", "CONV_2D"), op("b", "CONV_2D")])
    assert [row.operator for row in rows] == [None] * len(tags)
    assert [row.tag for row in rows] == list(tags)
