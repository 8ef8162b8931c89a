"""`edgecv export`: from whatever the user has to one bundle with the engine's files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.runtime import open_bundle
from edgecv.runtime.archive import read_bundle
from tests.runtime.conftest import network

FILES = {
    "cpu": {".onnx"},
    "openvino": {".xml", ".bin"},
    "tflite": {".tflite"},
    "edgetpu": {".tflite"},
    "tensorrt": {".engine", ".onnx"},  # the engine, and what another GPU would build from
}
# Each source and each target; the rest of the square is the same code.
EXPORTS = [
    ("folder", "cpu"), ("folder", "tflite"), ("onnx", "openvino"), ("onnx", "edgetpu"),
    ("function", "tensorrt"), ("zoo", "cpu"),
]  # fmt: skip
PIXELS = ("--mean", "127,120,110", "--std", "64")


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    path.write_bytes(network(size=24))
    return path


@pytest.fixture(scope="module")
def sources(model_folder: Path, onnx_file: Path) -> dict[str, tuple]:
    """What stands after `edgecv export`, by kind of source."""
    pytest.importorskip("torch")
    return {
        "folder": (model_folder, "--trust"),
        "onnx": (onnx_file, *PIXELS),
        "function": ("mynet:make", "--arg", "width=32", "--input-size", "24", *PIXELS),
        "zoo": ("resnet8", "--arg", "width=16", "--input-size", "24", *PIXELS),
    }


def bundle_in(out: Path) -> Path:
    """The one bundle below a folder."""
    (found,) = out.rglob("*.edgecv")
    assert found.parent == out
    return found


@pytest.mark.parametrize(("source", "target"), EXPORTS)
def test_export_writes_one_bundle_beside_the_engines_files(
    edgecv: Callable, project: Path, sources: dict, tmp_path: Path, source: str, target: str
) -> None:
    done = edgecv(
        "export", *sources[source], "--target", target, "--precision", "int8",
        "--calibration", "images/train", "--out", tmp_path, cwd=project,
    )  # fmt: skip
    assert done.code == 0, done.err
    path = bundle_in(tmp_path)
    contents = read_bundle(path)
    beside = {p.suffix: p.read_bytes() for p in tmp_path.iterdir() if p != path}
    assert beside.keys() == FILES[target]
    assert sorted(beside.values()) == sorted(contents.files.values())
    assert {p.stem for p in tmp_path.iterdir()} == {path.stem}

    manifest = contents.manifest
    assert (manifest["target"], manifest["precision"]) == (target, "int8")
    preprocess = manifest["input"]["preprocess"]
    assert preprocess["size"] == [24, 24]
    mine = source == "folder"  # a Model folder knows its own; the others were told
    assert preprocess["mean"] == ([120.0] if mine else [127.0, 120.0, 110.0])
    assert preprocess["std"] == ([60.0] if mine else [64.0])
    assert preprocess["crop_pct"] == (0.9 if mine else 0.875)
    assert preprocess["interpolation"] == ("bilinear" if mine else "bicubic")
    assert manifest["labels"] == (["ant", "bee", "cat"] if mine else None)
    assert manifest["metric"] is None  # nobody gave labelled images
    for name in (path, *FILES[target]):
        assert str(name) in done.out
    if target == "tensorrt":  # runs on a GPU alone
        assert "int8" in manifest["executed"] or "not run here: " in done.out
        return
    floats = {"fp32"} if target == "tflite" else set()  # the last product, for its answers
    assert set(manifest["executed"]) == {"int8", *floats}
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    best, *rest = open_bundle(path)(image)
    assert 0 < best.score <= 1
    assert all(best.score >= other.score for other in rest)
    if mine:
        assert best.label in ("ant", "bee", "cat")


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_fp32_needs_no_images(
    edgecv: Callable, onnx_file: Path, tmp_path: Path, target: str
) -> None:
    done = edgecv("export", onnx_file, "--target", target, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["executed"].keys() == {"fp32"}
    assert facts["bundle"] == str(bundle_in(tmp_path))
    assert {Path(f).suffix for f in facts["files"]} == FILES[target]
    # It is the user's network that was compiled: ONNX Runtime on the user's file says the same.
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(0, 1, (1, 3, 24, 24)).astype(np.float32)
    (found,) = open_bundle(tmp_path / f"net-fp32.{target}.edgecv").run({"image": x}).values()
    np.testing.assert_allclose(found, session.run(None, {"image": x})[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["classification", "none"])
def test_best_classes_are_told_of_a_classifier_alone(
    edgecv: Callable, onnx_file: Path, project: Path, tmp_path: Path, task: str
) -> None:
    pytest.importorskip("onnxruntime")
    done = edgecv(
        "export", onnx_file, "--target", "cpu", "--precision", "int8", "--task", task,
        "--calibration", project / "images" / "train", "--out", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    (line,) = [s for s in done.out.splitlines() if s.startswith("against float: SQNR")]
    assert ("top-1 agreement" in line) == (task == "classification")


def test_everything_asked_for_is_recorded(edgecv: Callable, project: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "names.txt").write_text("Ameise\nBiene\nKätzchen\n", encoding="utf-8")
    done = edgecv(
        "export", "mynet:make", "--target", "cpu", "--input-size", "20x28", "--mean", "127",
        "--std", "128", "--crop-pct", "1.0", "--interpolation", "nearest", "--name", "shoe",
        "--labels", tmp_path / "names.txt", "--out", tmp_path / "out", cwd=project,
    )  # fmt: skip
    assert done.code == 0, done.err
    path = bundle_in(tmp_path / "out")
    assert path.name == "shoe.edgecv"
    manifest = read_bundle(path).manifest
    preprocess = manifest["input"]["preprocess"]
    assert preprocess["size"] == [20, 28]
    assert (preprocess["mean"], preprocess["std"]) == ([127.0], [128.0])
    assert (preprocess["crop_pct"], preprocess["interpolation"]) == (1.0, "nearest")
    assert manifest["labels"] == ["Ameise", "Biene", "Kätzchen"]
    assert open_bundle(path)(np.zeros((9, 9, 3), np.uint8))[0].label in manifest["labels"]


def test_a_model_folder_of_a_run_exports_with_its_own_preprocessing(
    edgecv: Callable, finished, tmp_path: Path
) -> None:
    folder = finished.out / "models" / "dense"
    done = edgecv(
        "export", folder, "--trust", "--target", "cpu", "--out", tmp_path, cwd=finished.folder
    )
    assert done.code == 0, done.err
    exported = read_bundle(bundle_in(tmp_path))
    ran = read_bundle(finished.out / "bundles" / "dense.cpu.edgecv")
    assert exported.manifest["input"] == ran.manifest["input"]
    assert exported.manifest["labels"] == ran.manifest["labels"]
    assert exported.files == ran.files  # the same network, to the byte


def test_weights_beside_an_onnx_file_come_along(edgecv: Callable, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(network(size=24))
    onnx.save_model(
        model, str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.weights",
        size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "big.weights").exists()
    done = edgecv("export", tmp_path / "big.onnx", "--target", "cpu", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(network(size=24))
    done = edgecv("export", plain, "--target", "cpu", "--out", tmp_path / "other")
    assert done.code == 0, done.err
    feeds = {"image": np.random.default_rng(0).normal(0, 1, (1, 3, 24, 24)).astype(np.float32)}
    one, other = (open_bundle(bundle_in(tmp_path / name)).run(feeds) for name in ("out", "other"))
    np.testing.assert_array_equal(one["scores"], other["scores"])


def test_exporting_again_replaces_what_was_there(
    edgecv: Callable, onnx_file: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        done = edgecv("export", onnx_file, "--target", "cpu", "--out", tmp_path)
        assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "net-fp32.cpu.edgecv",
        "net-fp32.cpu.onnx",
    ]


def test_several_targets_share_what_they_can_and_end_in_a_table(
    edgecv: Callable, project: Path, onnx_file: Path, tmp_path: Path
) -> None:
    def exported(targets: str, out: Path, *more: str) -> Any:
        return edgecv(
            "export", onnx_file, *PIXELS, "--target", targets, "--precision", "int8",
            "--calibration", "images/train", "--out", out, *more, cwd=project,
        )  # fmt: skip

    done = exported("openvino,cpu", tmp_path / "both")
    assert done.code == 0, done.err
    assert done.err.count("float graph, ONNX") == 1
    rows = [line.split()[0] for line in done.out.splitlines() if ".edgecv" in line]
    assert rows == ["openvino", "cpu"]
    assert "top-1" not in done.out.splitlines()[0]  # no labels: no column of nothing
    for target in rows:
        assert exported(target, tmp_path / target).code == 0
        name = f"net-int8.{target}.edgecv"
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / target / name).read_bytes()
    told = json.loads(exported("cpu,openvino", tmp_path / "json", "--json").out)["targets"]
    assert [row["target"] for row in told] == ["cpu", "openvino"]
    assert all(Path(row["bundle"]).is_file() for row in told)


def test_a_target_that_gets_no_bundle_leaves_the_others_theirs(
    edgecv: Callable, tmp_path: Path
) -> None:
    given = ("export", "resnet8", "--arg", "width=16", "--input-size", "96", "--trust", "--out")
    done = edgecv(*given, tmp_path, "--target", "cortex-m4,cpu")
    assert done.code == 2
    assert "no bundle for cortex-m4: cortex-m4: needs" in done.out
    assert [p.name for p in tmp_path.glob("*.edgecv")] == ["resnet8-fp32.cpu.edgecv"]
    alone = edgecv(*given, tmp_path / "alone", "--target", "cortex-m4")
    assert (alone.code, alone.err.count("error: cortex-m4: needs")) == (2, 1)
    assert not (tmp_path / "alone").exists()
    for wrong, told in (("cpu,,c", "names no target"), ("cpu,nonesuch", "unknown target")):
        done = edgecv(*given, tmp_path / "wrong", "--target", wrong)
        assert (done.code, done.err.count(told)) == (2, 1)


def test_a_measurement_that_fails_is_the_error_and_not_a_limit_missed(
    edgecv: Callable, onnx_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "targets").mkdir()
    away = "extends: cpu\nruns_on_host: false\ndevice: ssh://nobody@127.0.0.1:9\n"
    (tmp_path / "targets" / "far.yaml").write_text(away)
    done = edgecv(
        "export", onnx_file, *PIXELS, "--target", "far", "--latency-ms", "5",
        "--out", tmp_path / "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.code != 0
    assert "error:" in done.err
    assert "127.0.0.1" in done.err
    assert not (tmp_path / "out").exists()


def test_weights_of_a_file_are_those_that_ship(
    edgecv: Callable, project: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    mynet = {}
    exec((project / "mynet.py").read_text(), mynet)
    network = mynet["make"](width=32).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(generator=torch.Generator().manual_seed(len(value)))
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "best.pt")
    done = edgecv(
        "export", "mynet:make", "--arg", "width=32", "--weights", tmp_path / "best.pt",
        "--input-size", "24", "--target", "cpu", "--out", tmp_path / "out", cwd=project,
    )  # fmt: skip
    assert done.code == 0, done.err
    x = np.random.default_rng(0).normal(size=(1, 3, 24, 24)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    session = open_bundle(bundle_in(tmp_path / "out")).session
    found = session.run({session.inputs[0].name: x})[session.outputs[0].name]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_recipe_pins_an_open_file_and_keeps_one_of_its_heads(
    edgecv: Callable, project: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(network(size=24))
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", 1, None))
    for axis, name in ((0, "n"), (2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, str(tmp_path / "open.onnx"))
    images = project / "images" / "train"
    (tmp_path / "recipe.yaml").write_text(f"""
model: {{onnx: open.onnx, input: {{image: 1x3x24x24}}, output: [scores]}}
data: {{train: 'images:{images}', test: 'images:{images}', size: 24}}
stages: [export]
targets: [cpu]
""")
    done = edgecv("run", "recipe.yaml", "--out", "out", cwd=tmp_path)
    assert done.code == 0, done.err
    (bundle,) = (tmp_path / "out" / "bundles").glob("*.edgecv")
    assert [t.name for t in open_bundle(bundle).outputs] == ["scores"]


LOADED = """
import torch
from torch import nn


def drawn():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def loaded():
    net = drawn()
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) + i)
    return net
"""


def test_random_weights_are_not_passed_over(edgecv: Callable, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "builders.py").write_text(LOADED)
    for name, warned in (("drawn", True), ("loaded", False)):
        words = ("--target", "cpu", "--precision", "fp32", "--input-size", "8", "--task", "none")
        done = edgecv("export", f"builders:{name}", *words, "--out", name, cwd=tmp_path)
        assert done.code == 0, done.err
        said = done.out + done.err
        sentence = (
            f"the weights of builders:{name} are random (built twice, 0.weight and 1 more differ)"
        )
        assert (sentence in said) == warned


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("nets/mine.onxx", "nets/mine.onxx: no such file or folder (did you mean 'nets/mine.onnx'"),
        ("nets/mane.onnx", "nets/mane.onnx: no such file (did you mean 'nets/mine.onnx'"),
        ("none/a.tflite", "none/a.tflite: no such file (there is no folder none)"),
        ("other.onnx", "other.onnx: no such file (looked up in the working folder)"),
    ],
)
def test_a_file_that_is_not_there_is_named_as_it_was_given(
    edgecv: Callable, tmp_path: Path, asked: str, said: str
) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/mine.onnx").write_bytes(network(size=24))
    done = edgecv("export", asked, "--target", "cpu", "--out", "out", cwd=tmp_path)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "out").exists()
