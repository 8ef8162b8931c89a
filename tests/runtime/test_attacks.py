"""Bundles made to hurt: they cost what their bytes cost, and read no other file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecv.errors import BundleError  # noqa: E402
from edgecv.runtime.archive import read_bundle, write_bundle  # noqa: E402
from edgecv.runtime.bundle import open_bundle  # noqa: E402
from edgecv.runtime.outside import points_outside  # noqa: E402
from tests.runtime.conftest import described, network  # noqa: E402
from tests.runtime.test_bundle import remade  # noqa: E402

ROOT = Path(__file__).parents[2]
READ = """
import resource, sys
from edgecv.errors import BundleError
from edgecv.runtime import open_bundle
limit = int(sys.argv[2]) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    open_bundle(sys.argv[1])
except BundleError as e:
    print("refused:", str(e)[:500])
"""


def shaped(shape: list[int]) -> Callable[[dict], None]:
    def change(manifest: dict) -> None:
        manifest["outputs"][0]["shape"], manifest["labels"] = shape, None

    return change


def put(key: str, value: Any) -> Callable[[dict], None]:
    """Set a key of the manifest, "input.preprocess.mean" one of an inner mapping."""

    def change(manifest: dict) -> None:
        *path, last = key.split(".")
        for part in path:
            manifest = manifest[part]
        manifest[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        shaped([1, 2**33]),
        shaped([1, 2**30]),
        put("labels", "x" * 10_000_000),
        put("files", "x" * 10_000_000),
        put("input.preprocess.mean", "1" * 10_000_000),
        put("input.preprocess.size", [2**31, 2**31]),
        put("notes", [[]] * 1_000_000),
        put("metric", {"value": 1, "samples": 2**60}),
        put("tools", {"a\x1b[2J": 5}),
    ],
)
def test_memory_is_bounded_by_the_file(make_bundle: Callable[..., Path], change) -> None:
    path = remade(make_bundle(), change)
    room = 1536 + 12 * (path.stat().st_size >> 20)  # what numpy and ONNX Runtime map, then the file
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(room)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:")
    assert len(done.stdout) < 600


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3), ("engine", "abacus"), ("task", "seeing"), ("scores", "both"), ("compiled", 1),
        ("executed", {"int8": -1}), ("metric", {"value": 2.0, "samples": 1}), ("labels", [1]),
        ("outputs", []), ("inputs", {}), ("input.name", "other"), ("files", ["../x"]),
        ("input.preprocess.scale", "big"), ("input.preprocess.extra", 1), ("members", {"a": 1}),
        ("input.preprocess.std", [0]), ("input.preprocess.mean", [True]), ("size_bytes", 0.5),
    ],
)  # fmt: skip
def test_every_key_has_a_type_and_a_range(make_bundle, key: str, value: Any) -> None:
    with pytest.raises(BundleError) as e:
        read_bundle(remade(make_bundle(), put(key, value)))
    assert "Error" not in str(e.value)


def elsewhere(place: str) -> bytes:
    """The network with a tensor in another file: an initializer's, a Constant's, a subgraph's."""
    model = onnx.load_model_from_string(network())
    if place == "initializer":
        tensor = model.graph.initializer[0]
    else:
        made = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "k")
        node = helper.make_node("Constant", [], ["k"], value=made)
        if place == "subgraph":
            out = helper.make_tensor_value_info("k", TensorProto.FLOAT, None)
            inner = helper.make_graph([node], "inner", [], [out])
            node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        model.graph.node.append(node)
        held = model.graph.node[-1].attribute[0]
        tensor = held.g.node[0].attribute[0].t if place == "subgraph" else held.t
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    tensor.ClearField("raw_data")
    return model.SerializeToString()


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_a_tensor_in_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\0" * (8 * 3 * 9 * 4))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="in another file"):
        write_bundle(tmp_path / "a.edgecv", described(), {"model.onnx": elsewhere(place)}, {}, {})
    assert points_outside("openvino", "model.xml", elsewhere(place)) == "is no OpenVINO .xml"


def test_a_tensor_that_is_called_location_is_no_other_file(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(network())
    for node in model.graph.node:
        node.name = f"location/{node.op_type}"
    files = {"model.onnx": model.SerializeToString()}
    open_bundle(write_bundle(tmp_path / "a.edgecv", described(), files, {}, {})).close()


def test_a_tflite_file_with_weights_beside_it_is_refused(tmp_path: Path) -> None:
    tools = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
    model, group = tools.schema_fb.ModelT(), tools.schema_fb.ExternalBufferGroupT()
    whole = bytes(tools.convert_object_to_bytearray(model))
    group.name, model.externalBufferGroups = b"weights.bin", [group]
    beside = bytes(tools.convert_object_to_bytearray(model))
    for engine in ("tflite", "edgetpu"):
        assert points_outside(engine, "model.tflite", whole) == ""
        assert "another file" in points_outside(engine, "model.tflite", beside)
    for cut in range(len(beside)):  # a damaged file is the engine's to refuse
        points_outside("tflite", "model.tflite", beside[:cut])
    data = {**described(), "engine": "tflite", "files": ["model.tflite"]}
    with pytest.raises(BundleError, match="in another file"):
        write_bundle(tmp_path / "a.edgecv", data, {"model.tflite": beside}, {}, {})


def test_a_whole_bundle_opens_under_that_limit(make_bundle: Callable[..., Path]) -> None:
    command = [sys.executable, "-c", READ, str(make_bundle()), "1536"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
