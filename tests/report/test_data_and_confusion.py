"""What the images were, and which class was answered for which."""

from __future__ import annotations

import numpy as np

from edgecv.data.annotations import Boxes, Maps, PictureBoxes
from edgecv.data.images import Images
from edgecv.report import confusion, dataset


def images(labels: list[int], names: tuple[str, ...], **more: object) -> Images:
    pixels = np.zeros((len(labels), 4, 6, 3), np.uint8)
    return Images(pixels, np.array(labels, np.int64), names, **more)  # type: ignore[arg-type]


def test_a_matrix_counts_truth_by_line_and_answer_by_column() -> None:
    labels, answers = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = confusion.matrix(answers, labels, ("cat", "dog"))
    assert found["counts"] == [[1, 1], [1, 2]]
    assert found["right"] == 3
    assert found["classes"][1] == {"name": "dog", "images": 3, "right": 2}
    assert {(m["truth"], m["answer"], m["count"]) for m in found["mistakes"]} == {
        ("cat", "dog", 1), ("dog", "cat", 1),
    }  # fmt: skip


def test_an_answer_beyond_the_classes_has_its_number_for_a_name() -> None:
    found = confusion.matrix(np.array([2, 0]), np.array([0, 1]), ("cat", "dog"))
    assert [c["name"] for c in found["classes"]] == ["cat", "dog", "2"]
    assert found["counts"] == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_many_classes_are_the_worst_and_the_most_frequent_mistakes() -> None:
    names = tuple(f"c{i}" for i in range(100))
    labels = np.repeat(np.arange(100), 4)
    answers = labels.copy()
    answers[4:8] = 9  # c1 is always c9
    answers[8] = 3
    found = confusion.matrix(answers, labels, names)
    assert found["counts"] is None
    assert [c["name"] for c in found["classes"][:2]] == ["c1", "c2"]
    assert len(found["classes"]) == confusion.WORST
    assert found["mistakes"][0] == {"truth": "c1", "answer": "c9", "count": 4}


def test_a_split_is_counted_in_what_its_truth_is_made_of() -> None:
    labelled = dataset.counted_split("test", images([0, 1, 1], ("cat", "dog")))
    assert labelled["size"] == [4, 6, 3]
    assert labelled["classes"] == {"cat": 1, "dog": 2}
    assert dataset.balance(labelled) == "1 to 2 of a class"
    assert dataset.counted_split("test", images([0, 0], ()))["counted"] == ""

    boxes = PictureBoxes(
        np.zeros((3, 4), np.float32), np.array([1, 1, 0]), np.zeros(3, bool), np.ones(3, np.float32)
    )
    truth = Boxes.of([boxes], np.array([[4, 6]]))
    found = dataset.counted_split("test", images([0], ("cat", "dog"), truth=truth))
    assert (found["counted"], found["classes"]) == ("objects", {"cat": 1, "dog": 2})

    maps = Maps.of([np.array([[0, 0, 1], [255, 1, 1]], np.uint8)])
    found = dataset.counted_split("test", images([0], ("road", "sky"), truth=maps))
    assert (found["counted"], found["classes"]) == ("pixels", {"road": 2, "sky": 3})


def test_many_classes_are_listed_rarest_first() -> None:
    names = tuple("abc")
    found = [dataset.counted_split("test", images([0, 0, 0, 1, 2, 2], names))]
    whole = dataset.table(found, 3)
    assert [line["name"] for line in whole["lines"]] == ["a", "b", "c"]
    short = dataset.table(found, 2)
    assert [line["name"] for line in short["lines"]] == ["b", "c"]
    assert (short["left_out"], short["most"]) == (1, [3])
