"""Training is deterministic, resumes to the same bits, and stops with a reason."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.data.augment import moved as augment  # noqa: E402
from edgecv.errors import StageError  # noqa: E402
from edgecv.methods.training.judging import judged  # noqa: E402
from edgecv.methods.training.loop import Trainer, memory_format  # noqa: E402
from edgecv.methods.training.plan import Plan, learning_rate  # noqa: E402
from edgecv.tasks.augment import augmented  # noqa: E402
from tests import networks as nets  # noqa: E402

PLANS = {
    "adamw": Plan(epochs=3, batch_size=8, lr=0.01),
    "sgd": Plan(epochs=3, batch_size=8, lr=0.05, optimizer="sgd", schedule="step"),
    "ema": Plan(epochs=3, batch_size=8, lr=0.01, ema=0.9, label_smoothing=0.1),
}


def network() -> nn.Module:
    """With batch norm, whose statistics are state, and dropout, which draws random numbers."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(2), nn.Dropout(0.2), nn.Flatten(), nn.Linear(32, nets.CLASSES),
    )  # fmt: skip


class KilledError(Exception):
    pass


def train(out: Path, plan: Plan, die_at: int | None = None, **options) -> tuple[dict, dict]:
    """(weights, facts); killed in the middle of optimizer step `die_at`."""

    def progress(done: int, *_: object) -> None:
        if done == die_at:
            raise KilledError

    context = nets.context(out, progress=progress, **options)
    module = network()
    facts = Trainer(module, context.images("train"), plan, context).fit()
    return {k: v.clone() for k, v in module.state_dict().items()}, facts


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", PLANS)
def test_the_same_seed_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    one, facts = train(tmp_path / "a", PLANS[name])
    two, again = train(tmp_path / "b", PLANS[name])
    assert same(one, two)
    assert facts == again
    assert not same(one, train(tmp_path / "c", PLANS[name], seed=1)[0])
    assert not same(one, train(tmp_path / "d", PLANS[name], where="other step")[0])


# 40 images in batches of 8: 5 steps an epoch
@pytest.mark.parametrize("moments", [[3], [5], [6], [10], [15], [2, 7, 11], [6, 6]], ids=str)
@pytest.mark.parametrize("name", PLANS)
def test_a_killed_run_ends_in_the_same_bits(name: str, moments: list[int], tmp_path: Path) -> None:
    whole, facts = train(tmp_path / "whole", PLANS[name])
    for moment in moments:
        with pytest.raises(KilledError):
            train(tmp_path / "killed", PLANS[name], die_at=moment)
    resumed, again = train(tmp_path / "killed", PLANS[name])
    assert same(whole, resumed)
    assert facts == again


def test_a_resumed_run_does_not_start_again(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path, PLANS["adamw"], die_at=12)
    seen: list[int] = []
    context = nets.context(tmp_path, progress=lambda done, *_: seen.append(done))
    Trainer(network(), context.images("train"), PLANS["adamw"], context).fit()
    assert seen == [11, 12, 13, 14, 15]
    assert not list(tmp_path.iterdir()), "the checkpoint is gone when it is done"


@pytest.mark.parametrize("content", [b"", b"torn", bytes(64)])
def test_a_torn_checkpoint_starts_again(content: bytes, tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", PLANS["sgd"])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "checkpoint.safetensors").write_bytes(content)
    assert same(whole, train(tmp_path / "torn", PLANS["sgd"])[0])


def test_training_learns(tmp_path: Path) -> None:
    context = nets.context(tmp_path)
    module = network()
    before = judged(module, context.images("test"), context)
    plan = Plan(epochs=15, batch_size=8, lr=0.02, flip=False, shift=0)
    facts = Trainer(module, context.images("train"), plan, context).fit()
    assert facts["loss"][-1] < 0.5 * facts["loss"][0]
    assert len(facts["loss"]) == facts["epochs"] == 15
    assert judged(module, context.images("test"), context) > max(0.7, before)


def test_ema_gives_the_averaged_weights(tmp_path: Path) -> None:
    plain, _ = train(tmp_path / "a", Plan(epochs=1, batch_size=40, warmup_epochs=0))
    averaged, _ = train(tmp_path / "b", Plan(epochs=1, batch_size=40, warmup_epochs=0, ema=0.75))
    start = network().state_dict()
    for name in ("0.weight", "7.bias", "1.running_mean"):  # one step: start + (1 - ema) * change
        expected = start[name] + 0.25 * (plain[name] - start[name])
        torch.testing.assert_close(averaged[name], expected)
    assert averaged["1.num_batches_tracked"] == 1


def test_a_loss_that_is_no_number_names_the_step(tmp_path: Path) -> None:
    module = network()
    module[7].weight.data[0, 0] = float("nan")
    context = nets.context(tmp_path, where="dense")
    with pytest.raises(StageError, match=r"dense: loss is nan at epoch 1, batch 1 .*lr"):
        Trainer(module, context.images("train"), PLANS["sgd"], context).fit()


def test_a_diverging_run_is_stopped(tmp_path: Path) -> None:
    plan = Plan(epochs=5, batch_size=8, lr=1e30, optimizer="sgd", warmup_epochs=0)
    with pytest.raises(StageError, match="loss is"):
        train(tmp_path, plan)


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    _, facts = train(tmp_path, Plan(epochs=2, batch_size=1000))
    assert len(facts["loss"]) == 2


def test_biases_and_batch_norm_do_not_decay(tmp_path: Path) -> None:
    context = nets.context(tmp_path)
    trainer = Trainer(network(), context.images("train"), PLANS["adamw"], context)
    decay = {p.ndim: g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert decay == {4: 0.01, 2: 0.01, 1: 0.0}


def test_learning_rates_by_hand() -> None:
    plan = Plan(epochs=10, lr=1.0, warmup_epochs=1)
    rates = [learning_rate(plan, i, 4) for i in range(40)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[4 + 18] == pytest.approx(0.5)  # half of the way down the cosine
    assert rates[-1] < 0.01
    assert all(a > b for a, b in pairwise(rates[4:]))
    step = Plan(epochs=10, lr=1.0, warmup_epochs=0, schedule="step")
    assert [learning_rate(step, i, 1) for i in (0, 4, 5, 7, 8, 9)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    constant = Plan(epochs=10, lr=1.0, warmup_epochs=0, schedule="constant")
    assert {learning_rate(constant, i, 1) for i in range(10)} == {1.0}


def test_augment_moves_pixels_and_makes_none() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 8, 9, 3), dtype=np.uint8)
    plan = Plan(epochs=1, shift=2)
    moved = augment(pixels, plan, np.random.default_rng(1))
    assert (moved.shape, moved.dtype) == (pixels.shape, np.uint8)
    assert moved.flags.c_contiguous
    again = augment(pixels, plan, np.random.default_rng(1))
    assert np.array_equal(moved, again)
    hits = 0
    for before, after in zip(pixels, moved, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), mode="edge")
        mirrored = np.pad(before[:, ::-1], ((2, 2), (2, 2), (0, 0)), mode="edge")
        windows = [p[y : y + 8, x : x + 9] for p in (padded, mirrored) for y in range(5)
                   for x in range(5)]  # fmt: skip
        hits += any(np.array_equal(after, w) for w in windows)
    assert hits == 50
    assert not np.array_equal(moved, pixels)


def test_augment_can_be_turned_off() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    still = Plan(epochs=1, flip=False, shift=0)
    assert np.array_equal(augment(pixels, still, np.random.default_rng(0)), pixels)
    mirror = augment(pixels, Plan(epochs=1, shift=0), np.random.default_rng(0))
    for before, after in zip(pixels, mirror, strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_colour_is_of_classes_too_and_draws_nothing_where_it_is_off() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    plain = Plan(epochs=1, shift=1)
    one, two = np.random.default_rng(2), np.random.default_rng(2)
    assert np.array_equal(augmented(pixels, plain, one), augment(pixels, plain, two))
    assert one.bit_generator.state == two.bit_generator.state
    still = Plan(epochs=1, flip=False, shift=0, colour=0.5)
    changed = augmented(pixels, still, np.random.default_rng(3))
    assert changed.shape == pixels.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, pixels)


def test_top1_by_hand(tmp_path: Path) -> None:
    class Says(nn.Module):
        def forward(self, x):
            return torch.eye(nets.CLASSES)[torch.zeros(len(x), dtype=torch.long)]

    context = nets.context(tmp_path)
    assert judged(Says(), context.images("test"), context, batch=3) == 0.25


def test_every_epoch_has_its_own_order_and_every_image_once(tmp_path: Path) -> None:
    context = nets.context(tmp_path)
    plan = Plan(epochs=2, batch_size=8, flip=False, shift=0)
    trainer = Trainer(network(), context.images("train"), plan, context)
    epochs = [torch.cat([x for x, _ in trainer._batches(e)]) for e in (0, 1, 0)]
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    sums = [sorted(round(float(v), 3) for v in e.sum((1, 2, 3))) for e in epochs]
    assert sums[0] == sums[1]


def test_networks_that_crash_onednn_are_trained_in_nchw() -> None:
    """On AVX2 and AVX-512 (torch 2.13): "corrupted double-linked list", a batch or two later."""
    for channels in (4, 15):
        strided = nn.Sequential(nn.Conv2d(channels, 8, 1, stride=2), nn.Flatten())
        assert memory_format(strided) is torch.contiguous_format
    for fine in (nn.Conv2d(16, 8, 1, stride=2), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2)):
        assert memory_format(nn.Sequential(fine)) is torch.channels_last
