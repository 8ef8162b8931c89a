"""Numbers: scikit-learn's R2, of any multiset of the images, and errors in the columns' units."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import tasks
from edgecv.data.annotations import Numbers
from edgecv.errors import DataError, UnsupportedError
from edgecv.runtime.placement import place
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.regression import RegressionTask, Values, named, value_of

LIES = place("stretch", (4, 4), (4, 4), 1.0, "centre")
TASK = RegressionTask()
NAMES = ("angle [deg]", "level")


def read(*z: float, task: RegressionTask = TASK) -> Values:
    return task.read({"z": np.array([z], np.float32)}, LIES, (4, 4))


def table(values: np.ndarray) -> Numbers:
    return Numbers.of(list(values), np.full((len(values), 2), 4))


def world(seed: int, images: int = 40, noise: float = 0.4) -> tuple[Numbers, list[Values]]:
    rng = np.random.default_rng(seed)
    true = rng.normal((100.0, -3.0), (20.0, 0.5), (images, 2))
    said = true + noise * rng.normal(0, (20.0, 0.5), (images, 2))
    return table(true), [read(*row) for row in said]


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, reads = world(seed)
    said = np.stack([r.values for r in reads])
    score = TASK.score(iter(reads), truth, NAMES)
    each = metrics.r2_score(truth.values, said, multioutput="raw_values")
    assert list(score.per_class.values()) == pytest.approx(each)
    assert score.value == pytest.approx(metrics.r2_score(truth.values, said))
    for k, name in enumerate(NAMES):
        own = truth.values[:, k], said[:, k]
        assert score.more[f"mae {name}"] == pytest.approx(metrics.mean_absolute_error(*own))
        squared = metrics.mean_squared_error(*own)
        assert score.more[f"rmse {name}"] == pytest.approx(squared**0.5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 20), times=st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_any_multiset_of_the_images(seed: int, times: list[int]) -> None:
    truth, reads = world(seed)
    parts = TASK.score(reads, truth, NAMES).parts
    images = np.repeat(np.arange(40), times)
    if len(set(images.tolist())) > 1:
        whole = TASK.score([reads[i] for i in images], truth.some(images), NAMES)
        assert value_of(parts, np.array(times)[:, None])[0] == pytest.approx(whole.value)
        assert 0 <= whole.value <= 1


def test_the_mean_of_all_images_is_worth_nothing() -> None:
    truth = world(0)[0]
    flat = [read(*truth.values.mean(0)) for _ in range(40)]
    assert TASK.score(flat, truth, NAMES).value == pytest.approx(0, abs=1e-9)
    far = [read(1e6, 1e6) for _ in range(40)]
    assert TASK.score(far, truth, NAMES).value == 0
    exact = TASK.score([Values(row) for row in truth.values], truth, NAMES)
    assert exact.value == 1
    assert set(exact.more.values()) == {0.0}


def test_what_is_not_known_is_not_judged() -> None:
    values = np.array([[1.0, 7], [2, np.nan], [4, 7]])
    score = TASK.score([read(1, 0), read(2, 0), read(4, 5)], table(values), NAMES)
    assert score.per_class == {"angle [deg]": 1.0, "level": None}  # it does not vary
    assert score.value == 1
    assert score.more["mae level"] == pytest.approx((7 + 2) / 2)
    silent = TASK.score([read(1, 0), read(np.nan, 0), read(4, 5)], table(values), NAMES)
    said = np.array([1, 7 / 3, 4]) - values[:, 0]
    assert silent.value == pytest.approx(1 - (said @ said) / (values[:, 0].var() * 3))
    assert read(np.nan, 0).nan == 1


def test_what_cannot_be_judged_is_one_line() -> None:
    truth, reads = world(0)
    with pytest.raises(DataError, match="39 answers for 40 images"):
        TASK.score(reads[1:], truth, NAMES)
    with pytest.raises(DataError, match="says 3 numbers and the table 2"):
        TASK.score([read(1, 2, 3)] * 40, truth, NAMES)
    with pytest.raises(DataError, match="no column of the table varies"):
        TASK.score(reads[:2], truth.some([0, 0]), NAMES)


def test_a_worse_network_is_told_from_the_same() -> None:
    truth, reads = world(1, images=100)
    whole = TASK.score(reads, truth, NAMES).parts
    assert TASK.difference(whole, whole, 0.05).p == 1.0
    worse = TASK.score(world(1, 100, noise=0.6)[1], truth, NAMES).parts
    low, high = TASK.interval(whole, 0.025)
    assert low < TASK.score(reads, truth, NAMES).value < high
    found = TASK.difference(whole, worse, 0.05)
    assert found.p < 0.01
    assert 0 < found.bounds[0] < found.drop < found.bounds[1]
    with pytest.raises(ValueError, match="different test images"):
        TASK.difference(whole, TASK.score(*reversed(world(2, 100)), NAMES).parts, 0.05)


def test_answers_have_names_and_units() -> None:
    task = RegressionTask(offset=(90.0, 0.0), scale=(10.0, 2.0))
    angle, level = task.answer(read(0.5, -1.0, task=task), NAMES)
    assert (angle.label, angle.unit, angle.value) == ("angle", "deg", 95.0)
    assert (level.index, level.label, level.unit, level.value) == (1, "level", "", -2.0)
    told = task.to_json(read(np.nan, 1, task=task), ())
    assert [row["label"] for row in told] == ["0", "1"]
    assert json.loads(json.dumps(told, allow_nan=False))[0]["value"] is None
    assert named(["a [b] c"], 0) == ("a [b] c", "")
    with pytest.raises(TypeError, match="an image alone, not top"):
        task.read({}, LIES, (4, 4), top=1)


def test_a_manifest_holds_it_and_graphs_are_recognised() -> None:
    row = [TensorSpec("z", "float32", (1, 2))]
    task = RegressionTask.of_graph(row, (4, 4), 2, {"offset": [1, 2], "scale": 3})
    held = json.loads(json.dumps(task.manifest()))
    assert held == {"decode": {"offset": [1, 2], "scale": [3]}}
    assert tasks.of_manifest({"task": "regression", **held}) == task
    assert RegressionTask().described() == {}
    for wrong in ({"scale": 0}, {"scale": []}, {"offset": ["a"]}, {"offset": [float("nan")]}):
        with pytest.raises(ValueError, match="decode"):
            RegressionTask.of(wrong)
    for shape, classes, said, line in (
        ((1, 2), 3, {}, "z is 1x2, expected a row of numbers 1x3"),
        ((1, 3, 8, 8), None, {}, "z is 1x3x8x8, expected a row of numbers 1xK"),
        ((1, 2), 2, {"scale": [1, 2, 3]}, "scale has 3 numbers, and the network 2"),
        ((1, 2), 2, {"scale": 0}, "decode.scale is 0"),
    ):
        with pytest.raises(UnsupportedError, match=line):
            RegressionTask.of_graph([TensorSpec("z", "float32", shape)], (4, 4), classes, said)


def test_the_loss_is_of_what_the_network_itself_says() -> None:
    torch = pytest.importorskip("torch")
    from edgecv.errors import ModelError

    task = RegressionTask(offset=(10.0,), scale=(2.0,))
    z = torch.tensor([[1.0, 0.0], [0.0, 5.0]], requires_grad=True)
    loss = task.loss(z, [np.array([10.0, 14.0]), np.array([10.0, np.nan])])
    assert loss.item() == pytest.approx((1 + 4 + 0) / 3)
    loss.backward()
    assert z.grad[1, 1] == 0
    with pytest.raises(ModelError, match=r"outputs are \(2, 2\), expected \(2, 3\)"):
        task.loss(z, [np.zeros(3)] * 2)


def test_pictures_are_recoloured_alone() -> None:
    from edgecv.methods.training.plan import Plan

    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    rows = [np.zeros(2)] * 4
    same, truths = TASK.augmented(pixels, rows, Plan(epochs=1), rng)
    assert (same == pixels).all()
    assert truths is rows
    other, _ = TASK.augmented(pixels, rows, Plan(epochs=1, colour=0.5), rng)
    assert (other.shape, other.dtype, (other != pixels).any()) == (pixels.shape, np.uint8, True)


def test_numbers_are_drawn() -> None:
    pytest.importorskip("PIL")
    image = np.full((240, 240, 3), 128, np.uint8)
    drawn = [TASK.drawn(image, read(z, 1.0), NAMES) for z in (2.0, -2.0)]
    assert all((d != image).any() for d in drawn)
    assert (drawn[0] != drawn[1]).any()
