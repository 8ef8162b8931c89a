"""Biases lie on the grid of an engine's 32-bit sums, and nothing else has moved."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.methods.qat.attach import of  # noqa: E402
from edgecv.methods.qat.biases import settle  # noqa: E402
from edgecv.methods.qat.initialisation import prepare  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from tests import networks as nets  # noqa: E402
from tests.methods.qat.nets import Spelled, settled  # noqa: E402

X = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "spelled": Spelled,
    "residual": lambda: zoo.build("resnet8", width=8, classes=nets.CLASSES),
    "inverted": lambda: zoo.build("mobilenet_v2_small", width=8, classes=nets.CLASSES),
}


class Odd(nn.Module):
    """A layer that runs twice, one without a bias, one whose output not only its norm reads."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.bare = nn.Conv2d(3, 4, 1, bias=False)
        self.seen = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bare(self.twice(F.relu(self.twice(x)))))
        y = self.seen(x)
        return self.norm(y) + y


def made(name: str, weights: int = 8, activations: int = 8) -> tuple[nn.Module, dict]:
    module = settled(nets.seeded(NETWORKS[name]))
    return module, prepare(module, X, "qat", "lsq", weights, activations)


def grids(module: nn.Module, edit: dict) -> dict[str, tuple[Tensor, Tensor]]:
    """Each layer's folded bias and the grid it is to lie on, from the layers themselves."""
    found = {}
    for call in edit["calls"]:
        if "weight" not in call:
            continue
        layer = module.get_submodule(edit["quantizers"][call["weight"]]["parameter"][:-7])
        own = layer.bias.double() if layer.bias is not None else torch.zeros(1).double()
        reads = of(module)[call["reads"]]
        span = (reads.high - reads.low) * reads.step.double()
        grid = span / 255 * of(module)[call["weight"]].step.double()
        if "norm" in call:
            norm = module.get_submodule(call["norm"])
            k = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            own = k * (own - norm.running_mean.double()) + norm.bias.double()
            grid = grid * k.abs()
        found[call["weight"]] = own.detach(), grid.detach()
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (2, 2)])
def test_every_bias_is_a_multiple_of_what_the_engine_adds(name: str, bits: tuple[int, int]) -> None:
    module, edit = made(name, *bits)
    before = grids(module, edit)
    settle(module, edit)
    for layer, (bias, grid) in grids(module, edit).items():
        counts = bias / grid
        slack = 0.02 + 3e-7 * counts.abs()  # float32 holds no more
        assert ((counts - counts.round()).abs() < slack).all(), layer
        moved = (bias - before[layer][0]).abs() / grid
        assert (moved < 0.5 + slack).all(), layer
    assert any(((b / g) - (b / g).round()).abs().max() > 0.2 for b, g in before.values()), (
        "they lay there before: the test shows nothing"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_settling_twice_is_settling_once(name: str) -> None:
    module, edit = made(name)
    settle(module, edit)
    once = {k: v.clone() for k, v in module.state_dict().items()}
    settle(module, edit)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, once[key], rtol=0, atol=1e-6)


def test_only_biases_move() -> None:
    module, edit = made("residual")
    before = {k: v.clone() for k, v in module.state_dict().items()}
    settle(module, edit)
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(k.endswith(".bias") for k in moved)


def test_what_has_no_grid_of_its_own_stays() -> None:
    module = nets.seeded(Odd).eval()
    edit = prepare(module, X, "qat", "lsq", 8, 8)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    settle(module, edit)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
