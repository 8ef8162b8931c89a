"""What is trained is the output that ships, or it is refused by a sentence."""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from edgecv.errors import StageError  # noqa: E402
from edgecv.methods.training.train_mode import check_train_mode, first  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.train import Train  # noqa: E402
from tests import networks as nets  # noqa: E402

SHAPE = (3, nets.SIZE, nets.SIZE)
Outputs = namedtuple("Outputs", ["logits", "aux"])


class Aux(nn.Module):
    """A second head that answers in train mode. give: what is returned there."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.main, self.side = nn.Linear(8, nets.CLASSES), nn.Linear(8, nets.CLASSES)
        self.give = give

    def forward(self, x: Tensor) -> Any:
        x = self.drop(self.body(x).mean((2, 3)))
        return self.give(self.main(x), self.side(x)) if self.training else self.main(x)


GIVES = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "namedtuple": Outputs,
    "dict": lambda a, b: {"aux": b, "out": a},
}


@pytest.mark.parametrize("kind", GIVES)
def test_the_first_output_is_trained_and_that_is_said(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = nets.seeded(lambda: Aux(GIVES[kind]))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        Train(epochs=1).run((Model("none:here"), module), nets.context(tmp_path))
    assert "trained on the first" in caplog.text
    assert ("Outputs" if kind == "namedtuple" else kind) in caplog.text
    after = module.state_dict()
    assert not torch.equal(after["main.weight"], before["main.weight"])
    assert torch.allclose(after["side.weight"], before["side.weight"], atol=1e-2)


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda a, b: (b, a), "not the first of the tuple"),
        (lambda a, b: (a[:, :2], b), r"the first of the tuple is \(2, 2\)"),
        (lambda a, b: ("loss", a, b), "the first of the tuple is str"),
        (lambda a, b: torch.cat([a, b], 1), r"answers \(2, 8\) in train mode"),
    ],
)
def test_another_output_than_the_one_that_ships_is_refused(
    give: Callable[[Tensor, Tensor], Any], told: str
) -> None:
    with pytest.raises(StageError, match=told):
        check_train_mode(nets.seeded(lambda: Aux(give)), SHAPE, "step")


def test_a_trial_leaves_modes_and_statistics() -> None:
    module = nets.seeded(lambda: Aux(GIVES["tuple"])).train()
    module.body.eval()
    mean = module.body[1].running_mean.clone()
    check_train_mode(module, SHAPE, "step")
    assert module.training
    assert not module.body[1].training
    assert torch.equal(module.body[1].running_mean, mean)


def test_the_logits_of_a_dict_are_found_by_name() -> None:
    assert first({"aux": 1, "logits": 2}) == 2
    assert first({"a": (3, 4)}) == 3


def test_a_frozen_network_is_refused(tmp_path: Path) -> None:
    module = nets.seeded(lambda: Aux(lambda a, _: a)).requires_grad_(False)
    with pytest.raises(StageError, match="frozen"):
        Train(epochs=1).run((Model("none:here"), module), nets.context(tmp_path))
