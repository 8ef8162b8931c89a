"""Yes or no by one number: scikit-learn's figures, and which of two networks is better."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import tasks
from edgecv.errors import DataError, UnsupportedError
from edgecv.runtime.placement import place
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.binary import BinaryTask, Decision, area, average_precision

LIES = place("stretch", (4, 4), (4, 4), 1.0, "centre")
TASK = BinaryTask()
NAMES = ("fine", "broken")


def read(z: float, task: BinaryTask = TASK, **asked: float) -> Decision:
    return task.read({"z": np.array([[z]], np.float32)}, LIES, (4, 4), **asked)


def world(seed: int, images: int = 60, skill: float = 2.0) -> tuple[np.ndarray, list[Decision]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, images)
    z = (skill * (truth - 0.5) + rng.normal(0, 1, images)).round(1)  # ties
    return truth, [read(v) for v in z]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
        lambda r: len({there for _, there in r}) == 2
    )
)
def test_figures_without_a_threshold_are_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    p, there = np.array([k / 5 for k, _ in rows]), np.array([t for _, t in rows])
    assert area(p, there) == pytest.approx(metrics.roc_auc_score(there, p))
    assert average_precision(p, there) == pytest.approx(metrics.average_precision_score(there, p))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_accuracy_is_at_the_threshold_that_is_deployed(threshold: float) -> None:
    truth, reads = world(0)
    task = BinaryTask(threshold=threshold)
    z = np.array([np.log(r.p / (1 - r.p)) for r in reads])
    score = task.score([read(v, task) for v in z], truth, NAMES)
    right = (np.array([r.p for r in reads]) >= threshold) == truth
    assert (score.value, score.samples) == (pytest.approx(right.mean()), 60)
    assert score.per_class == {
        name: pytest.approx(right[truth == k].mean()) for k, name in enumerate(NAMES)
    }
    assert (score.parts["correct"] == right).all()
    assert score.more == TASK.score(reads, truth, NAMES).more  # of no threshold


def test_images_of_one_class_have_no_figures_of_two() -> None:
    score = TASK.score([read(1.0), read(-1.0)], np.array([1, 1]), NAMES)
    assert (score.value, score.more) == (0.5, {})
    assert score.per_class == {"fine": None, "broken": 0.5}
    with pytest.raises(DataError, match="1 answers for 2 images"):
        TASK.score([read(1.0)], np.array([1, 1]), NAMES)
    with pytest.raises(DataError, match="the data has 3 classes, and yes or no are two"):
        TASK.score([read(1.0)], np.array([1]), ("a", "b", "c"))


def test_one_answer_to_every_image_is_doubted() -> None:
    truth, reads = world(0)
    assert TASK.doubts(TASK.score(reads, truth, NAMES)) == ()
    (doubt,) = TASK.doubts(TASK.score([read(-1.0)] * 60, truth, NAMES))
    assert doubt.startswith("the network says fine of every image: is it trained")


def test_a_worse_network_is_told_by_mcnemar() -> None:
    truth, reads = world(1, images=300)
    whole = TASK.score(reads, truth, NAMES).parts
    assert TASK.difference(whole, whole, 0.05).p == 1.0
    worse = TASK.score(world(1, 300, skill=0.5)[1], truth, NAMES).parts
    found = TASK.difference(whole, worse, 0.05)
    assert found.p < 0.01
    assert found.bounds[0] < found.drop < found.bounds[1]
    assert "images lost" in found.summary
    with pytest.raises(ValueError, match="different test images"):
        TASK.difference(whole, {"correct": whole["correct"][1:]}, 0.05)


def test_an_interval_is_wilsons_and_answers_are_compared() -> None:
    from edgecv.benchmark.statistics import wilson

    right = np.arange(50) < 40
    assert TASK.interval({"correct": right}, 0.025) == pytest.approx(wilson(40, 50), abs=1e-4)
    low, high = TASK.interval({"correct": right}, 0.25)
    assert wilson(40, 50)[0] < low < 0.8 < high
    assert TASK.same(read(1.0), read(2.0)) == (1, 1)
    assert TASK.same(read(1.0), read(-2.0)) == (0, 1)


def test_answers_are_both_classes_the_said_one_first() -> None:
    said, other = TASK.answer(read(2.0), NAMES)
    assert (said.index, said.label, other.label) == (1, "broken", "fine")
    assert said.score == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert said.score + other.score == pytest.approx(1)
    assert TASK.answer(read(2.0, threshold=0.95), NAMES)[0].label == "fine"
    assert TASK.to_json(read(-2.0), ())[0]["label"] == "0"
    plain = BinaryTask("probabilities")
    assert plain.answer(read(0.75, plain), NAMES)[0].score == 0.75
    assert read(float("nan")) == Decision(False, 0.0, 1)
    with np.errstate(all="raise"):
        assert [read(z).p for z in (-1e30, 1e30)] == [pytest.approx(0), 1.0]


def test_a_manifest_holds_it_and_graphs_are_recognised() -> None:
    task = BinaryTask("probabilities", 0.7)
    assert tasks.of_manifest({"task": "binary", **task.manifest()}) == task
    for wrong in ({"scores": "x"}, {"threshold": 2}, {"threshold": "a"}):
        with pytest.raises(ValueError, match="decode"):
            BinaryTask.of(wrong)
    for shape in ((1, 1), (1, 1, 1, 1), (1,)):
        one = [TensorSpec("z", "float32", shape)]
        assert BinaryTask.of_graph(one, (4, 4), 2, {"threshold": 0.7}).threshold == 0.7
    assert BinaryTask.of_ends(one, ["z"]) == {"scores": "probabilities"}
    assert BinaryTask.of_ends(one, ["y"]) == {}
    two = [TensorSpec("z", "float32", (1, 2))]
    with pytest.raises(UnsupportedError, match=r"z 1x2, expected one number.*classification"):
        BinaryTask.of_graph(two, (4, 4), None, {})
    with pytest.raises(UnsupportedError, match="there are 3 classes, and yes or no are two"):
        BinaryTask.of_graph(one, (4, 4), 3, {})
    with pytest.raises(UnsupportedError, match=r"decode\.threshold 4"):
        BinaryTask.of_graph(one, (4, 4), 2, {"threshold": 4})


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_the_loss_is_binary_cross_entropy(scores: str) -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor([[0.5], [-1.0]], requires_grad=True)
    given = z if scores == "logits" else z.sigmoid()
    loss = BinaryTask(scores).loss(given, [1, 0])
    assert loss.item() == pytest.approx((np.log1p(np.exp(-0.5)) + np.log1p(np.exp(-1.0))) / 2)
    loss.backward()
    assert z.grad[0] < 0 < z.grad[1]


def test_a_loss_of_other_rows_is_refused() -> None:
    torch = pytest.importorskip("torch")
    from edgecv.errors import ModelError

    with pytest.raises(ModelError, match=r"outputs are \(2, 2\), not 2 numbers"):
        TASK.loss(torch.zeros(2, 2), [0, 1])


def test_the_answer_is_drawn() -> None:
    pytest.importorskip("PIL")
    image = np.full((240, 240, 3), 128, np.uint8)
    drawn = [TASK.drawn(image, read(z), NAMES) for z in (2.0, -2.0)]
    assert all((d != image).any() for d in drawn)
    assert (drawn[0] != drawn[1]).any()
