"""Layers by name, by pattern, by the module that holds them; what means nothing has a hint."""

from __future__ import annotations

import pytest

from edgecv.errors import RecipeError
from edgecv.models.layer_selection import named

NAMES = ("stem", "stage1.0.conv1", "stage1.0.conv2", "stage10.0.conv1", "head")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (["stem"], {"stem"}),
        (["stage1"], {"stage1.0.conv1", "stage1.0.conv2"}),
        (["stage1.*"], {"stage1.0.conv1", "stage1.0.conv2"}),
        (["*.conv1"], {"stage1.0.conv1", "stage10.0.conv1"}),
        (["head", "stage10.0"], {"head", "stage10.0.conv1"}),
        ([], set()),
    ],
)
def test_what_is_meant(wanted: list[str], meant: set[str]) -> None:
    assert named(wanted, NAMES, "small") == meant


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("stagee1.*", "did you mean 'stage1.*'?"),
        ("stage1.0.conv3", "did you mean 'stage1.0.conv"),
        ("stag10", "did you mean 'stage10'?"),
        ("zzz", "its layers: stem, stage1.0.conv1"),
    ],
)
def test_what_means_nothing(wanted: str, hint: str) -> None:
    with pytest.raises(RecipeError) as e:
        named(["stem", wanted], NAMES, "small")
    assert f"small: no layer matches {wanted!r}" in str(e.value)
    assert hint in str(e.value)


def test_a_long_list_is_cut_and_says_so() -> None:
    with pytest.raises(RecipeError, match="and 88 more"):
        named(["zzz"], [f"layer{i}" for i in range(100)], "small")
