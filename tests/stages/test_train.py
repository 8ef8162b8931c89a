"""The train stage: a Model in, a trained Model out, and the input as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from edgecv.methods.training.plan import Plan  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.train import Train  # noqa: E402
from tests import networks as nets  # noqa: E402


def test_it_saves_a_trained_model_and_keeps_its_input(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model("zoo:resnet8", {"width": 8, "classes": nets.CLASSES})
    model.save(tmp_path / "before", model.build())
    weights = (tmp_path / "before" / "weights.safetensors").read_bytes()
    context = nets.context(tmp_path / "after", where="dense")
    Train(epochs=2, batch_size=8).run(Model.load(tmp_path / "before"), context)
    after, module = Model.load(tmp_path / "after")
    assert (after.builder, after.args, after.edits) == (model.builder, model.args, ())
    facts = after.facts["dense"]
    assert facts["epochs"] == len(facts["loss"]) == 2
    assert 0 <= facts["top1"] <= 1
    assert not module.training
    assert (tmp_path / "before" / "weights.safetensors").read_bytes() == weights
    assert (tmp_path / "after" / "weights.safetensors").read_bytes() != weights
    names = sorted(p.name for p in (tmp_path / "after").iterdir())
    assert names == ["model.json", "weights.safetensors"]


def test_every_parameter_reaches_the_plan() -> None:
    given = {
        "batch_size": 3, "optimizer": "sgd", "weight_decay": 0.5, "schedule": "step",
        "warmup_epochs": 1.5, "label_smoothing": 0.2, "ema": 0.9, "flip": False, "shift": 7,
    }  # fmt: skip
    plan = Train(epochs=4, lr=0.1, **given).plan(4, 0.1)
    assert plan == Plan(epochs=4, lr=0.1, **given)
    default = Plan(epochs=1, lr=1)
    assert all(getattr(default, k) != v for k, v in given.items()), "each is told from its default"


def test_naming_a_step_does_not_change_its_result() -> None:
    assert Train(name="a", ship=True, **{"from": "b"}).parameters() == Train().parameters()
    assert Train(lr=0.1).parameters() != Train().parameters()
