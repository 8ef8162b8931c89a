"""Asked for MACs, bytes or a time, the stage reaches it or says what is nearest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgecv import target  # noqa: E402
from edgecv.errors import BudgetError, RecipeError, StageError, TargetError  # noqa: E402
from edgecv.methods.pruning import place, rounds, tables, whole  # noqa: E402
from edgecv.methods.pruning.shapes import macs, size_bytes  # noqa: E402
from edgecv.methods.training.loop import Trainer  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from tests import networks as nets  # noqa: E402

X = torch.randn(2, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(3))
ARGS = {"width": 16, "classes": nets.CLASSES}


def prune(out: Path, **options) -> tuple[torch.nn.Module, dict]:
    module = nets.seeded(nets.PRUNABLE["residual"])
    context = nets.context(out, alignment=options.pop("alignment", 4), where="small",
                           targets=options.pop("targets", ()))  # fmt: skip
    stage = Prune(**{"finetune_epochs": 0, "method": "l2", "batch_size": 4, **options})
    stage.run((Model("zoo:resnet8", ARGS), module), context)
    return module, Model.read(out).facts["small"]


class Engine:
    """In place of `whole.Whole`: time goes with the square root of the MACs, and is counted."""

    calls = 0

    def __init__(self, dense, context, *_: object) -> None:
        self.context = context
        self.dense = macs(dense, context)

    def measure(self, module) -> whole.Measured:
        Engine.calls += 1
        ratio = (macs(module, self.context) / self.dense) ** 0.5
        return whole.Measured(ratio, 2 * ratio, 2.0, (ratio, ratio))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    Engine.calls = 0
    monkeypatch.setattr(whole, "Whole", Engine)
    monkeypatch.setattr(
        tables, "on_target",
        lambda *_: tables.Table(lambda lines: [[p.macs / 1e6 for p in line] for line in lines]),
    )  # fmt: skip


def targets() -> tuple[target.Target, ...]:
    return tuple(target.load(name) for name in ("edgetpu", "cpu", "openvino"))


@pytest.mark.parametrize("share", [0.7, 0.5, 0.3])
def test_a_share_of_the_macs_is_reached(share: float, tmp_path: Path) -> None:
    module, facts = prune(tmp_path, macs=share, alignment=1)
    assert facts["macs"] / facts["macs_before"] == pytest.approx(share, rel=0.05)
    assert macs(module, nets.context(tmp_path)) == facts["macs"]


def test_a_size_is_reached(tmp_path: Path) -> None:
    before = size_bytes(nets.seeded(nets.PRUNABLE["residual"]))
    module, facts = prune(tmp_path, size_mb=0.4 * before / 1e6, alignment=1)
    assert size_bytes(module) == pytest.approx(0.4 * before, rel=0.05)
    assert facts["rounds"][0]["reached"] == pytest.approx(0.4, rel=0.05)
    with pytest.raises(StageError, match="is met already"):
        prune(tmp_path / "more", size_mb=1.0)


@pytest.mark.parametrize("asked", [{"latency_ratio": 0.6}, {"latency_ms": 1.2}])
@pytest.mark.usefixtures("engine")
def test_a_time_is_reached_on_the_first_target_that_runs_here(asked: dict, tmp_path: Path) -> None:
    module, facts = prune(tmp_path, alignment=2, targets=targets(), **asked)
    found = facts["rounds"][0]
    context = nets.context(tmp_path)
    real = (macs(module, context) / facts["macs_before"]) ** 0.5
    assert real == pytest.approx(0.6, rel=0.05)
    assert found["reached"] == pytest.approx(real, abs=1e-4)
    assert found["target"] == "cpu"
    assert found["asked"] == asked
    assert sum(t["chosen"] for t in found["tried"]) == 1
    assert Engine.calls <= 10


@pytest.mark.usefixtures("engine")
def test_rounds_reach_it_together_and_the_curve_is_kept(tmp_path: Path) -> None:
    module, facts = prune(
        tmp_path, latency_ratio=0.5, rounds=2, round_epochs=1, finetune_epochs=1, alignment=1,
        targets=targets(), on="openvino", method="taylor",
    )  # fmt: skip
    assert [r["target"] for r in facts["rounds"]] == ["openvino", "openvino"]
    assert facts["rounds"][0]["reached"] == pytest.approx(0.5**0.5, rel=0.1)
    assert facts["rounds"][1]["reached"] == pytest.approx(0.5, rel=0.06)
    assert [point["step"] for point in facts["curve"]] == [
        "dense", "round 1, cut", "round 1, recalibrated", "round 1, tuned",
        "round 2, cut", "round 2, recalibrated", "round 2, tuned",
    ]  # fmt: skip
    assert facts["epochs"] == 2
    _, loaded = Model.load(tmp_path)
    torch.testing.assert_close(loaded(X), module.eval()(X))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


@pytest.mark.usefixtures("engine")
def test_what_cannot_be_reached_ends_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"latency_ratio 0\.1 is not reached; the nearest: ") as e:
        prune(tmp_path, latency_ratio=0.1, alignment=16, targets=targets())
    assert e.value.exit_code == 1
    assert "with widths" in str(e.value)
    assert "set `align` lower" in str(e.value)


def test_steps_that_are_too_coarse_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "COARSE", 0.05)
    with caplog.at_level(logging.WARNING):
        prune(tmp_path, macs=0.95, alignment=32)
    assert "falls between two steps of 32 channels" in caplog.text


def test_no_target_that_runs_here_is_an_error() -> None:
    with pytest.raises(TargetError, match="no target of the recipe runs on this machine"):
        place.here((target.load("rpi5"), target.load("tensorrt")), None, "small")
    with pytest.raises(TargetError, match="on: rpi5: this machine is not the device"):
        place.here((), "rpi5", "small")
    assert place.here((), "cpu", "small").name == "cpu"


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.usefixtures("engine")
def test_a_killed_run_goes_on_with_the_widths_it_had(
    epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "latency_ratio": 0.6, "rounds": 2, "round_epochs": 1, "finetune_epochs": 2,
        "alignment": 2, "method": "thinet", "sparse_epochs": 1, "targets": targets(),
    }  # fmt: skip
    whole_run, facts = prune(tmp_path / "whole", **options)
    original = Trainer._epoch

    def killed(self, number: int, total: int) -> None:
        if number == epoch and self.plan.epochs == 2:
            raise KeyboardInterrupt
        original(self, number, total)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path / "killed", **options)
    calls = Engine.calls
    resumed, again = prune(tmp_path / "killed", **options)
    assert Engine.calls == calls, "nothing is measured anew"
    assert again == facts
    for (name, a), b in zip(
        whole_run.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_control_trains_the_same_shape_for_as_long(tmp_path: Path) -> None:
    module = nets.seeded(nets.PRUNABLE["residual"])
    model = Model("zoo:resnet8", ARGS, facts={"dense": {"epochs": 2, "top1": 0.5}})
    context = nets.context(tmp_path, alignment=4, where="small")
    stage = Prune(method="l1", ratio=0.5, finetune_epochs=1, batch_size=4, control="scratch")
    stage.run((model, module), context)
    found = Model.read(tmp_path).facts["small"]["scratch"]
    assert found["epochs"] == 3
    assert 0.0 <= found["top1"] <= 1.0
    assert not (tmp_path / "scratch").exists()


def test_sparse_training_makes_scales_smaller(tmp_path: Path) -> None:
    sums = []
    for sparsity in (0.0, 0.05):
        module, facts = prune(
            tmp_path / str(sparsity), method="bn_scale", sparse_epochs=1, sparsity=sparsity,
            macs=0.8,
        )  # fmt: skip
        assert facts["curve"][1]["step"] == "sparse scales"
        sums.append(sum(float(m.weight.detach().abs().mean()) for m in module.modules()
                        if isinstance(m, torch.nn.BatchNorm2d)))  # fmt: skip
    assert sums[1] < sums[0]


def test_recalibrated_norms_have_the_statistics_of_their_inputs(tmp_path: Path) -> None:
    module, _ = prune(tmp_path, ratio=0.5, recalibrate=True)
    context = nets.context(tmp_path)
    seen = {}
    layer = module.stem[0]
    hook = layer.register_forward_hook(lambda _m, _x, y: seen.update(y=y.detach()))
    x = torch.from_numpy(context.preprocess.normalise(context.images("train").pixels))
    module.eval()(x)
    hook.remove()
    torch.testing.assert_close(
        module.stem[1].running_mean, seen["y"].mean((0, 2, 3)), atol=1e-4, rtol=1e-3
    )


def test_layers_that_are_to_stay_do(tmp_path: Path) -> None:
    module, _ = prune(tmp_path, keep=("stage3.*",))
    assert module.stage3[0].conv1.out_channels == 64
    assert module.stage2[0].conv1.out_channels == 16
    with pytest.raises(RecipeError, match=r"no layer matches 'stage3\.0\.con1'.*did you mean"):
        prune(tmp_path / "x", keep=("stage3.0.con1",))


def test_one_thing_is_asked_for() -> None:
    assert Prune().asked == ("ratio", 0.5)
    assert Prune(macs=0.3).asked == ("macs", 0.3)
    with pytest.raises(ValueError, match=r"give one of ratio, .*, not ratio and macs"):
        Prune(ratio=0.5, macs=0.5)


def test_only_a_measured_step_depends_on_target_and_machine() -> None:
    both = (target.load("cpu"), target.load("openvino"))
    assert Prune(latency_ratio=0.5).measures(both) == both[:1]
    assert Prune(latency_ms=1.0, on="openvino").measures(both) == both[1:]
    assert Prune(macs=0.5).measures(both) == ()


def test_on_is_a_word_in_a_recipe_although_yaml_thinks_otherwise() -> None:
    import yaml

    from edgecv.yaml_validation import Where, validated

    values = yaml.safe_load("{latency_ratio: 0.5, on: cpu}")
    stage = validated(Prune, values, Where(Path("my.yaml"), {}), "stages", 0, "prune")
    assert stage.on == "cpu"


def test_by_ratio_is_a_multiple_and_never_empty() -> None:
    scores = [torch.rand(24), torch.rand(8)]
    assert rounds.by_ratio(scores, 0.01, "layer", 8) == (8, 8)
    assert rounds.by_ratio(scores, 0.5, "layer", 4) == (12, 4)
