"""mean and std in units of 0..1 or of 0..255: told from each other where it is certain."""

from __future__ import annotations

import pytest

from edgecv import pixel_units

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CERTAIN = [
    (IMAGENET[0], IMAGENET[1], "0..1"),
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "0..255"),
    ((0.0,), (255.0,), "0..255"),
    ((0.0,), (1 / 255,), "0..1"),
    ((127.0,), (128.0,), "0..255"),
    ((0.5,), (0.5,), "0..1"),
    ((0.5,), (1.0,), "0..1"),
    ((104.0, 117.0, 123.0), (1.0,), "0..255"),
    ((0.5,), None, "0..1"),
    (None, (0.2, 0.3, 0.4), "0..1"),
    ((127.0,), None, "0..255"),
    (None, (58.0,), "0..255"),
    ((-0.5,), (0.5,), "0..1"),
]


@pytest.mark.parametrize("home", ["0..1", "0..255"])
@pytest.mark.parametrize(("mean", "std", "units"), CERTAIN)
def test_what_is_certain_is_the_same_everywhere(mean, std, units, home) -> None:
    assert pixel_units.told(mean, std, home) == units


@pytest.mark.parametrize("home", ["0..1", "0..255"])
@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0,)), (None, (1.0, 1.0, 1.0)), ((0.0, 0.0, 0.0), None)]
)
def test_mean_0_and_std_1_are_what_they_are_at_home(mean, std, home) -> None:
    assert pixel_units.told(mean, std, home) == home


@pytest.mark.parametrize("home", ["0..1", "0..255"])
@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ((127.0,), (0.5,), "one looks like"),
        ((0.485,), (58.0,), "one looks like"),
        ((0.0,), (2.0,), "may be units"),
        ((2.0,), (1.0,), "may be units"),
        ((1.0,), None, "may be units"),
    ],
)
def test_what_is_not_is_refused(mean, std, said, home) -> None:
    with pytest.raises(ValueError, match=said):
        pixel_units.told(mean, std, home)


def test_what_was_understood_is_said_in_both_units() -> None:
    said = pixel_units.sentence(*IMAGENET, "0..1")
    assert said == ("mean 0.485 0.456 0.406 and std 0.229 0.224 0.225 are units of 0..1, which in "
                    "0..255 is mean 123.675 116.28 103.53 and std 58.395 57.12 57.375")  # fmt: skip
    assert "pixels go in as they are" in pixel_units.sentence((0.0,), (1 / 255,), "0..255")
    assert "scaled to 0..1" in pixel_units.sentence((0.0,), (1.0,), "0..1")
