"""Every criterion finds what it is made to find; golden numbers by hand where there are numbers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import UnsupportedError  # noqa: E402
from edgecv.methods.pruning import criteria, groups  # noqa: E402
from edgecv.methods.pruning.criteria import hessian, lamp, thinet  # noqa: E402
from edgecv.methods.pruning.probe import probe  # noqa: E402
from edgecv.methods.pruning.shapes import example_of  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from tests import networks as nets  # noqa: E402

NAMES = criteria.names()


def found(module: nn.Module, out: Path, method: str) -> tuple[list, list]:
    context = nets.context(out)
    every = groups.find(module, example_of(context), "here")
    return criteria.score(method, every, probe(module, context, 24))


def two_layers() -> nn.Module:
    """conv, ReLU, conv, pool, dense: one group of eight channels, and one of four."""
    return nn.Sequential(
        nets.conv(3, 8), nn.ReLU(), nets.conv(8, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, nets.CLASSES),
    )  # fmt: skip


def test_what_is_listed_can_be_written_in_a_recipe() -> None:
    assert sorted(get_args(Prune.model_fields["method"].annotation)) == NAMES


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("net", ["residual", "inverted-residual", "concat", "flatten"])
def test_scores_are_one_for_each_channel(method: str, net: str, tmp_path: Path) -> None:
    module = nets.seeded(nets.PRUNABLE[net])
    if method == "bn_scale":
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            nn.init.uniform_(norm.weight)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    every, scores = found(module, tmp_path, method)
    for group, score in zip(every, scores, strict=True):
        assert score.shape == (group.width,)
        assert bool((score >= 0).all())
    assert any(len(s.unique()) > 1 for s in scores)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), f"{method} changed {name}"
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("method", sorted(set(NAMES) - {"random", "fpgm", "l1", "l2", "lamp"}))
def test_channels_that_are_never_read_matter_least(method: str, tmp_path: Path) -> None:
    """Filters that are silent (bias far below zero); of bn_scale a zero scale."""
    module = nn.Sequential(
        nets.conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nets.conv(8, 4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, nets.CLASSES),
    )  # fmt: skip
    torch.manual_seed(1)
    for layer in module:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    with torch.no_grad():
        module[1].bias[[2, 5]] = -10.0
        module[1].weight[[2, 5]] = 0.0
        module[7].weight *= 20.0  # answers that depend on what is read
    every, scores = found(module.eval(), tmp_path, method)
    first = next(s for g, s in zip(every, scores, strict=True) if g.name == "0")
    # gates that close others make up for them: some that are read may close as well
    few = 4 if method == "gates" else 2
    assert {2, 5} <= set(torch.argsort(first, stable=True)[:few].tolist())
    assert first[[2, 5]].max() < 0.1 * first.max()


@pytest.mark.parametrize("method", ["l1", "l2"])
def test_norms_by_hand(method: str, tmp_path: Path) -> None:
    module = two_layers()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)
    every, scores = found(module, tmp_path, method)
    assert [g.width for g in every] == [8, 4] or [g.width for g in every] == [4, 8]
    for score in scores:
        torch.testing.assert_close(score, torch.ones_like(score))  # all alike, mean 1
    with torch.no_grad():  # channel 0 of the first: 27 + 36 weights of 0.5 become 1.0
        module[0].weight[0] = 1.0
        module[2].weight[:, 0] = 1.0
    every, scores = found(module, tmp_path, method)
    first = next(s for g, s in zip(every, scores, strict=True) if g.width == 8)
    assert float(first[0] / first[1]) == pytest.approx(2.0, rel=1e-5)


def test_fpgm_takes_the_filter_in_the_middle(tmp_path: Path) -> None:
    module = two_layers()
    with torch.no_grad():
        for i in range(8):
            module[0].weight[i] = float([-4, -3, -2, 0, 0.1, 2, 3, 4][i])
    every, scores = found(module, tmp_path, "fpgm")
    first = next(s for g, s in zip(every, scores, strict=True) if g.width == 8)
    assert set(torch.argsort(first)[:2].tolist()) == {3, 4}


def test_lamp_by_hand() -> None:
    torch.testing.assert_close(
        lamp.adaptive(torch.tensor([4.0, 1.0, 3.0])), torch.tensor([1.0, 1 / 8, 3 / 7])
    )


def test_apoz_says_nothing_where_nothing_is_zero(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = nn.Sequential(
        nets.conv(3, 8), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    with pytest.raises(UnsupportedError, match="apoz says nothing of any layer"):
        found(module, tmp_path, "apoz")
    assert "says nothing of 0: kept" in caplog.text


def test_bn_scale_says_nothing_without_batch_norm(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="bn_scale says nothing"):
        found(two_layers(), tmp_path, "bn_scale")


def test_the_hessian_of_a_quadratic_is_its_diagonal(tmp_path: Path) -> None:
    """Hutchinson on ½ Σ a w²: exact, since the Hessian is diagonal."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    scale = torch.tensor([1.0, 5.0, 0.5])

    class Fake:
        context = nets.context(tmp_path)
        batches = ((torch.zeros(1), torch.zeros(1)),)
        images = 1

    def loss(*_: object) -> torch.Tensor:
        return 0.5 * (scale * weight.square()).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hessian, "loss", loss)
        (diagonal,) = hessian.diagonal(Fake(), [weight])
    torch.testing.assert_close(diagonal, scale)


def test_thinet_removes_what_cancels_and_rescales(tmp_path: Path) -> None:
    """Twins: the second of two equal channels can go when the first is doubled."""
    module = two_layers()
    torch.manual_seed(0)
    with torch.no_grad():
        module[0].weight[1] = module[0].weight[0]
        module[0].bias[1] = module[0].bias[0]
        module[2].weight[:, 1] = module[2].weight[:, 0]
    context = nets.context(tmp_path)
    every = groups.find(module, example_of(context), "here")
    index = next(i for i, g in enumerate(every) if g.width == 8)
    kept = [torch.arange(g.width) for g in every]
    kept[index] = torch.tensor([0, 2, 3, 4, 5, 6, 7])
    sample = probe(module, context, 40)
    x = sample.batches[0][0]
    wanted = module[2](module[1](module[0](x))).detach()
    ratio = {}
    for rescaled in (False, True):
        if rescaled:
            thinet.rescale(every, kept, sample)
        read = module[1](module[0](x))
        read[:, 1] = 0
        ratio[rescaled] = float((module[2](read) - wanted).norm() / wanted.norm())
    assert ratio[True] < 0.2 * ratio[False]


def test_greedy_growth_adds_up_to_the_error() -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    gram = x.T @ x
    growth = thinet._growth(gram)
    assert float(growth.sum()) >= 0.999 * float(gram.sum())
    first = int(gram.diagonal().argmin())
    assert float(growth[first]) == pytest.approx(float(gram[first, first]), rel=1e-5)


def test_taylor_compares_layers_by_the_root(tmp_path: Path) -> None:
    """Every channel of a layer cut in two halves: the same network, and 1/√2 of the sum."""
    narrow = nets.seeded(two_layers)
    wide = nn.Sequential(nets.conv(3, 16), nn.ReLU(), nets.conv(16, 4), *list(narrow)[3:])
    with torch.no_grad():
        wide[0].weight.copy_(narrow[0].weight.repeat_interleave(2, 0))
        wide[0].bias.copy_(narrow[0].bias.repeat_interleave(2))
        wide[2].weight.copy_(narrow[2].weight.repeat_interleave(2, 1) / 2)
        wide[2].bias.copy_(narrow[2].bias)
    sums = []
    for module in (narrow, wide):
        every, scores = found(module.eval(), tmp_path, "taylor")
        sums.append({g.name: float(s.sum()) for g, s in zip(every, scores, strict=True)})
    assert [g.width for g in every if g.name == "0"] == [16]
    assert sums[1]["0"] == pytest.approx(sums[0]["0"] / 2**0.5, rel=1e-4)
    assert sums[1]["2"] == pytest.approx(sums[0]["2"], rel=1e-4)
