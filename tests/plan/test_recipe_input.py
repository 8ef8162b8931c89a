"""Recipes without labels: what the network's file says is taken, what needs labels is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv import stages
from edgecv.errors import RecipeError
from edgecv.limits import Limits
from edgecv.plan import recipe, recipe_input
from edgecv.plan.graph import Expansion
from edgecv.plan.recipe_input import with_tables

onnx = pytest.importorskip("onnx")

TEXT = """\
model: net.onnx
data: {images: photos}
stages:
  - quantize: {name: small}
targets: [cpu]
"""


def write_network(path: Path, *more: str) -> None:
    """Image (1, 3, 16, 24) in, a map out; more: names of inputs (1, 4)."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", "w"], ["map"], pads=[1, 1, 1, 1])]
    nodes += [helper.make_node("Relu", [name], [f"{name}_out"]) for name in more]
    outputs = [("map", [1, 2, 16, 24]), *((f"{name}_out", [1, 4]) for name in more)]
    inputs = [("image", [1, 3, 16, 24]), *((name, [1, 4]) for name in more)]
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side]
             for side in (inputs, outputs)]  # fmt: skip
    graph = helper.make_graph(nodes, "net", *infos, [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """load(old, new, ...) -> the recipe of TEXT with that replaced, in a folder with net.onnx."""
    image = pytest.importorskip("PIL.Image")
    write_network(tmp_path / "net.onnx")
    write_network(tmp_path / "two.onnx", "state")
    (tmp_path / "photos").mkdir()
    for i in range(4):
        image.new("RGB", (20, 20), (i, i, i)).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)

    def loaded(*changes: str) -> recipe.Recipe:
        text = TEXT
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert text.count(old) == 1
            text = text.replace(old, new)
        Path("my.yaml").write_text(text)
        return recipe.load(Path("my.yaml"))

    return loaded


def test_a_file_says_its_size_and_channels_and_pixels_are_scaled_as_by_export(load) -> None:
    found = load()
    assert found.data.height_width == (16, 24)
    assert found.data.channels == 3
    assert (found.data.mean, found.data.std) == ((0.0,), (1.0,))
    assert any("scaled to 0..1; give mean and std" in note for note in found.notes)
    assert (found.data.train, found.data.test) == ("parted:photos", "parted:photos")
    nodes = Expansion(found).nodes
    assert nodes["data:train"].digest != nodes["data:test"].digest


def test_what_the_recipe_says_holds(load) -> None:
    data = "images: photos, mean: 0, std: [2], units: 0..255, resize: letterbox, color: bgr"
    found = load("images: photos", data)
    assert found.data.mean == (0.0,)
    assert found.data.std == pytest.approx((2 / 255,))
    assert (found.data.resize, found.data.color) == ("letterbox", "bgr")
    assert not any("give mean and std" in note for note in found.notes)


def test_a_mean_of_0_and_a_deviation_of_1_are_told_in_their_units(load) -> None:
    found = load("images: photos", "images: photos, mean: 0, std: 1")
    (note,) = (n for n in found.notes if "mean 0 and std 1" in n)
    assert "scaled to 0..1" in note
    assert "units 0..255" in note
    asked = load("images: photos", "images: photos, mean: 0, std: 1, units: 0..255")
    assert any("0..255 here: pixels go in as they are" in n for n in asked.notes)
    assert asked.data.std == pytest.approx((1 / 255,))


def test_images_are_looked_up_beside_the_recipe(load, tmp_path: Path, monkeypatch) -> None:
    load()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = Expansion(recipe.load(tmp_path / "my.yaml")).source("train")
    assert found == f"parted:{tmp_path / 'photos'}"


LEARNING = sorted(word for word, stage in stages.words().items() if stage.needs_labels)


def test_every_stage_that_trains_needs_labels() -> None:
    training = {w for w, s in stages.words().items() if "batch_size" in s.model_fields}
    assert training == set(LEARNING)
    assert {"train", "distill", "prune"} <= training


@pytest.mark.parametrize("word", LEARNING)
@pytest.mark.parametrize(
    "data", ["images: photos", "train: 'images:photos', test: 'images:photos'"]
)
def test_a_stage_that_needs_labels_is_refused_before_anything_runs(
    load, word: str, data: str
) -> None:
    stage = "distill: {student: {zoo: resnet8}}" if word == "distill" else word
    with pytest.raises(RecipeError) as e:
        load("quantize: {name: small}", stage, "images: photos", f"{data}, size: 16")
    assert e.value.where == f"my.yaml:4: stages[0].{word}"
    assert "has none" in str(e.value)
    assert "data.train and data.test" in str(e.value)


REFUSED = [
    (("images: photos", "images: photos, size: 16"), "data.size", "net.onnx takes 16x24"),
    (("images: photos", "images: photos, channels: 1"), "data.channels", "takes 3 channels"),
    (("images: photos", "images: photos, color: grey"), "data.color", "takes 3 channels"),
    (("images: photos", "images: 'synthetic:8'"), "data.images", "needs images to calibrate on"),
    (("images: photos", "images: photos, train: x"), "data", "instead of train"),
    (("images: photos", "images: 'imagefolder:photos'"), "data.images", "has labels"),
    (("{images: photos}", "{size: 16}"), "data", "images: FOLDER"),
    (("images: photos", "images: 3"), "data.images", "found 3"),
    (("net.onnx", "two.onnx"), "data.images", "'state' (1, 4)"),
    (("{name: small}", "{accuracy_drop: 1}"), "quantize.accuracy_drop", "limit sqnr_db, latency"),
    (("net.onnx", "{module: 'mynet:make'}"), "data", "'size' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "place", "said"), REFUSED, ids=[r[2][:20] for r in REFUSED])
def test_what_does_not_fit_is_refused(load, changes: tuple, place: str, said: str) -> None:
    with pytest.raises(RecipeError) as e:
        load(*changes)
    assert place in e.value.where
    assert said in str(e.value)


def test_a_second_input_is_made_up_where_nothing_is_calibrated(load) -> None:
    found = load("net.onnx", "two.onnx", "quantize: {name: small}", "export")
    assert found.data.train == found.data.test == "synthetic:32"
    assert any("'state' (1, 4): all inputs are made up" in note for note in found.notes)


def test_arrays_give_it_its_values(load) -> None:
    np.savez("s.npz", image=np.zeros((6, 16, 24, 3), np.uint8), state=np.zeros((6, 4), np.float32))
    found = load("net.onnx", "two.onnx", "photos", "s.npz")
    assert found.data.train == "parted:s.npz"


def test_a_limit_of_the_command_line_is_refused_likewise(load) -> None:
    load()
    with pytest.raises(RecipeError, match=r"\(1, 2, 16, 24\) has no best class"):
        recipe.load(Path("my.yaml"), limits=Limits(accuracy_drop=1.0))
    found = recipe.load(Path("my.yaml"), limits=Limits(sqnr_db=20.0))
    assert found.limits_of(found.steps[0]) == Limits(sqnr_db=20.0)


def test_the_task_is_as_by_export(load) -> None:
    assert load().task is None
    for task in ("none", "classification"):
        found = load("stages:", f"task: {task}\nstages:")
        assert found.task == task
        assert Expansion(found).nodes["bundle:small@cpu"].key["task"] == task
    with pytest.raises(RecipeError, match=r"my.yaml:3: task: unknown task 'detect'"):
        load("stages:", "task: detect\nstages:")
    with pytest.raises(RecipeError, match="a network of no task has no best class"):
        load("stages:", "task: none\nstages:", "{name: small}", "{accuracy_drop: 1}")


def test_labels_that_a_recipe_has_are_the_datas_own(load) -> None:
    assert load().labels is None


@pytest.mark.parametrize(
    ("task", "source", "said"),
    [
        ("detection", "imagefolder:photos", "says classes, and detection is judged by boxes (coco"),
        ("detection", "masks:street", "says maps, and detection is judged by boxes"),
        ("classification", "yolo:data.yaml", "says boxes, and classification is judged by classes"),
        ("segmentation", "coco:val.json", "says boxes, and segmentation is judged by maps (masks:"),
        ("detection", "yolo:data.yaml", None),
        ("multilabel", "voc:set", None),
        ("multilabel", "table:rows.csv", None),
        ("binary", "imagefolder:photos", None),
        (
            "regression",
            "imagefolder:photos",
            "says classes, and regression is judged by numbers (t",
        ),
        ("detection", "table:rows.csv", "says numbers, and detection is judged by boxes"),
        ("segmentation", "mydata:make", None),  # a torch Dataset says it itself
        ("none", "yolo:data.yaml", None),
        (None, "yolo:data.yaml", None),
    ],
)
def test_a_task_is_judged_by_its_own_labels(task, source, said) -> None:
    if said is None:
        recipe_input.check_truth(task, source, "--evaluate")
        return
    with pytest.raises(RecipeError, match="--evaluate: ") as error:
        recipe_input.check_truth(task, source, "--evaluate")
    assert said in str(error.value)


def test_priors_are_read_from_a_file(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(0.1, 1, (7, 4))
    np.save(tmp_path / "priors.npy", rows)
    np.save(tmp_path / "wrong.npy", rows[:, :3])
    (tmp_path / "text.npy").write_text("x")
    found = with_tables({"priors": "priors.npy", "form": "cycxhw"}, tmp_path, str)
    assert found == {"priors": rows.tolist(), "form": "cycxhw"}
    assert with_tables({"priors": [[1, 2, 3, 4]]}, tmp_path, str) == {"priors": [[1, 2, 3, 4]]}
    for name in ("wrong.npy", "text.npy", "none.npy"):
        with pytest.raises(RecipeError, match=name):
            with_tables({"priors": name}, tmp_path, str)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("{name: detection, ~: 1}", "task detection has no None"),
        ("{name: detection, 3: 1}", "task detection has no 3"),
        ("{name: detection, iou: 5}", "decode.iou 5 is wrong: 0 to 1"),
        ("{name: detection, strides: x}", "decode.strides 'x' is wrong"),
        ("{name: detection, nms: here}", "decode.nms 'here' is wrong: runtime or graph"),
        ("{name: segmentation, holds: [1]}", "holds"),
    ],
)
def test_a_wrong_word_of_a_task_is_refused_when_it_is_read(
    tmp_path: Path, said: str, line: str
) -> None:
    write_network(tmp_path / "net.onnx")
    (tmp_path / "r.yaml").write_text(TEXT + f"task: {said}\n")
    with pytest.raises(RecipeError, match=line):
        recipe.load(tmp_path / "r.yaml")
