"""Connections that were taken out stay out, as many as were asked for, also through a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.errors import RecipeError, UnsupportedError  # noqa: E402
from edgecv.methods.pruning import connections  # noqa: E402
from edgecv.models.edits import describe  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.sparsify import Sparsify  # noqa: E402
from tests import networks as nets  # noqa: E402

X = torch.randn(2, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(3))


def sparsify(out: Path, module: nn.Module | None = None, **options) -> tuple[nn.Module, dict]:
    module = module or nets.seeded(nets.PRUNABLE["residual"])
    stage = Sparsify(**{"epochs": 2, "finetune_epochs": 1, "batch_size": 4, **options})
    stage.run((Model("none:here"), module), nets.context(out, where="few"))
    return module, Model.read(out).facts["few"]


@pytest.mark.parametrize("method", ["magnitude", "movement"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_as_many_stay_as_were_asked_for(method: str, scope: str, tmp_path: Path) -> None:
    module, facts = sparsify(tmp_path, method=method, scope=scope, sparsity=0.75)
    zeros = {n: int((module.get_submodule(n).weight == 0).sum()) for n in facts["layers"]}
    assert facts["connections"] - sum(zeros.values()) == facts["connections_kept"]
    assert facts["connections_kept"] == pytest.approx(0.25 * facts["connections"], rel=0.01)
    if scope == "layer":
        for kept, total in facts["layers"].values():
            assert kept == round(0.25 * total)
    assert facts["bytes_values_and_bitmask"] < 0.4 * facts["bytes_dense"]
    assert facts["bytes_compressed"] < facts["bytes_dense"]
    assert "not won" in facts["time"]
    assert facts["epochs"] == 3


def test_two_of_four_along_the_input_channels(tmp_path: Path) -> None:
    module, facts = sparsify(tmp_path, method="nm")
    assert "stem.0" not in facts["layers"]
    for name in facts["layers"]:
        weight = module.get_submodule(name).weight.detach().movedim(1, -1)
        assert int((weight.reshape(-1, 4) != 0).sum(1).max()) == 2
    assert not any("parametrizations" in key for key in module.state_dict())


def test_a_saved_model_answers_as_the_trained_one(tmp_path: Path) -> None:
    module = nets.seeded(nets.PRUNABLE["residual"])
    context = nets.context(tmp_path, where="few")
    model = Model("zoo:resnet8", {"width": 16, "classes": nets.CLASSES})
    Sparsify(epochs=1, finetune_epochs=0, method="movement").run((model, module), context)
    again, loaded = Model.load(tmp_path)
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    torch.testing.assert_close(loaded(X), module.eval()(X))
    assert "connections of 9 layers" in describe(again.edits[0])


@pytest.mark.parametrize("method", ["magnitude", "movement", "nm"])
def test_a_killed_run_ends_the_same(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = sparsify(tmp_path / "whole", method=method)
    epoch = connections.Sparsifier._epoch

    def killed(self, number: int, total: int) -> None:
        if number == 1:
            raise KeyboardInterrupt
        epoch(self, number, total)

    with monkeypatch.context() as patch:
        patch.setattr(connections.Sparsifier, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            sparsify(tmp_path / "killed", method=method)
    resumed, _ = sparsify(tmp_path / "killed", method=method)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_named_layers_have_their_own_density(tmp_path: Path) -> None:
    _, facts = sparsify(tmp_path, density={"stem*": 0.5, "head": 1.0}, sparsity=0.9)
    kept = {n: k / total for n, (k, total) in facts["layers"].items()}
    assert kept["stem.0"] == pytest.approx(0.5, abs=0.01)
    assert kept["head"] == 1.0
    assert kept["stage3.0.conv2"] == pytest.approx(0.1, abs=0.01)


def test_an_l1_term_makes_weights_smaller(tmp_path: Path) -> None:
    sums = []
    for l1 in (0.0, 0.01):
        module, _ = sparsify(tmp_path / str(l1), l1=l1, sparsity=0.1)
        sums.append(float(module.stage2[0].conv1.weight.detach().abs().sum()))
    assert sums[1] < sums[0]


def test_averaged_weights_have_the_zeros_too(tmp_path: Path) -> None:
    _, facts = sparsify(tmp_path, ema=0.5, sparsity=0.5)
    assert facts["times_fewer"] == pytest.approx(2.0, rel=0.01)


def test_bad_input_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no layer matches 'stage1\.0\.con1'.*did you mean"):
        sparsify(tmp_path, density={"stage1.0.con1": 0.5})
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Sparsify(density={"head": 1.5})
    with pytest.raises(ValueError, match="N is below M"):
        Sparsify(pattern="4:4")
    lone = nn.Sequential(nets.conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UnsupportedError, match="no layer whose connections can go"):
        sparsify(tmp_path, lone)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.floats(0.01, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_schedule_falls_from_all_to_what_is_asked(final: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert connections.density_at(final, 0.0) == pytest.approx(1.0)
    assert connections.density_at(final, 1.0) == pytest.approx(final)
    assert connections.density_at(final, high) <= connections.density_at(final, low) + 1e-12


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from([(1, 2), (2, 4), (1, 4)]))
def test_a_pattern_keeps_the_largest(out: int, groups: int, pattern: tuple[int, int]) -> None:
    n, m = pattern
    weight = torch.randn(out, groups * m, 3, 3, generator=torch.Generator().manual_seed(out))
    mask = connections.pattern_mask(weight, n, m)
    assert mask.shape == weight.shape
    parts = (weight.abs() * mask).movedim(1, -1).reshape(-1, m)
    assert bool(((parts != 0).sum(1) == n).all())
    assert bool((parts.max(1).values == weight.abs().movedim(1, -1).reshape(-1, m).amax(1)).all())
