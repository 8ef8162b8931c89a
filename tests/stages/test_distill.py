"""distill: a student learns more with a teacher; what it saves is the student and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from edgecv.errors import StageError  # noqa: E402
from edgecv.methods.training.loop import Trainer  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.plan import (  # noqa: E402
    pipeline,
    recipe,
)
from edgecv.stages.distill import Distill  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from edgecv.stages.qat import Qat  # noqa: E402
from edgecv.stages.train import Train, Training  # noqa: E402
from tests import networks as nets  # noqa: E402

X = torch.randn(4, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
WIDE = {"width": 12, "classes": nets.CLASSES}
NARROW = {"width": 8, "classes": nets.CLASSES}
QUICK = {"epochs": 2, "batch_size": 8, "flip": False}
EVERYTHING = {"hints": 1.0, "attention": 1.0, "similarity": 1.0, "relational": 1.0}


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """A Model folder: a network that knows the classes."""
    out = tmp_path_factory.mktemp("big")
    module = nets.seeded(lambda: zoo.build("resnet8", **WIDE))
    stage = Train(epochs=6, lr=0.01, batch_size=8, flip=False)
    pre = nets.context(out).preprocess.to_json()
    stage.run((Model("zoo:resnet8", WIDE, (), pre), module), nets.context(out))
    return out


def distil(big: Path, out: Path, context: dict | None = None, **options) -> dict:
    """Train a fresh student by the teacher in `big`; the facts that it left."""
    student = Model("zoo:resnet8", NARROW), nets.seeded(lambda: zoo.build("resnet8", **NARROW))
    stage = Distill(teacher="big", **{**QUICK, **options})
    inputs = {"inputs": {"teacher": big}, **(context or {})}
    stage.run(student, nets.context(out, where="small", **inputs))
    return Model.read(out).facts["small"]


@pytest.mark.parametrize("logits", ["soft", "dkd", "dist"])
def test_logits_alone_teach_the_classes(big: Path, tmp_path: Path, logits: str) -> None:
    """No label is seen (a = 1), and the student knows them."""
    facts = distil(big, tmp_path, logits=logits, distill=1.0, epochs=8, lr=0.01, dkd_beta=1.0)
    assert facts["loss"][-1] < 0.7 * facts["loss"][0]
    assert facts["top1"] >= 0.75


@pytest.mark.parametrize("name", EVERYTHING)
def test_features_come_closer(big: Path, tmp_path: Path, name: str) -> None:
    """Nothing of labels or logits (the first epochs' loss is the features' alone, and falls)."""
    options = {"distill": 1.0, "temperature": 0.01, "epochs": 4, "shift": 0, "lr": 0.01}
    losses = []
    for weight in (0.0, 1000.0):
        facts = distil(big, tmp_path / f"{weight}", **options, **{name: weight})
        losses.append(facts["loss"])
    gap = [with_ - without for without, with_ in zip(*losses, strict=True)]
    assert gap[-1] < gap[0]


def test_adapters_are_in_no_model(big: Path, tmp_path: Path) -> None:
    distil(big, tmp_path, **EVERYTHING)
    saved = load_file(tmp_path / "weights.safetensors")
    assert set(saved) == set(zoo.build("resnet8", **NARROW).state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    model, module = Model.load(tmp_path)
    assert model.edits == ()
    assert module(X).shape == (4, nets.CLASSES)


def test_adapters_are_trained(big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict] = []
    keep = Trainer._keep

    def watch(trainer: Trainer, epoch: int) -> None:
        seen.append({k: v.clone() for k, v in trainer.beside.state_dict().items()})
        keep(trainer, epoch)

    monkeypatch.setattr(Trainer, "_keep", watch)
    distil(big, tmp_path, hints=1.0)
    first, last = seen
    assert first
    assert all(not torch.equal(first[k], last[k]) for k in first)


class KilledError(Exception):
    pass


def test_a_killed_run_ends_in_the_same_bytes(big: Path, tmp_path: Path) -> None:
    options = {**EVERYTHING, "epochs": 3, "ema": 0.9}
    facts = distil(big, tmp_path / "whole", **options)

    def die(done: int, *_: object) -> None:
        if done == 12:  # 5 steps an epoch
            raise KilledError

    with pytest.raises(KilledError):
        distil(big, tmp_path / "killed", {"progress": die}, **options)
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists()
    seen: list[int] = []
    again = distil(big, tmp_path / "killed", {"progress": lambda n, *_: seen.append(n)}, **options)
    assert seen[0] == 11
    assert again == facts
    for name in ("model.json", "weights.safetensors"):
        one, two = ((tmp_path / n / name).read_bytes() for n in ("whole", "killed"))
        assert one == two, name


def test_a_new_student_is_taught_by_the_network_that_came_in(big: Path, tmp_path: Path) -> None:
    small = nets.seeded(lambda: zoo.build("resnet8", **NARROW))
    Model("zoo:resnet8", NARROW).save(tmp_path / "student", small)
    context = nets.context(tmp_path / "out", inputs={"student": tmp_path / "student"})
    before = (big / "weights.safetensors").read_bytes()
    Distill(student="resnet8", distill=1.0, lr=0.01, **{**QUICK, "epochs": 8}).run(
        Model.load(big), context
    )
    model = Model.read(tmp_path / "out")
    assert model.args == NARROW
    assert model.facts["step"]["top1"] >= 0.75
    assert (big / "weights.safetensors").read_bytes() == before


def test_a_teacher_of_other_classes_is_one_line(tmp_path: Path) -> None:
    ten = nets.seeded(lambda: zoo.build("resnet8", width=8, classes=10))
    Model("zoo:resnet8", {"width": 8, "classes": 10}).save(tmp_path / "ten", ten)
    with pytest.raises(StageError, match=r"^small: the teacher has 10 classes and the student 4 "):
        distil(tmp_path / "ten", tmp_path / "out")
    assert not (tmp_path / "out" / "model.json").exists()


def test_a_teacher_without_a_recipe_is_an_error(tmp_path: Path) -> None:
    module = zoo.build("resnet8", **NARROW)
    with pytest.raises(StageError, match="teacher 'big' is not here"):
        Train(teacher="big").run((Model("zoo:resnet8", NARROW), module), nets.context(tmp_path))


# `teacher:` on other stages


@pytest.mark.parametrize(
    ("stage", "expected"), [(Train, "none"), (Prune, "self"), (Qat, "self"), (Distill, "self")]
)
def test_compression_is_taught_by_what_came_in(stage: type[Training], expected: str) -> None:
    assert stage().teacher == expected


def far(module: torch.nn.Module, big: Path) -> float:
    _, dense = Model.load(big)
    with torch.no_grad():
        return float((module(X) - dense(X)).norm())


def test_pruning_is_tuned_to_what_the_network_said(big: Path, tmp_path: Path) -> None:
    gaps = {}
    for name, options in {"self": {"distill": 1.0}, "none": {"teacher": "none"}}.items():
        stage = Prune(method="l2", align=4, finetune_epochs=6, batch_size=8, flip=False, lr=0.01,
                      ratio=0.4, **options)  # fmt: skip
        stage.run(Model.load(big), nets.context(tmp_path / name))
        gaps[name] = far(Model.load(tmp_path / name)[1], big)
    assert gaps["self"] < 0.7 * gaps["none"]


@pytest.mark.parametrize("stage", [Train, Qat])
def test_every_stage_that_trains_takes_a_folder(
    big: Path, tmp_path: Path, stage: type[Training]
) -> None:
    """A student of its own weights shifted by noise comes back to the teacher."""
    model, module = Model.load(big)
    for p in module.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    gaps = {}
    for name, options in {
        "folder": {"teacher": "big", "distill": 1.0},
        "none": {"teacher": "none"},
    }.items():
        context = nets.context(tmp_path / name, inputs={"teacher": big})
        stage(lr=0.005, **{**QUICK, "epochs": 4}, **options).run(
            (model, copy.deepcopy(module)), context
        )
        gaps[name] = far(Model.load(tmp_path / name)[1], big)
    assert gaps["folder"] < gaps["none"]


def test_no_teacher_is_the_loss_of_labels(big: Path, tmp_path: Path) -> None:
    """`teacher: none`, and a share of 0, train the same weights."""
    weights = []
    for name, options in {
        "none": {"teacher": "none"},
        "share": {"teacher": "self", "distill": 0.0},
    }.items():
        Train(lr=0.005, **QUICK, **options).run(Model.load(big), nets.context(tmp_path / name))
        weights.append(load_file(tmp_path / name / "weights.safetensors"))
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key])


# in a recipe


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for split, images in (("train", nets.images()), ("test", nets.images(20, 1))):
        np.savez(tmp_path / f"{split}.npz", images=images.pixels, labels=images.labels)
    return tmp_path


def content(project: Path, *stages: dict) -> dict:
    return {
        "model": {"zoo": "resnet8", "width": 12},
        "data": {"train": f"npz:{project}/train.npz", "test": f"npz:{project}/test.npz",
                 "size": nets.SIZE},
        "stages": list(stages),
        "targets": ["cpu"],
    }  # fmt: skip


def test_a_recipe_teaches_by_step_by_folder_and_by_onnx(project: Path) -> None:
    train = {"train": {"name": "big", **QUICK}}
    student = {"student": {"zoo": "resnet8", "width": 8}}
    quick = {**QUICK, "epochs": 1}
    first = recipe.check(content(
        project, train,
        {"distill": {"name": "small", **student, **quick}},
        {"train": {"name": "again", "from": "model", "teacher": "big", **quick}},
    ), project / "my.yaml", {})  # fmt: skip
    made = pipeline.run(first, project / "out", compare=False)
    assert made.failures == {}
    assert "small:student" in made.folders
    assert Model.read(made.folders["small"]).args["width"] == 8
    assert Model.read(made.folders["again"]).args["width"] == 12
    exported = next(made.folders["small.onnx"].glob("*.onnx"))
    (project / "teacher.onnx").write_bytes(exported.read_bytes())
    pipeline.publish_results(made, project / "out")
    second = recipe.check(content(
        project,
        {"distill": {"name": "folder", "teacher": str(project / "out/models/big"), **quick}},
        {"distill": {"name": "onnx", "teacher": "teacher.onnx", "from": "model", **quick}},
    ), project / "my.yaml", {})  # fmt: skip
    made = pipeline.run(second, project / "out2", compare=False)
    assert made.failures == {}
    third = recipe.check(
        content(project, {"distill": {"name": "third", **student, **quick}})
        | {"model": "teacher.onnx"},
        project / "my.yaml", {},
    )  # fmt: skip
    by_file = pipeline.run(third, project / "out3", compare=False)
    assert Model.read(by_file.folders["third"]).args["width"] == 8
    facts = [Model.read(made.folders[n]).facts[n]["loss"] for n in ("folder", "onnx")]
    assert facts[0] != facts[1]
    assert pipeline.run(second, project / "out2", compare=False).made == []
