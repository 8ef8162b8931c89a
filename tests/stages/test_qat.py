"""qat: what it saves replays anywhere, resumes after a kill, and stops with a reason."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.errors import StageError  # noqa: E402
from edgecv.measuring import facts as kept  # noqa: E402
from edgecv.methods.qat.attach import of  # noqa: E402
from edgecv.methods.qat.training import QuantizingTrainer  # noqa: E402
from edgecv.methods.training.loop import Trainer  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.plan import (  # noqa: E402
    pipeline,
    recipe,
)
from edgecv.stages.prune import Prune  # noqa: E402
from edgecv.stages.qat import Qat  # noqa: E402
from edgecv.stages.train import Train  # noqa: E402
from tests import networks as nets  # noqa: E402

ROOT = Path(__file__).parents[2]
X = torch.randn(4, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
QUICK = {"epochs": 3, "batch_size": 8, "flip": False}
ARGS = {"width": 8, "classes": nets.CLASSES}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A Model folder: a small residual network that knows the classes."""
    out = tmp_path_factory.mktemp("trained")
    module = nets.seeded(lambda: zoo.build("resnet8", **ARGS))
    Train(epochs=6, lr=0.01, batch_size=8, flip=False).run(
        (Model("zoo:resnet8", ARGS), module), nets.context(out)
    )
    return out


def qat(source: Path, out: Path, context: dict | None = None, **options) -> dict:
    """Run the stage; the facts that it left."""
    stage = Qat(**{**QUICK, **options})
    stage.run(Model.load(source), nets.context(out, where="q", **(context or {})))
    return Model.read(out).facts["q"]


@pytest.mark.parametrize("method", ["lsq", "pact"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_it_learns_with_any_bits(trained: Path, tmp_path: Path, method: str, bits: int) -> None:
    facts = qat(trained, tmp_path, method=method, weight_bits=bits, activation_bits=bits)
    assert facts["top1_float"] == Model.read(trained).facts["step"]["top1"]
    assert facts["top1"] >= (0.9 if bits > 2 else 0.6)
    assert facts["loss"][-1] < max(facts["loss_before"], 0.7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_steps_are_learned_and_saved(trained: Path, tmp_path: Path) -> None:
    qat(trained, tmp_path / "a")
    qat(trained, tmp_path / "b", lr=1e-12)
    one, still = (load_file(tmp_path / n / "weights.safetensors") for n in "ab")
    steps = [k for k in one if k.startswith("fake_quantizers.")]
    assert len(steps) == 10 + 16 - 1
    moved = [k for k in steps if not torch.equal(one[k], still[k])]
    assert len(moved) > 0.9 * len(steps)


def test_another_process_computes_the_same_bits(trained: Path, tmp_path: Path) -> None:
    qat(trained, tmp_path, weight_bits=4, activation_bits=4)
    _, module = Model.load(tmp_path)
    save_file({"x": X}, tmp_path / "x.safetensors")
    code = (
        "import sys, torch; from pathlib import Path; from edgecv.models.model import Model\n"
        "from safetensors.torch import load_file, save_file\n"
        "torch.set_num_threads(1); out = Path(sys.argv[1]); _, net = Model.load(out)\n"
        "x = load_file(out / 'x.safetensors')['x']\n"
        "save_file({'y': net(x).detach().contiguous()}, out / 'y.safetensors')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    torch.set_num_threads(1)
    assert torch.equal(load_file(tmp_path / "y.safetensors")["y"], module(X))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_a_killed_run_ends_in_the_same_bytes(trained: Path, tmp_path: Path, method: str) -> None:
    options = {"method": method, "weight_bits": 4, "activation_bits": 4, "ema": 0.9}
    facts = qat(trained, tmp_path / "whole", **options)

    def die(done: int, *_: object) -> None:
        if done == 12:  # 5 steps an epoch: in the third, where batch norm is frozen
            raise KilledError

    with pytest.raises(KilledError):
        qat(trained, tmp_path / "killed", {"progress": die}, **options)
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists()
    seen: list[int] = []
    again = qat(trained, tmp_path / "killed", {"progress": lambda n, *_: seen.append(n)}, **options)
    assert seen[0] == 11
    assert again == facts
    for name in ("model.json", "weights.safetensors"):
        one, two = ((tmp_path / n / name).read_bytes() for n in ("whole", "killed"))
        assert one == two, name


def test_batch_norm_and_steps_stand_still_at_the_end(trained: Path, tmp_path: Path) -> None:
    """The last epoch moves weights alone."""
    states, rates = [], []

    def watch(trainer: Trainer, epoch: int) -> None:
        states.append({k: v.clone() for k, v in trainer.module.state_dict().items()})
        rates.append(trainer.plan.lr)
        keep(trainer, epoch)

    keep = Trainer._keep
    patch = pytest.MonkeyPatch()
    patch.setattr(Trainer, "_keep", watch)
    try:
        qat(trained, tmp_path, freeze_bn=0.67, lr=0.01)
    finally:
        patch.undo()
    assert rates == pytest.approx([0.01, 0.01, 0.001])
    first, before, after = states
    kinds = {
        "running": [k for k in after if "running_" in k],
        "step": [k for k in after if k.endswith(".step")],
        "weight": [k for k in after if k.endswith("conv1.weight")],
    }
    same = {kind: all(torch.equal(before[k], after[k]) for k in ks) for kind, ks in kinds.items()}
    assert same == {"running": True, "step": True, "weight": False}
    moved = {k: any(not torch.equal(first[n], before[n]) for n in ks) for k, ks in kinds.items()}
    assert all(moved.values())


def test_the_teacher_is_the_network_that_came_in(trained: Path, tmp_path: Path) -> None:
    """With no labels at all (a = 1) the logits stay the teacher's; without one they drift."""
    _, float_module = Model.load(trained)
    far = {}
    for name, options in {"self": {"distill": 1.0}, "none": {"teacher": "none"}}.items():
        qat(trained, tmp_path / name, lr=0.003, **options)
        _, module = Model.load(tmp_path / name)
        with torch.no_grad():
            far[name] = float((module(X) - float_module(X)).norm())
    assert far["self"] < 0.7 * far["none"]


def test_what_came_in_is_not_the_teacher_that_is_trained(trained: Path, tmp_path: Path) -> None:
    before = (trained / "weights.safetensors").read_bytes()
    qat(trained, tmp_path)
    assert (trained / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"lr": 30.0, "optimizer": "adamw", "warmup_epochs": 0},
            r"q: (diverged: )?loss .*lower lr",
        ),
        ({"lr": 1e20, "warmup_epochs": 0}, r"q: (diverged: )?loss .*lower lr"),
    ],
    ids=["large", "absurd"],
)
def test_divergence_is_an_error_that_says_what_to_lower(
    trained: Path, tmp_path: Path, options: dict, said: str
) -> None:
    with pytest.raises(StageError, match=said):
        qat(trained, tmp_path, **options)
    assert not (tmp_path / "model.json").exists()


def test_a_pruned_network_learns_its_ranges(trained: Path, tmp_path: Path) -> None:
    context = nets.context(tmp_path / "small", alignment=4, where="small")
    Prune(method="l1", finetune_epochs=0).run(Model.load(trained), context)
    qat(tmp_path / "small", tmp_path / "q", epochs=1)
    model, module = Model.load(tmp_path / "q")
    assert [e["op"] for e in model.edits] == ["keep_channels", "quantizers"]
    assert len(of(module)["stem_0"].step) == module.stem[0].out_channels == 4


def test_it_can_be_trained_on(trained: Path, tmp_path: Path) -> None:
    qat(trained, tmp_path / "a", epochs=1, weight_bits=4)
    context = nets.context(tmp_path / "b", where="more")
    Train(epochs=1, batch_size=8, lr=1e-3).run(Model.load(tmp_path / "a"), context)
    model, module = Model.load(tmp_path / "b")
    assert [e["op"] for e in model.edits] == ["quantizers"]
    assert len(of(module)) == 25


def test_pact_decays_its_clips(trained: Path, tmp_path: Path) -> None:
    sums = []
    for decay in (0.0, 0.1):
        qat(trained, tmp_path / str(decay), method="pact", clip_decay=decay, epochs=1)
        state = load_file(tmp_path / str(decay) / "weights.safetensors")
        sums.append(sum(float(v.sum()) for k, v in state.items() if k.endswith(".alpha")))
    assert sums[1] < sums[0]


def test_the_loss_by_hand(trained: Path, tmp_path: Path) -> None:
    from edgecv.methods.qat.initialisation import prepare
    from edgecv.methods.qat.training import DistillLoss

    _, module = Model.load(trained)
    teacher = copy.deepcopy(module)
    prepare(module, X, "q", "pact", 2, 2)
    distill_loss = DistillLoss(teacher, 0.25, 2.0, 0.5, 0.1, 9)
    context = nets.context(tmp_path)
    stage = Qat(**QUICK)
    trainer = QuantizingTrainer(
        module, context.images("train"), stage.plan(1, 0.01), context, distill_loss
    )
    y = torch.tensor([0, 1, 2, 3])
    module.eval()
    with torch.no_grad():
        z, t = module(X), teacher(X)
        p, q = (t / 2).softmax(1), (z / 2).softmax(1)
        apart = (p * (p.log() - q.log())).sum(1).mean()
        clips = sum(float(c.alpha) ** 2 for c in of(module).values() if hasattr(c, "alpha"))
        wanted = 0.75 * nn.functional.cross_entropy(z, y) + 0.25 * 4 * apart
        wanted += 0.5 * (t - z).square().mean() + 0.05 * clips
        torch.testing.assert_close(trainer.loss(X, y), wanted)


def test_a_recipe_ends_in_a_bundle_that_says_what_runs(tmp_path: Path) -> None:
    for split, images in (("train", nets.images()), ("test", nets.images(20, 1))):
        np.savez(tmp_path / f"{split}.npz", images=images.pixels, labels=images.labels)
    data = {
        "model": {"zoo": "resnet8", "width": 8},
        "data": {"train": f"npz:{tmp_path}/train.npz", "test": f"npz:{tmp_path}/test.npz",
                 "size": nets.SIZE},
        "stages": [
            {"train": {"name": "dense", "epochs": 2, "batch_size": 8}},
            {"qat": {"name": "w2a2", "weight_bits": 2, "activation_bits": 2, **QUICK}},
            {"quantize": {"name": "small", "min_sqnr_db": 60}},  # no judge of two bits
        ],
        "targets": ["cpu"],
    }  # fmt: skip
    checked = recipe.check(data, tmp_path / "my.yaml", {})
    outcome = pipeline.run(checked, tmp_path / "out", compare=False)
    assert outcome.failures == {}
    facts = kept.read(outcome.folders["bundle:small@cpu"])
    assert facts.executed == {"int8": 10}
    assert [n for n in facts.notes if "trained with 2 bits and run with 8" in n]
    again = pipeline.run(checked, tmp_path / "out", compare=False)
    assert again.made == []
