"""Every stage trains and measures what other tasks learn: boxes, maps, yes or no, and numbers, by
their loss and metric, or refuses before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv import stages  # noqa: E402
from edgecv.context import Context  # noqa: E402
from edgecv.data.annotations import Boxes, Maps, Numbers, PictureBoxes  # noqa: E402
from edgecv.data.images import Images  # noqa: E402
from edgecv.errors import MissingExtraError, RecipeError, StageError, UnsupportedError  # noqa: E402
from edgecv.methods.pruning import criteria, groups  # noqa: E402
from edgecv.methods.pruning.probe import loss, probe  # noqa: E402
from edgecv.methods.pruning.shapes import example_of  # noqa: E402
from edgecv.methods.training.judging import judged  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.plan import recipe  # noqa: E402
from edgecv.runtime.preprocess import Preprocess  # noqa: E402
from edgecv.stages.base import Stage  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from tests import networks as nets  # noqa: E402

SIDE, CLASSES, COUNT = 64, 2, 16
NAMES = ("dark", "bright")
BACKGROUND = 128


def pictures(seed: int, count: int) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Grey noise with one square each, dark (even pictures) or bright; where it lies."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(100, 156, (count, SIDE, SIDE, 3), dtype=np.uint8)
    places = []
    for i, image in enumerate(pixels):
        side = int(rng.integers(20, 41))
        x, y = (int(v) for v in rng.integers(0, SIDE - side, 2))
        image[y : y + side, x : x + side] = 230 if i % CLASSES else 20
        places.append((x, y, x + side, y + side))
    return pixels, places


def with_boxes(seed: int, count: int = COUNT) -> Images:
    pixels, places = pictures(seed, count)
    each = [
        PictureBoxes(
            np.array([box], np.float32),
            np.array([i % CLASSES]),
            np.zeros(1, bool),
            np.array([(box[2] - box[0]) * (box[3] - box[1])], np.float32),
        )
        for i, box in enumerate(places)
    ]
    truth = Boxes.of(each, np.full((count, 2), SIDE))
    return Images(pixels, np.zeros(count, np.int64), NAMES, truth=truth)


def with_maps(seed: int, count: int = COUNT) -> Images:
    pixels, places = pictures(seed, count)
    maps = np.zeros((count, SIDE, SIDE), np.uint8)
    for i, (x0, y0, x1, y1) in enumerate(places):
        maps[i, y0:y1, x0:x1] = 1 + i % CLASSES
    truth = Maps.of(list(maps))
    return Images(pixels, np.zeros(count, np.int64), ("nothing", *NAMES), truth=truth)


def with_classes(seed: int, count: int = COUNT) -> Images:
    """Which of the two it is."""
    return Images(pictures(seed, count)[0], np.arange(count, dtype=np.int64) % CLASSES, NAMES)


def with_numbers(seed: int, count: int = COUNT) -> Images:
    """How bright it is and how large."""
    pixels, places = pictures(seed, count)
    rows = [np.array([pixels[i].mean() / 64, (box[2] - box[0]) / 10.0])
            for i, box in enumerate(places)]  # fmt: skip
    truth = Numbers.of(rows, np.full((count, 2), SIDE))
    return Images(pixels, np.zeros(count, np.int64), ("level", "side [px]"), truth=truth)


@dataclass(frozen=True)
class Case:
    """A network of the zoo, and what it learns from."""

    name: str
    args: dict[str, Any]
    task: str
    metric: str
    images: Callable[..., Images]

    def build(self) -> tuple[Model, nn.Module]:
        model = Model(f"zoo:{self.name}", dict(self.args))
        return model, nets.seeded(lambda: zoo.build(self.name, **self.args))


CASES = {
    "detector": Case(
        "tiny_detector", {"width": 4, "classes": 2}, "detection", "map50_95", with_boxes
    ),
    "unet": Case("unet", {"width": 8, "classes": 3, "depth": 2}, "segmentation", "miou", with_maps),
    "fast-scnn": Case(
        "fast_scnn", {"width": 0.25, "classes": 3}, "segmentation", "miou", with_maps
    ),
    "yes-or-no": Case("resnet8", {"width": 8, "classes": 1}, "binary", "accuracy", with_classes),
    "numbers": Case("resnet8", {"width": 8, "classes": 2}, "regression", "r2", with_numbers),
}
QUICK = {"batch_size": 8}
WORK: dict[str, dict[str, Any]] = {
    "train": {"epochs": 1},
    "prune": {"finetune_epochs": 1, "ratio": 0.5, "samples": 8},
    "lowrank": {"finetune_epochs": 1, "fuse_back": False, "rank": 4, "samples": 8, "method": "svd"},
    "restructure": {"finetune_epochs": 1, "fit_steps": 2, "samples": 8},
    "sparsify": {"epochs": 1, "finetune_epochs": 1},
    "distill": {"epochs": 1, "hints": 1.0},
    "qat": {"epochs": 1, "samples": 8},
    "binarize": {"epochs": 2, "layers": "auto", "share": 0.2},
}
# one logit that is not trained says nearly the same of all images: nothing to be taught by
ALONE = {("yes-or-no", "qat"): {"teacher": "none"}}
COMPACT = {("detector", "restructure"), ("fast-scnn", "restructure")}  # nothing is left to replace


def context(case: Case, out: Path) -> Context:
    sets = {"train": case.images(0), "test": case.images(1, 8)}
    pre = Preprocess((SIDE, SIDE), 3, (127.0,), (64.0,), crop_pct=1.0, resize="stretch")
    return Context(out, 0, pre, sets.get, task=case.task, labels=sets["train"].classes,
                   where="step", alignment=4)  # fmt: skip


def ran(case: Case, out: Path, word: str, **options: Any) -> tuple[dict[str, Any], Context]:
    """The facts that the stage left, and what it ran in."""
    stage: Stage = stages.find(word, "")(**{**QUICK, **WORK[word], **options})
    about = context(case, out)
    stage.run(case.build(), about)
    return Model.read(out).facts["step"], about


@pytest.mark.parametrize(
    ("name", "word"), [(n, w) for n in CASES for w in WORK if (n, w) not in COMPACT]
)
def test_a_stage_ends_in_a_network_whose_metric_it_tells(
    name: str, word: str, tmp_path: Path
) -> None:
    case = CASES[name]
    facts, about = ran(case, tmp_path, word, **ALONE.get((name, word), {}))
    assert facts["metric"] == case.metric
    assert "top1" not in facts
    assert np.isfinite(facts["loss"]).all()
    _, module = Model.load(tmp_path)
    found = judged(module, about.images("test"), about)
    assert facts[case.metric] == pytest.approx(found, abs=0.02)


def test_one_bit_of_what_is_not_trained_is_told_so(tmp_path: Path) -> None:
    """Gradients of an untrained detector's one-bit layers overflow: no fault of the data."""
    with pytest.raises(StageError, match=r"loss is nan.*train the network before it gets") as e:
        ran(CASES["detector"], tmp_path, "binarize", layers=(), share=None)
    assert "mean and std" not in str(e.value)


def test_every_criterion_looks_at_boxes(tmp_path: Path) -> None:
    about, (_, module) = context(CASES["detector"], tmp_path), CASES["detector"].build()
    for part in module.modules():  # at first all scales are 1
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
    found = groups.find(module, example_of(about), "step")
    looked = probe(module, about, 8)
    for method in get_args(Prune.model_fields["method"].annotation):
        kept, scores = criteria.score(method, found, looked)
        assert kept, method
        assert all(
            s.isfinite().all() and len(s) == g.width for g, s in zip(kept, scores, strict=True)
        )
        assert any(s.std() > 0 for s in scores), method


@pytest.mark.parametrize("method", ["taylor", "hessian", "gates"])
def test_criteria_that_ask_the_loss_look_at_maps(method: str, tmp_path: Path) -> None:
    options = {"method": method, "finetune_epochs": 0, "ratio": 0.3}
    facts, _ = ran(CASES["unet"], tmp_path, "prune", **options)
    assert facts["macs"] < facts["macs_before"]


def test_a_criterions_loss_is_the_tasks_own(tmp_path: Path) -> None:
    """Of the same pictures as the task itself says it, and nothing of the network moves."""
    case = CASES["detector"]
    about, (_, module) = context(case, tmp_path), case.build()
    kept = {k: v.clone() for k, v in module.state_dict().items()}
    looked = probe(module, about, 8)
    (x, truths) = looked.batches[0]
    value = float(loss(looked, x, truths).detach())
    assert all(torch.equal(v, kept[k]) for k, v in module.state_dict().items())
    assert not module.training
    for part in module.modules():
        part.training = bool(list(part.children()))
    assert value == pytest.approx(8 * float(looked.task.loss(module(x), truths).detach()), rel=1e-6)
    assert [len(t) for t in truths] == [1] * 8


@pytest.mark.parametrize("name", ["detector", "fast-scnn"])
def test_nothing_to_restructure_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no convolution can become separable"):
        ran(CASES[name], tmp_path, "restructure")


def test_a_sparse_scale_and_a_control_are_learned_so_too(tmp_path: Path) -> None:
    options = {"sparse_epochs": 1, "method": "bn_scale", "control": "scratch", "control_epochs": 1}
    facts, _ = ran(CASES["unet"], tmp_path, "prune", **options)
    assert [c["step"] for c in facts["curve"]][:2] == ["dense", "sparse scales"]
    assert all("miou" in c for c in facts["curve"])
    assert facts["scratch"]["metric"] == "miou"


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    """By the shapes that they train in: the sides of maps are no count of classes."""
    case = CASES["unet"]
    about = context(case, tmp_path / "out")
    model = Model("zoo:unet", {**case.args, "classes": 4})
    model.save(tmp_path / "teacher", zoo.build("unet", **{**case.args, "classes": 4}))
    about = replace(about, inputs={"teacher": tmp_path / "teacher"})
    stage = stages.find("distill", "")(**QUICK, epochs=1, teacher="elsewhere")
    with pytest.raises(StageError, match=r"teacher answers 1x4x64x64 and the student.*1x3x64x64"):
        stage.run(case.build(), about)


def test_a_larger_teacher_teaches_a_detector(tmp_path: Path) -> None:
    case = CASES["detector"]
    args = {**case.args, "width": 8}
    Model("zoo:tiny_detector", args).save(tmp_path / "t", zoo.build("tiny_detector", **args))
    about = replace(context(case, tmp_path / "out"), inputs={"teacher": tmp_path / "t"})
    (tmp_path / "out").mkdir()
    stages.find("distill", "")(**QUICK, epochs=1, teacher="t", hints=1.0).run(case.build(), about)
    assert Model.read(tmp_path / "out").facts["step"]["metric"] == "map50_95"


RECIPE = """
model: {zoo: unet, width: 8, classes: 3, depth: 2}
data: {train: masks:here, test: masks:here, size: 64}
stages:
  - %s
targets: [cpu]
"""


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (
            "distill: {logits: dkd, student: {zoo: unet}}",
            r"distill.*not for task segmentation: logits: dkd is of one",
        ),
        ("train: {label_smoothing: 0.1}", "label_smoothing is of one class an image"),
        ("qat: {logits_mse: 1}", "logits_mse is of one class an image"),
        ("lowrank: {rank_by: accuracy}", "counts images whose class changes"),
        ("train: {teacher: model, temperature: 4}", "temperature is of one class an image"),
        ("distill: {dkd_beta: 8, student: {zoo: unet}}", "dkd_beta is of one class an image"),
        (
            "train: {mosaic: 0.5}",
            "mosaic is not among what it reads: it changes pictures by flip, ",
        ),
    ],
)
def test_what_is_of_classes_is_refused_before_anything_runs(
    step: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE % step)
    with pytest.raises(RecipeError, match=says):
        recipe.load(tmp_path / "r.yaml")


OF_CLASSES = """
model: {zoo: resnet8}
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28, mean: [0], std: [1]}
stages:
  - %s
targets: [cpu]
"""


@pytest.mark.parametrize("name", ["scale", "mosaic"])
def test_what_training_of_classes_does_not_read_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(OF_CLASSES % f"train: {{{name}: 0.5}}")
    with pytest.raises(RecipeError, match=f"train.*{name} is not among what it reads: .*colour"):
        recipe.load(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text(OF_CLASSES % f"train: {{{name}: 0, colour: 0.2}}")
    assert recipe.load(tmp_path / "r.yaml").task in (None, "classification")


def test_a_limit_on_what_a_task_loses_needs_labels(tmp_path: Path) -> None:
    text = RECIPE % "quantize: {accuracy_drop: 1}"
    (tmp_path / "a.yaml").write_text(text)
    assert recipe.load(tmp_path / "a.yaml").task == "segmentation"
    bare = text.replace("train: masks:here, test: masks:here", "images: here")
    (tmp_path / "b.yaml").write_text(f"task: segmentation\n{bare}")
    with pytest.raises(RecipeError, match="what segmentation loses of its mIoU is not known"):
        recipe.load(tmp_path / "b.yaml")


def test_a_metric_that_is_not_installed_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingExtraError, match="pycocotools is not installed"):
        ran(CASES["detector"], tmp_path, "train", epochs=1_000_000)
    assert not list(tmp_path.iterdir())


def test_boxes_without_a_task_are_asked_for_one(tmp_path: Path) -> None:
    case = CASES["detector"]
    about = replace(context(case, tmp_path), task="none")
    with pytest.raises(StageError, match="task none does not learn from boxes") as e:
        stages.find("train", "")(epochs=1).run(case.build(), about)
    assert "say task: detection" in e.value.hint
