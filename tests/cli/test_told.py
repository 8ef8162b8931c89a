"""What `edgecv export` says of a task's file where something is missing, odd or wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")
pytest.importorskip("PIL")

import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.cli.test_detectors import SIDE, _network

QUERIES = 10


def saved(path: Path, nodes: list[Any], outputs: dict[str, list[int]], **held: np.ndarray) -> Path:
    """An .onnx file of one image (1, 3, SIDE, SIDE)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in {"image": [1, 3, SIDE, SIDE], **outputs}.items()]  # fmt: skip
    constants = [numpy_helper.from_array(v, name) for name, v in held.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def photographs(folder: Path, count: int = 4) -> Path:
    for n in range(count):
        level = 40 + 150 * n // (count - 1)
        (folder / "photos").mkdir(exist_ok=True)
        pixels = np.full((SIDE, SIDE, 3), level, np.uint8)
        pixels[: 4 + n] //= 2
        Image.fromarray(pixels).save(folder / "photos" / f"{n}.png")
    return folder / "photos"


def export(edgecv: Callable, folder: Path, *more: str) -> Any:
    return edgecv("export", "net.onnx", "--target", "cpu", "--out", "out", *more, cwd=folder)


def error(done: Any) -> str:
    (line,) = [x for x in done.err.splitlines() if x.startswith("error:")]
    return str(line)


def test_a_network_that_says_nan_is_told_so(edgecv: Callable, tmp_path: Path) -> None:
    """The root of what is less than nothing on dark pictures."""
    half = np.array(0.3, np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["each"]),
        helper.make_node("Sub", ["each", "half"], ["less"]),
        helper.make_node("Sqrt", ["less"], ["root"]),
        helper.make_node("Flatten", ["root"], ["z"]),
    ]
    saved(tmp_path / "net.onnx", nodes, {"z": [1, 3]}, half=half)
    photographs(tmp_path)
    line = error(export(edgecv, tmp_path, "--calibration", "photos", "--precision", "fp32"))
    assert "the network itself answers NaN or infinity: 'z' on " in line
    assert "of 4 images" in line
    assert "are mean, std and units as in training?" in line
    assert "calibration" not in line  # there is none in fp32


def test_boxes_may_be_two_of_five_outputs(edgecv: Callable, tmp_path: Path) -> None:
    """A DETR with its features and its auxiliary heads beside."""
    rng = np.random.default_rng(0)
    shapes = {"features": (1, 7, 4), "aux_logits": (1, QUERIES, 3), "aux_boxes": (1, QUERIES, 4),
              "logits": (1, QUERIES, 3), "boxes": (1, QUERIES, 4)}  # fmt: skip
    nodes: list[Any] = [
        helper.make_node("GlobalAveragePool", ["image"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["mean4"], axes=[1], keepdims=1),
        helper.make_node("Reshape", ["mean4", "one"], ["mean"]),
    ]
    held = {"one": np.array([1, 1, 1])}
    for name, shape in shapes.items():
        held[f"{name}_by"] = rng.uniform(0.1, 0.5, shape).astype(np.float32)
        nodes.append(helper.make_node("Mul", ["mean", f"{name}_by"], [name]))
    saved(tmp_path / "net.onnx", nodes, {n: [*s] for n, s in shapes.items()}, **held)
    photographs(tmp_path)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    shared = ("--calibration", "photos", "--precision", "fp32", "--labels", "names.txt")
    unsaid = export(edgecv, tmp_path, *shared, "--decoder", "detr")
    assert unsaid.code == 2
    assert "--decode outputs=" in error(unsaid)
    done = export(edgecv, tmp_path, *shared, "--decoder", "detr", "--decode",
                  "outputs=[logits, boxes]", "--decode", "max_detections=4")  # fmt: skip
    assert done.code == 0, done.err
    from edgecv.runtime import open_bundle

    (path,) = (tmp_path / "out").glob("*.edgecv")
    bundle = open_bundle(path)
    assert bundle.task.outputs == ("logits", "boxes")
    assert len(bundle(np.full((SIDE, SIDE, 3), 200, np.uint8), confidence=0.0)) == 4


def test_how_a_task_reads_is_checked(edgecv: Callable, tmp_path: Path) -> None:
    onnx.save(_network(), tmp_path / "net.onnx")
    for given, line in (
        (("--decode", "outputs"), "--decode outputs: is not of the form key=value"),
        (("--decoder", "end2end", "--decode", "decoder=yolox"), "is said twice"),
        (("--decode", "sharpness=2"), "--decode sharpness: no task is given"),
        (("--decode", "threshold=2"), "say --task binary or --task multilabel"),
        (("--decoder", "end2end", "--decode", "iou=2"), "decode.iou 2 is wrong: 0 to 1"),
        (("--task", "segmentation", "--decoder", "yolox"), "task segmentation has none"),
        (("--task", "none", "--decoder", "yolox"), "task none has none (say --task detection"),
    ):
        done = export(edgecv, tmp_path, *given)
        assert done.code == 2, given
        assert line in error(done)


@pytest.mark.parametrize(
    ("nodes", "shape", "labels", "said", "line"),
    [
        ("each", [1, 3, SIDE, SIDE], "a b", (), "2 names are given, and net.onnx has 3 classes"),
        ("one", [1, 1, SIDE, SIDE], "a b", (), "say --decode holds=logit, holds=probability"),
        ("one", [1, 1, SIDE, SIDE], "a b c", ("--decode", "holds=logit"),
         "z has 1 channel, which tells 2 classes apart, and there are 3"),
        ("one", [1, 1, SIDE, SIDE], "a", ("--decode", "holds=logit"), "name both"),
        ("one", [1, 1, SIDE, SIDE], "a b", ("--decode", "holds=logit"), ""),
        ("sigmoid", [1, 1, SIDE, SIDE], "a b", (), ""),
    ],
)  # fmt: skip
def test_channels_that_are_no_classes(
    edgecv: Callable, tmp_path: Path, nodes: str, shape: list[int], labels: str,
    said: tuple[str, ...], line: str,
) -> None:  # fmt: skip
    last = "image" if nodes == "each" else "less"
    made = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["mean", "half"], ["less"])]  # fmt: skip
    end = "Sigmoid" if nodes == "sigmoid" else "Identity" if nodes == "one" else "Relu"
    made = [*(made if nodes != "each" else []), helper.make_node(end, [last], ["z"])]
    saved(tmp_path / "net.onnx", made, {"z": shape}, half=np.array(0.4, np.float32))
    photographs(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(labels.split()))
    done = export(edgecv, tmp_path, "--task", "segmentation", "--labels", "names.txt",
                  "--calibration", "photos", "--precision", "fp32", "--resize", "none",
                  *said)  # fmt: skip
    if line:
        assert done.code == 2
        assert line in error(done)
        return
    assert done.code == 0, done.err
    from edgecv.runtime import open_bundle

    (path,) = (tmp_path / "out").glob("*.edgecv")
    picture = np.full((SIDE, SIDE, 3), 200, np.uint8)
    picture[:, : SIDE // 2] = 50
    # of the sigmoid 0.5 is where the picture has 0.4, as of the logit 0
    assert (open_bundle(path)(picture) == (picture[..., 0] > 102)).all()


def test_a_sigmoid_is_not_taken_twice(edgecv: Callable, tmp_path: Path) -> None:
    """A binary file that ends in a probability, in fp32 and in int8."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["conv"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["less"]),
        helper.make_node("Sigmoid", ["less"], ["p"]),
    ]
    w = np.zeros((1, 3, 3, 3), np.float32)
    w[:, :, 1, 1] = 4.0
    saved(tmp_path / "net.onnx", nodes, {"p": [1, 1]}, w=w, half=np.array(6.0, np.float32))
    photographs(tmp_path, 8)
    from edgecv.runtime import open_bundle

    dark = np.full((SIDE, SIDE, 3), 60, np.uint8)
    p = 1 / (1 + np.exp(6 - 12 * 60 / 255))
    for precision in ("fp32", "int8"):
        done = export(edgecv, tmp_path, "--task", "binary", "--calibration", "photos",
                      "--precision", precision, "--name", precision)  # fmt: skip
        assert done.code == 0, done.err
        bundle = open_bundle(tmp_path / "out" / f"{precision}.edgecv")
        assert bundle.task.scores == "probabilities"
        assert bundle(dark)[0].index == 0
        assert bundle(dark)[1].score == pytest.approx(p, abs=0.02)
