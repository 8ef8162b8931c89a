"""Which layers become products: found by name, timed on the engine, chosen by what they lose."""

from __future__ import annotations

import itertools
from math import log
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv import target  # noqa: E402
from edgecv.context import Context  # noqa: E402
from edgecv.errors import ModelError, RecipeError  # noqa: E402
from edgecv.measuring.jobs import Times  # noqa: E402
from edgecv.measuring.run import Measuring  # noqa: E402
from edgecv.methods.lowrank import choice, history, timing  # noqa: E402
from edgecv.methods.lowrank.choice import Option  # noqa: E402
from edgecv.methods.lowrank.form import Shape  # noqa: E402
from edgecv.methods.lowrank.layers import chosen, covariance, found  # noqa: E402
from edgecv.methods.lowrank.tucker2 import Tucker2  # noqa: E402
from tests import networks as nets  # noqa: E402

X = torch.randn(2, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Layers that cannot be replaced: each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.depthwise = nets.conv(3, 4), nets.conv(4, 4, groups=4)
        self.one, self.other, self.read = nets.conv(4, 4), nets.conv(4, 4), nets.conv(4, 4)
        self.other.weight, self.norm = self.one.weight, nn.BatchNorm2d(4)
        self.own, self.unused = Scaled(4, 4, 1), nets.conv(4, 4)
        self.head = nn.Linear(4, nets.CLASSES)

    def forward(self, x):
        x = self.norm(self.other(self.one(self.depthwise(self.plain(x)))))
        x = self.own(nn.functional.conv2d(x, self.read.weight))
        return self.head(x.mean((2, 3)))


class Scaled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_layers_that_run_are_found_with_what_stands_against_them() -> None:
    layers = {layer.name: layer for layer in found(Odd(), X[:1])}
    assert list(layers) == ["plain", "depthwise", "one", "other", "own", "head"]
    assert layers["plain"].refusal == layers["head"].refusal == ""
    assert "grouped" in layers["depthwise"].refusal
    assert "shares its weight" in layers["one"].refusal
    assert "forward of its own" in layers["own"].refusal
    assert layers["plain"].shape.result == (nets.SIZE, nets.SIZE)
    assert layers["head"].shape.macs == 4 * nets.CLASSES


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], {"plain", "depthwise", "one", "other", "own", "head"}),
        (["p*", "head"], {"plain", "head"}),
    ],
)
def test_names_are_patterns(patterns: list[str], names: set[str]) -> None:
    module = Odd()
    assert chosen(found(module, X[:1]), patterns, module, "low") == names


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("plane", "no layer 'plane' (did you mean 'plain'?)"),
        ("zzz*", "no layer 'zzz*' (its layers: plain, depthwise"),
        ("norm", "'norm' is a BatchNorm2d (its layers can be plain"),
        ("unused", "'unused' is a Conv2d that does not run by itself"),
        ("depthwise", "layer 'depthwise' is a grouped convolution already"),
    ],
)
def test_a_name_that_matches_nothing(pattern: str, said: str) -> None:
    module = Odd()
    with pytest.raises(RecipeError) as caught:
        chosen(found(module, X[:1]), ["plain", pattern], module, "low")
    assert str(caught.value).startswith("low: layers: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(3, 5, (1, 3), padding="same", dilation=2),
     nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular")],
)  # fmt: skip
def test_covariance_is_of_the_patches_that_the_weight_meets(layer: nn.Conv2d) -> None:
    """E‖W x‖² by C is the mean energy of the layer's own outputs."""
    layer.bias.data.zero_()
    x = torch.randn(4, 3, 8, 8)
    c = covariance(nn.Sequential(layer), "0", x)
    w = layer.weight.detach().double().reshape(5, -1).numpy()
    y = layer(x).detach().double()
    energy = float(y.square().sum(1).mean())
    assert np.trace(w @ c @ w.T) == pytest.approx(energy, rel=5e-3)  # the ridge is a thousandth


def fake(ms: float, *ratios: float) -> Times:
    return Times(ms, (1.0, *ratios), (1.0, *ratios))


OPTIONS = {
    "a": [Option(), Option((8,), 0.2), Option((16,), 0.05)],
    "b": [Option(), Option((8,), 0.5), Option((16,), 0.01)],
}
TIMES = {"cpu": {"a": fake(1.0, 0.2, 0.5), "b": fake(2.0, 0.3, 0.6)},
         "openvino": {"a": fake(0.5, 0.4, 0.9), "b": fake(1.0, 0.2, 0.5)}}  # fmt: skip
OTHERS = {"cpu": 0.5, "openvino": 0.2}


@pytest.mark.parametrize("share", [0.95, 0.8, 0.7, 0.6, 0.5, 0.42])
def test_the_choice_is_the_best_of_all(share: float) -> None:
    def fits(a: int, b: int) -> bool:
        return all(
            row["a"].ms * row["a"].ratios[a] + row["b"].ms * row["b"].ratios[b] + OTHERS[t]
            <= share * (row["a"].ms + row["b"].ms + OTHERS[t]) + 1e-9
            for t, row in TIMES.items()
        )

    def loss(a: int, b: int) -> float:
        return -sum(log(1 - OPTIONS[n][i].error) for n, i in (("a", a), ("b", b)))

    able = [p for p in itertools.product(range(3), range(3)) if fits(*p)]
    best = min((loss(*p) for p in able), default=None)
    picked = choice.choose(OPTIONS, TIMES, OTHERS, share)
    if best is None:
        assert picked is None
        return
    assert picked is not None
    assert (picked["a"], picked["b"]) in able
    assert loss(picked["a"], picked["b"]) == pytest.approx(best)


def test_the_nearest_share_can_be_reached_and_no_smaller_one() -> None:
    least = choice.fastest(OPTIONS, TIMES, OTHERS)
    assert choice.choose(OPTIONS, TIMES, OTHERS, least + 1e-6) is not None
    assert choice.choose(OPTIONS, TIMES, OTHERS, least - 1e-3) is None


def test_a_win_is_judged_by_the_upper_ends() -> None:
    times = {"cpu": Times(1.0, (1.0, 0.5), (1.0, 0.9)), "openvino": Times(refusal="no engine")}
    assert choice.at_most(times, 1) == pytest.approx(0.9)
    assert choice.at_most({"cpu": Times(refusal="no engine")}, 1) is None


def measuring(room: Path) -> Context:
    return nets.context(room, doing=Measuring())


def test_layers_are_timed_beside_their_factors(tmp_path: Path) -> None:
    """A convolution of many channels against a sixteenth of its work, on two engines."""
    shape = Shape("conv", (64, 64), (3, 3), padding=(1, 1), size=(14, 14), result=(14, 14))
    options = {"layer": [[shape], Tucker2().parts(shape, (8, 8))]}
    room = measuring(tmp_path)
    for name in ("cpu", "tflite"):
        found = timing.times(options, target.load(name), False, 2.0, 0, room)["layer"]
        assert found.refusal == ""
        assert found.ms > 0
        assert found.ratios[1] < 0.6
        assert found.highs[1] < 0.8


def test_a_layer_that_an_engine_cannot_be_given_says_why(tmp_path: Path) -> None:
    shape = Shape("conv", (8, 8), (3, 3), groups=2, size=(6, 6), result=(4, 4))
    found = timing.times(
        {"layer": [[shape]]}, target.load("tflite"), False, 1.0, 0, measuring(tmp_path)
    )["layer"]
    assert found.ratios == ()
    assert "groups" in found.refusal


def test_targets_without_a_clock_here_say_why() -> None:
    usable, reasons = timing.measurable([target.load("cpu"), target.load("edgetpu")])
    assert [t.name for t in usable] == ["cpu"]
    assert set(reasons) == {"edgetpu"}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"layers": {"9": {"form": "svd", "ranks": [2]}}}, "names layer '9', which is not there"),
        ({"layers": {"0": {"form": "tt", "ranks": [2]}}}, "unknown form 'tt'"),
        ({"layers": {"0": {"form": "tucker2", "ranks": [2]}}}, "does not fit layer '0'"),
        ({"layers": {"1": {"form": "svd", "ranks": [2]}}}, "does not fit layer '1'"),
        ({"op": "structured", "layers": {"0": {"structure": "toeplitz", "rank": 1}}}, "fit layer"),
    ],
)
def test_an_edit_that_does_not_fit_is_a_model_error(edit: dict, said: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(ModelError, match=said):
        history.replay(module, {"op": "factorize", "step": "low", **edit})


def test_a_layer_with_two_names_is_replaced_under_both() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential())
    module[1].again = module[0]
    edit = {"op": "factorize", "step": "s", "layers": {"0": {"form": "svd", "ranks": [2]}}}
    history.replay(module, edit)
    assert module[1].again is module[0]
    assert isinstance(module[0], nn.Sequential)
