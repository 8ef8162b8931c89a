"""A layer is what its class says where the library's own forward runs, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MethodType

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.errors import RecipeError, UnsupportedError  # noqa: E402
from edgecv.methods.binary import selection  # noqa: E402
from edgecv.methods.lowrank import layers as lowrank  # noqa: E402
from edgecv.methods.pruning import connections, groups  # noqa: E402
from edgecv.methods.restructuring import blocks  # noqa: E402
from edgecv.models.layer_kinds import altered  # noqa: E402

X = torch.zeros(1, 3, 16, 16)


class SameConv(nn.Conv2d):
    """Padding computed from the input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


class InnerConv(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight), self.bias)


class Shifted(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Named(nn.Conv2d):
    """A subclass that adds nothing to what is computed."""


def patched(layer: nn.Module) -> nn.Module:
    layer.forward = MethodType(lambda _, x: x, layer)
    return layer


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _, __, y: 2 * y)
    return layer


def before(layer: nn.Module) -> nn.Module:
    layer.register_forward_pre_hook(lambda _, x: (2 * x[0],))
    return layer


OWN: dict[str, Callable[[], nn.Module]] = {
    "padding": lambda: SameConv(16, 16, 3),
    "inner forward": lambda: InnerConv(16, 16, 3, padding=1),
    "patched": lambda: patched(nn.Conv2d(16, 16, 1)),
    "hook": lambda: hooked(nn.Conv2d(16, 16, 3, padding=1)),
    "pre-hook": lambda: before(nn.Conv2d(16, 16, 3, padding=1)),
}


@pytest.mark.parametrize("make", [*OWN.values(), lambda: Cosine(4, 4), lambda: Shifted(4)])
def test_what_computes_something_else_is_altered(make: Callable[[], nn.Module]) -> None:
    assert altered(make())


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 4, 3), nn.Linear(3, 4), nn.BatchNorm2d(4), nn.ConvTranspose2d(3, 4, 3), nn.ReLU(),
     nn.GELU(), nn.LayerNorm(4), nn.LSTM(3, 4), nn.MultiheadAttention(4, 2), Named(3, 4, 3),
     nn.MultiheadAttention(4, 2).out_proj],
)  # fmt: skip
def test_what_the_library_computes_is_not(layer: nn.Module) -> None:
    assert altered(layer) == ""


def net(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), middle, nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("way", OWN)
def test_every_room_leaves_them_as_they_are(way: str, caplog: pytest.LogCaptureFixture) -> None:
    module = net(OWN[way]())
    assert isinstance(blocks.chosen(module[2], "separable", None, None), str)
    assert {a.name for a in lowrank.found(module, X) if a.refusal} == {"2"}
    assert set(selection.choose(module, X, "step", None)[0]) == {"4"}
    with caplog.at_level(logging.WARNING):
        assert set(connections.densities(module, 0.5, {}, "step")) == {"4", "8"}
    assert "2 " in caplog.text
    with pytest.raises(RecipeError, match="layer '2'"):
        connections.densities(module, 0.5, {"2": 0.5}, "step")


@pytest.mark.parametrize("way", OWN)
def test_pruning_cuts_no_channel_that_they_read_or_write(way: str) -> None:
    found = groups.find(net(OWN[way]()), X, "step")
    assert [g.name for g in found] == ["4"]


def test_a_network_of_nothing_else_is_refused_in_a_sentence() -> None:
    module = nn.Sequential(
        SameConv(3, 8, 3), nn.ReLU(), SameConv(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        Cosine(8, 4),
    ).eval()  # fmt: skip
    with pytest.raises(UnsupportedError, match="no layer whose channels can be removed"):
        groups.find(module, X, "step")


def test_dense_layers_over_rows_get_no_sign_of_a_whole_picture() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(48, 48), nn.Linear(48, 48)
            self.c, self.head = nn.Linear(48, 48), nn.Linear(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.b(self.a(x.reshape(1, -1, 48))).mean(1)
            return self.head(self.c(rows))

    found, kept = selection.choose(Tokens().eval(), X, "step", None)
    assert set(found) == {"c"}
    assert "rows" in kept["b"]
