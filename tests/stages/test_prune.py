"""Channels are removed where they hang together, the right ones, in multiples of the alignment."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.errors import StageError, UnsupportedError  # noqa: E402
from edgecv.methods.pruning import groups  # noqa: E402
from edgecv.models.edits import replay  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.prune import Prune, macs  # noqa: E402
from tests import networks as nets  # noqa: E402

X = torch.zeros(2, 3, nets.SIZE, nets.SIZE)


def prune(module: nn.Module, out: Path, align: int = 4, channels: int = 3, **options) -> dict:
    """Prune in place without fine-tuning; return the edit."""
    context = nets.context(out, alignment=align, channels=channels)
    stage = Prune(**{"finetune_epochs": 0, "method": "l2", **options})
    stage.run((Model("none:here"), module), context)
    return Model.read(out).edits[0]


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def widths(edit: dict) -> list[int]:
    """Output widths of the convolutions and dense layers that lost channels."""
    return [len(k["out"]) for k in edit["modules"].values() if "was" in k]


@pytest.mark.parametrize("method", ["l1", "taylor"])
@pytest.mark.parametrize("name", nets.PRUNABLE)
def test_what_is_pruned_runs_and_replays(name: str, method: str, tmp_path: Path) -> None:
    make = nets.PRUNABLE[name]
    module, before = nets.seeded(make), nets.seeded(make)
    edit = prune(module, tmp_path, method=method)
    assert module(X).shape == (2, nets.CLASSES)
    assert sum(p.numel() for p in module.parameters()) < sum(p.numel() for p in before.parameters())
    assert widths(edit)
    assert all(w % 4 == 0 for w in widths(edit))
    fresh = nets.seeded(make, seed=1)
    replay(fresh, edit)
    assert shapes(fresh) == shapes(module)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh.eval()(X + 1), module.eval()(X + 1))


@pytest.mark.parametrize("name", nets.STIFF)
def test_what_cannot_be_followed_is_kept_and_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = nets.seeded(nets.STIFF[name])
    with caplog.at_level(logging.WARNING):
        edit = prune(module, tmp_path, align=1)
    assert "kept" in caplog.text
    assert module(X).shape == (2, nets.CLASSES)
    assert widths(edit)


@pytest.mark.parametrize("name", nets.REORDERED)
def test_channels_that_are_reordered_stay_and_the_rest_is_pruned(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = nets.seeded(lambda: nets.Between(nets.REORDERED[name]))
    with caplog.at_level(logging.WARNING):
        prune(module, tmp_path, align=4)
    assert "step: a " in caplog.text
    assert "kept" in caplog.text
    assert (module.a.out_channels, module.b.in_channels) == (16, 16)
    assert (module.b.out_channels, module.c.out_channels) == (8, 8)


@pytest.mark.parametrize("name", nets.PRUNABLE)
def test_without_channels_it_answers_as_if_nobody_read_them(name: str) -> None:
    module = nets.seeded(nets.PRUNABLE[name]).eval()
    x = torch.randn(2, 3, nets.SIZE, nets.SIZE)
    for group in groups.find(module, X[:1], "small"):
        kept = torch.arange(group.width // 2)
        trial, unread = copy.deepcopy(module), copy.deepcopy(module)
        replay(trial, groups.edit(module, [group], [kept], "small"))
        for member in group.consumers():
            columns = member.at[member.of >= group.width // 2]
            unread.get_submodule(member.name).weight.data[:, columns] = 0
        torch.testing.assert_close(trial(x), unread(x), rtol=1e-4, atol=1e-5)


def test_the_classes_are_never_pruned(tmp_path: Path) -> None:
    module = nets.TwoHeads()
    prune(module, tmp_path, align=1)
    assert module(X).shape == (2, 4)
    assert module.a.out_channels == 8


def test_a_convolution_that_ends_the_network_is_its_head(tmp_path: Path) -> None:
    module = nn.Sequential(
        nets.conv(3, 16), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    prune(module, tmp_path, align=1)
    assert (module[0].out_channels, module[2].out_channels) == (8, 4)


def test_a_network_without_layers_is_unsupported(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(UnsupportedError, match="no convolution and no dense layer"):
        prune(Mean(), tmp_path)


def test_a_lone_head_leaves_nothing_to_prune(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no layer whose channels can be removed"):
        prune(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), tmp_path)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("align", [1, 4, 8])
def test_widths_stay_multiples_and_above_zero(ratio: float, align: int, tmp_path: Path) -> None:
    module = nets.chain(nn.ReLU(), width=24)
    wanted = max(align, round(24 * (1 - ratio) / align) * align)
    if wanted == 24:
        with pytest.raises(StageError):
            prune(module, tmp_path, align=align, ratio=ratio)
    else:
        prune(module, tmp_path, align=align, ratio=ratio)
        assert module[0].out_channels == module[2].out_channels == wanted


def test_a_ratio_that_removes_nothing_is_an_error(tmp_path: Path) -> None:
    module = nets.chain(nn.ReLU())
    with pytest.raises(StageError, match=r"removes nothing: widths \[16\] stay multiples of 16"):
        prune(module, tmp_path, align=16)
    assert not list(tmp_path.iterdir())


def test_align_of_the_recipe_goes_before_the_targets(tmp_path: Path) -> None:
    module = nets.chain(nn.ReLU())
    stage = Prune(method="l1", ratio=0.6, finetune_epochs=0, align=2)
    stage.run((Model("none:here"), module), nets.context(tmp_path, alignment=16))
    assert module[0].out_channels == 6


@pytest.mark.parametrize("method", ["l1", "l2"])
def test_channels_without_weight_go_first(method: str, tmp_path: Path) -> None:
    module = nets.seeded(lambda: nets.chain(nn.ReLU()))
    dead = [1, 4, 5, 15]
    with torch.no_grad():
        for i in dead:  # everything that touches the channel
            module[0].weight[i] = module[0].bias[i] = 0
            module[2].weight[:, i] = 0
    before = module[2].weight.detach().clone()
    edit = prune(module, tmp_path, method=method, ratio=0.25)
    kept = [i for i in range(16) if i not in dead]
    assert edit["modules"]["0"]["out"] == edit["modules"]["2"]["in"] == kept
    rows = edit["modules"]["2"]["out"]
    assert torch.equal(module[2].weight, before[rows][:, kept])


def test_removing_dead_channels_changes_nothing(tmp_path: Path) -> None:
    module = nets.seeded(nets.PRUNABLE["residual"]).eval()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data[8:] = 0  # out
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data[8:] = layer.weight.data[8:] = 0
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = module(x)  # widths are 16, 32, 64: all but the first eight are dead
    edit = prune(module, tmp_path, method="l1", ratio=0.5, align=8)
    assert all(set(range(8)) <= set(k["out"]) for k in edit["modules"].values() if "was" in k)
    torch.testing.assert_close(module(x), before, atol=1e-5, rtol=1e-5)


def test_l1_and_l2_differ_where_one_weight_is_large(tmp_path: Path) -> None:
    """|w| = 9 ones against one 5: l1 keeps the many small ones, l2 the one large one."""
    kept = {}
    for method in ("l1", "l2"):
        module = nn.Sequential(
            nets.conv(1, 2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4)
        )
        weight = torch.zeros(2, 1, 3, 3)
        weight[0], weight[1, 0, 1, 1] = 1.0, 5.0
        module[0].weight.data = weight
        module[3].weight.data.zero_()
        edit = prune(module, tmp_path / method, method=method, align=1, channels=1)
        kept[method] = edit["modules"]["0"]["out"]
    assert kept == {"l1": [0], "l2": [1]}


def test_taylor_removes_what_the_loss_does_not_feel(tmp_path: Path) -> None:
    """Large filters whose outputs the head ignores: l2 keeps them, taylor does not."""
    kept = {}
    for method in ("l2", "taylor"):
        module = nets.seeded(
            lambda: nn.Sequential(
                nets.conv(3, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
            )
        )
        with torch.no_grad():
            module[0].weight[:4] *= 20
            module[4].weight[:, :4] = 0
        kept[method] = prune(module, tmp_path / method, method=method)["modules"]["0"]["out"]
    assert kept == {"l2": [0, 1, 2, 3], "taylor": [4, 5, 6, 7]}


def test_global_scope_takes_more_where_less_is_lost(tmp_path: Path) -> None:
    module = nets.seeded(lambda: nets.chain(nn.ReLU()))
    with torch.no_grad():
        module[0].weight[4:] *= 0.01  # twelve of sixteen hardly matter
        module[0].bias[4:] *= 0.01
        module[2].weight[:, 4:] *= 0.01
    edit = prune(module, tmp_path, scope="global", method="l1", ratio=0.4)
    assert edit["modules"]["0"]["out"] == [0, 1, 2, 3]
    assert module[2].out_channels > 8


def test_macs_of_resnet8_by_hand(tmp_path: Path) -> None:
    def resnet8(w: int, size: int, channels: int, classes: int) -> int:
        def conv(c_in: int, c_out: int, side: int, kernel: int = 3) -> int:
            return c_in * c_out * kernel**2 * side**2

        half, quarter = size // 2, size // 4
        total = conv(channels, w, size) + 2 * conv(w, w, size)
        total += conv(w, 2 * w, half) + conv(2 * w, 2 * w, half) + conv(w, 2 * w, half, 1)
        total += conv(2 * w, 4 * w, quarter) + conv(4 * w, 4 * w, quarter)
        return total + conv(2 * w, 4 * w, quarter, 1) + 4 * w * classes

    module = nets.PRUNABLE["residual"]()
    assert macs(module, nets.context(tmp_path)) == resnet8(16, 16, 3, 4)
    prune(module, tmp_path, ratio=0.5, align=8)
    assert macs(module, nets.context(tmp_path)) == resnet8(8, 16, 3, 4)
    facts = Model.read(tmp_path).facts["step"]
    assert (facts["macs_before"], facts["macs"]) == (resnet8(16, 16, 3, 4), resnet8(8, 16, 3, 4))


def test_fine_tuning_is_told_and_saved(tmp_path: Path) -> None:
    module = nets.seeded(nets.PRUNABLE["residual"])
    context = nets.context(tmp_path, alignment=8, where="small")
    Prune(finetune_epochs=1).run((Model("none:here"), module), context)
    facts = Model.read(tmp_path).facts["small"]
    assert facts["epochs"] == 1
    assert {"top1", "top1_before_finetuning", "loss", "channels"} <= facts.keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = ("plain", "residual", "depthwise", "concat", "norm", "pool")
    return draw(
        st.lists(st.tuples(st.sampled_from(kinds), st.integers(1, 4)), min_size=1, max_size=5)
    )


class Random(nn.Module):
    """A network of drawn blocks: (kind, width in fours)."""

    def __init__(self, blocks: list[tuple[str, int]]) -> None:
        super().__init__()
        self.blocks, self.kinds, width = nn.ModuleList(), [k for k, _ in blocks], 8
        self.stem = nets.conv(3, width)
        for kind, fours in blocks:
            new = 4 * fours
            made = {
                "plain": lambda a=width, b=new: (nets.conv(a, b), b),
                "residual": lambda a=width: (nets.conv(a, a, bias=False), a),
                "depthwise": lambda a=width: (nets.conv(a, a, groups=a), a),
                "concat": lambda a=width, b=new: (nets.conv(a, b), a + b),
                "norm": lambda a=width: (nn.BatchNorm2d(a), a),
                "pool": lambda a=width: (nn.AvgPool2d(3, 1, 1), a),
            }[kind]()
            self.blocks.append(made[0])
            width = made[1]
        self.head = nn.Linear(width * 4, nets.CLASSES)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            y = torch.relu(block(x))
            x = x + y if kind == "residual" else torch.cat([x, y], 1) if kind == "concat" else y
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def silenced(module: nn.Module, edit: dict) -> nn.Module:
    """The dense network with the removed channels at zero instead."""
    silent = copy.deepcopy(module).eval()
    for name, kept in edit["modules"].items():
        layer = silent.get_submodule(name)
        if "was" in kept:
            gone = [i for i in range(kept["was"]) if i not in kept["out"]]
            layer.weight.data[gone] = 0
            if layer.bias is not None:
                layer.bias.data[gone] = 0
    return silent


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    blocks=layouts(),
    method=st.sampled_from(["l1", "l2", "taylor"]),
    scope=st.sampled_from(["layer", "global"]),
    ratio=st.floats(0.1, 0.9),
)
def test_any_network_runs_after_pruning_and_replays(
    blocks: list, method: str, scope: str, ratio: float, tmp_path: Path
) -> None:
    module, fresh = nets.seeded(lambda: Random(blocks)), Random(blocks)
    fresh.load_state_dict(module.state_dict())
    edit, refused = {}, ""
    try:
        edit = prune(module, tmp_path, method=method, scope=scope, ratio=ratio)
    except (StageError, UnsupportedError) as e:  # every width is the alignment's already
        refused = str(e)
    if not edit:
        assert "removes nothing" in refused or "no layer" in refused
        return
    assert all(w % 4 == 0 for w in widths(edit))
    x = torch.randn(2, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # every block maps a channel of zeros to zeros
        torch.testing.assert_close(silenced(fresh, edit)(x), module(x), atol=1e-5, rtol=1e-4)
    replay(fresh, edit)
    assert shapes(fresh) == shapes(module)


class Cbam(nn.Module):
    """A gate of one map, of the mean and the largest of all channels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(c, c // 4), nn.Linear(c // 4, c)
        self.place = nn.Conv2d(2, 1, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.b(torch.relu(self.a(x.mean((2, 3))))).sigmoid()[..., None, None]
        two = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.place(two).sigmoid()


class OneGate(nn.Module):
    """One number for the whole map."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Linear(c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x.mean((2, 3))).sigmoid()[..., None, None]


class Centred(nn.Module):
    """A reduction over channels."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(1, keepdim=True) * x.amax(1, keepdim=True).sigmoid()


@pytest.mark.parametrize("gate", [Cbam, OneGate, Centred])
def test_a_gate_of_one_channel_keeps_it(gate: type[nn.Module], tmp_path: Path) -> None:
    module = nets.seeded(lambda: nets.chain(nn.ReLU(), gate(16), nn.ReLU(), nets.conv(16, 16)))
    before = shapes(module)
    edit = prune(module, tmp_path, align=4)
    assert widths(edit)
    assert all(kept["out"] and kept.get("in", [0]) for kept in edit["modules"].values()
               if "was" in kept)  # fmt: skip
    after = shapes(module)
    for name in ("2.place.weight", "2.gate.weight"):
        if name in before:
            assert after[name][0] == 1
    assert after.get("2.place.weight", (1, 2))[1] == 2
    assert module(X).shape == (2, nets.CLASSES)
