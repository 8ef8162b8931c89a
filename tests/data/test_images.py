"""Images: what holds in memory holds after a round through the disk."""

import json

import numpy as np
import pytest

from edgecv.data.annotations import Numbers
from edgecv.data.images import Images, as_outputs, check_same_classes
from edgecv.errors import DataError

PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LABELS = np.array([1, 0], np.int64)


def test_save_and_load(tmp_path):
    Images(PIXELS, LABELS, ("naïve", "b")).save(tmp_path / "new" / "folder")
    back = Images.load(tmp_path / "new" / "folder")
    assert np.array_equal(back.pixels, PIXELS)
    assert np.array_equal(back.labels, LABELS)
    assert back.classes == ("naïve", "b")
    assert not back.pixels.flags.writeable


@pytest.mark.parametrize(
    ("pixels", "labels", "says"),
    [
        (PIXELS.astype(np.float32), LABELS, "pixels must be uint8"),
        (PIXELS[0], LABELS, "pixels must be uint8"),
        (PIXELS, LABELS[:1], "one for each image"),
        (PIXELS, LABELS.astype(np.uint8), "labels must be int64"),
        (PIXELS, LABELS + 1, "label 2 of image 0 is not in 0..1"),
        (PIXELS, LABELS - 1, "label -1 of image 1"),
        (PIXELS[:0], LABELS[:0], "there are none"),
    ],
)
def test_refusals(pixels, labels, says):
    with pytest.raises(DataError) as caught:
        Images(pixels, labels, ("a", "b"))
    assert says in str(caught.value)


def test_a_pickle_is_never_loaded(tmp_path):
    Images(PIXELS, LABELS, ("a", "b")).save(tmp_path)
    np.save(tmp_path / "labels.npy", np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(DataError, match="not a folder of images"):
        Images.load(tmp_path)


def test_damaged_folder(tmp_path):
    with pytest.raises(DataError, match="not a folder of images"):
        Images.load(tmp_path / "absent")
    Images(PIXELS, LABELS, ("a", "b")).save(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b"])[:-1])
    with pytest.raises(DataError, match="not a folder of images"):
        Images.load(tmp_path)


def test_splits_must_name_the_same_classes():
    train = Images(PIXELS, LABELS, ("a", "b", "c"))
    check_same_classes(train, Images(PIXELS, LABELS, ("a", "b")))
    with pytest.raises(DataError, match="has no class 'b'"):
        check_same_classes(train, Images(PIXELS, LABELS, ("a", "c")))
    with pytest.raises(DataError, match="has class 'd', which train has not"):
        check_same_classes(train, Images(PIXELS, LABELS, ("a", "b", "c", "d")))
    with pytest.raises(DataError, match="'b' stands where train has 'a'"):
        check_same_classes(train, Images(PIXELS, LABELS, ("b", "a", "c")))


def test_a_table_lacks_no_column() -> None:
    """A network says a number for each: without its last one nothing could be compared."""
    sizes = np.full((len(PIXELS), 2), 8)
    two, one = (
        Images(PIXELS, 0 * LABELS, names, truth=Numbers(sizes, np.zeros((len(PIXELS), len(names)))))
        for names in (("x", "y"), ("x",))
    )
    check_same_classes(two, two)
    with pytest.raises(DataError, match="has no column 'y'"):
        check_same_classes(two, one)


def of_classes(*classes):
    count = len(classes)
    return Images(np.zeros((count, 2, 2, 1), np.uint8), np.arange(count), classes)


def test_zeros_before_a_number_change_nothing():
    for outputs in (None, [str(i) for i in range(16)]):
        found = as_outputs(of_classes("0003", "0007", "0012"), outputs)
        assert found.labels.tolist() == [3, 7, 12]


def test_outputs_that_are_named_with_zeros_keep_their_names():
    names = ["0000", "0001", "0100"]
    assert as_outputs(of_classes("0100", "0000"), names).labels.tolist() == [2, 0]


def test_two_folders_for_one_output_are_refused():
    with pytest.raises(DataError, match="'07' and '7' are one output"):
        as_outputs(of_classes("07", "7"), None)


@pytest.mark.parametrize("name", ["99999999999", "9" * 5000])
def test_a_number_that_no_network_has_costs_no_memory(name):
    with pytest.raises(DataError, match="is no output of the network"):
        as_outputs(of_classes("0", name), None)
