"""A network that is random or mixes its batch is found by running it, wherever that comes from."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.behaviour import check_random, check_runs, mixing  # noqa: E402
from edgecv.errors import ModelError, UnsupportedError  # noqa: E402
from edgecv.models.model import check_outputs  # noqa: E402

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """conv, what is given, mean, dense."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)).mean((2, 3)))


class Stubborn(nn.BatchNorm2d):
    def train(self, _: bool = True) -> nn.Module:
        return super().train(True)


class Counting(nn.Module):
    """A state that every call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


RANDOM = {
    "dropout": lambda x: F.dropout(x, 0.3, True),
    "noise": lambda x: x + 0.1 * torch.randn_like(x),
    "a coin": lambda x: x if torch.rand(()) < 0.5 else 2 * x,
    "Python's coin": lambda x: x if random.random() < 0.5 else 2 * x,
    "a state": Counting(),
}
MIXED = {
    "no statistics": nn.BatchNorm2d(8, track_running_stats=False),
    "in train mode": Stubborn(8),
    "mean": lambda x: x - x.mean(0, keepdim=True),
    "softmax": lambda x: x.softmax(0),
    "one at a time": lambda x: x.view(1, 8, x.shape[2], x.shape[3]),
}
SOUND = {
    "nothing": lambda x: x,
    "batch norm": nn.BatchNorm2d(8),
    "instance norm": nn.InstanceNorm2d(8),
    "dropout": nn.Dropout(0.5),
    "noise that is the same": lambda x: (
        x + torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(1))
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_networks_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="two ways in eval mode") as e:
        check_random(Net(RANDOM[name]).eval(), "nets:mine", SHAPE)
    assert "nets:mine" in str(e.value)
    assert "layer" in str(e.value)


@pytest.mark.parametrize("name", MIXED)
def test_mixed_batches_are_told(name: str) -> None:
    module = Net(MIXED[name]).eval()
    check_random(module, "net", SHAPE)
    assert "two" in mixing(module, SHAPE)


def test_the_layer_that_mixes_is_named() -> None:
    assert "'middle' (BatchNorm2d)" in mixing(Net(MIXED["no statistics"]).eval(), SHAPE)


@pytest.mark.parametrize("name", SOUND)
def test_sound_networks_pass_and_stay_as_they_were(name: str) -> None:
    module = Net(SOUND[name]).eval()
    state = {k: v.clone() for k, v in module.state_dict().items()}
    torch.manual_seed(5)
    check_random(module, "net", SHAPE)
    assert mixing(module, SHAPE) == ""
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3)), "the generator is where it was"
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def test_states_that_a_trial_changes_are_put_back() -> None:
    module = Net(MIXED["in train mode"]).eval()
    before = module.middle.running_mean.clone()
    mixing(module, SHAPE)
    assert torch.equal(module.middle.running_mean, before)


def test_where_a_network_stops_is_said_without_an_exceptions_words() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(7, 4))
    with pytest.raises(ModelError, match=r"1x3x8x8 input, at layer '2' \(Linear\)") as e:
        check_outputs(module, "nets:mine", [torch.zeros(1, 3, 8, 8)], None)
    assert "mat1" not in str(e.value)
    with pytest.raises(UnsupportedError, match="does not run after pruning, at layer '2'"):
        check_runs(module, torch.zeros(1, *SHAPE), "step", "pruning")


def test_answers_of_another_precision_are_refused() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)).double()

    with pytest.raises(ModelError, match="answers in float64"):
        check_outputs(Doubled(), "nets:mine", [torch.zeros(1, 3, 8, 8)], None)
