"""A ratio says of what it is the share; what stays is named, with what frees it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import StageError  # noqa: E402
from edgecv.methods.pruning import groups  # noqa: E402
from edgecv.methods.pruning.reach import Reach  # noqa: E402
from edgecv.methods.pruning.shapes import example_of, macs, shapes  # noqa: E402
from edgecv.models import history  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from tests import networks as nets  # noqa: E402


class Gated(nn.Module):
    """x + gate(cat(a, b)): only the gate's inner layer can go. mix: a 1x1 convolution after it."""

    def __init__(self, mix: bool = False) -> None:
        super().__init__()
        self.stem, self.a, self.b = nets.conv(3, 16), nets.conv(16, 8), nets.conv(16, 8)
        self.inner, self.outer = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.mix = nn.Conv2d(16, 16, 1) if mix else nn.Identity()
        self.head = nn.Linear(16, nets.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(torch.cat([self.a(x), self.b(x)], 1))
        y = y * self.outer(torch.relu(self.inner(y.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head((x + self.mix(y)).mean((2, 3)))


class Tokens(nn.Module):
    """Dense layers over 64 tokens, called by the name of their argument."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.up = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 32)
        self.down, self.head = nn.Linear(32, 8), nn.Linear(8, nets.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.down(input=torch.relu(self.up(input=x))).mean(1))


def prune(module: nn.Module, out: Path, align: int = 1, **options: object) -> dict:
    """Prune in place without tuning; the facts of the step."""
    stage = Prune(**{"finetune_epochs": 0, "round_epochs": 0, "method": "l2", **options})
    stage.run((Model("none:here"), module), nets.context(out, alignment=align))
    return dict(Model.read(out).facts["step"])


def reach(module: nn.Module, out: Path, keep: tuple[str, ...] = ()) -> Reach:
    context = nets.context(out)
    found, stay = groups.survey(module, example_of(context), "step", keep)
    return Reach.of(module, found, stay, context)


WHY = (
    "outer (16 channels), stem (16 channels), a (8 channels) and 1 more: each is flattened or "
    "added to after a concatenation (a 1x1 convolution after the concatenation frees what follows)"
)


def test_shares_are_those_of_the_network_that_is_left(tmp_path: Path) -> None:
    module = nets.seeded(Gated)
    facts = prune(module, tmp_path, ratio=0.5)
    (done,) = facts["rounds"]
    every = sum(layer.weight.shape[0] for layer in nets.seeded(Gated).modules()
                if isinstance(layer, nn.Conv2d | nn.Linear))  # fmt: skip
    gone = facts["macs_before"] - facts["macs"]
    assert gone == 4 * 16 + 4 * 16  # half of the inner layer, and of what reads it
    assert done["shares"] == {
        "prunable": 0.5,
        "channels": pytest.approx(4 / every, abs=1e-6),
        "macs": pytest.approx(gone / facts["macs_before"], abs=1e-6),
    }
    assert done["got"] == {"ratio": 0.5}
    told = "got 0.5 of the channels that can be pruned (7% of all channels, 0.02% of the MACs)"
    assert told in history.summary(facts)


def test_a_ratio_that_hardly_moves_the_macs_names_what_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prune(nets.seeded(Gated), tmp_path, ratio=0.5)
    told = ("step: ratio 0.5 takes out 50% of the channels that can be pruned: 7% of all channels, "
            "0.02% of the MACs; 99.96% of the MACs cannot be pruned; ")  # fmt: skip
    assert told + WHY in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("options", [{"macs": 0.9999}, {"ratio": 0.5, "rounds": 2}])
def test_most_macs_stay_is_said_once_of_every_way_to_ask(
    options: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prune(nets.seeded(Gated), tmp_path, **options)
    told = [record.getMessage() for record in caplog.records]
    assert told.count(f"step: 99.96% of the MACs cannot be pruned; {WHY}") == 1


def test_what_the_message_says_frees_the_layers_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = prune(nets.seeded(lambda: Gated(mix=True)), tmp_path, ratio=0.5)
    assert facts["macs"] < 0.6 * facts["macs_before"]
    assert "MACs" not in caplog.text


def test_a_coarse_alignment_is_said_of_the_channels_that_can_be_pruned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prune(nets.seeded(lambda: nets.chain(nn.ReLU())), tmp_path, align=12, ratio=0.5)
    told = "ratio 0.5 takes out 25% of the channels that can be pruned: 22% of all channels, "
    assert told in caplog.text
    assert "; widths stay multiples of 12 (align)" in caplog.text
    assert "cannot be pruned" not in caplog.text, "every layer reads or writes what goes"


def test_nothing_removed_names_what_can_be_pruned(tmp_path: Path) -> None:
    with pytest.raises(StageError) as refused:
        prune(nets.seeded(Gated), tmp_path, align=16, ratio=0.4)
    assert str(refused.value) == (
        "step: ratio 0.4 removes nothing: widths [8] stay multiples of 16; can be pruned: inner 8; "
        f"99.96% of the MACs cannot be pruned; {WHY} "
        "(raise ratio, widen the model, or set align lower)"
    )


def test_layers_that_keep_holds_and_those_at_the_outputs(tmp_path: Path) -> None:
    module = nn.Sequential(nets.conv(3, 16), nn.ReLU(), nets.conv(16, 12), nn.ReLU(),
                           nn.Flatten(), nn.Linear(12 * 256, 4))  # fmt: skip
    found = reach(module, tmp_path, keep=("0",))
    assert found.stay == {"0": groups.HELD}
    assert found.fixed == pytest.approx(16 * 27 * 256 / macs(module, nets.context(tmp_path)))
    heads = reach(nets.seeded(nets.TwoHeads), tmp_path)
    assert "a" not in heads.stay
    assert reach(nets.seeded(nets.PRUNABLE["residual"]), tmp_path).stay == {}


def test_dense_layers_over_tokens_count_every_token(tmp_path: Path) -> None:
    module, context = nets.seeded(Tokens), nets.context(tmp_path)
    found = reach(module, tmp_path)
    assert found.fixed < 0.1
    shape = shapes(module, found.found, example_of(context))
    assert shape.macs()(shape.full) == macs(module, context)


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.0, "0%"), (0.0002, "0.02%"), (0.29, "29%"), (0.9996, "99.96%"), (1.0, "100%")],
)
def test_percent(share: float, told: str) -> None:
    assert history.percent(share) == told
