"""The loss of maps: torch's own cross-entropy where nothing is asked, and what IGNORED is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecv.data.annotations import IGNORED
from edgecv.errors import ModelError
from edgecv.tasks.segmentation.loss import loss, of_classes

CLASSES, SIDE = 4, 6
MAPS = arrays(np.uint8, (2, SIDE, SIDE), elements=st.sampled_from([0, 1, 2, 3, IGNORED]))


def logits(seed=0, side=SIDE):
    return torch.randn(2, CLASSES, side, side, generator=torch.Generator().manual_seed(seed))


@given(MAPS, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_it_is_cross_entropy_of_the_pixels_of_which_something_is_said(maps, seed):
    y, seen = logits(seed), maps != IGNORED
    found = loss(y, list(maps))
    if not seen.any():
        assert found == 0
        return
    p = y.double().softmax(1).numpy().transpose(0, 2, 3, 1)[seen]
    expected = -np.log(p[np.arange(len(p)), maps[seen]]).mean()
    np.testing.assert_allclose(float(found), expected, rtol=1e-4)


@given(MAPS, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_what_is_said_of_ignored_pixels_changes_nothing_and_gets_no_gradient(maps, seed):
    y = logits(seed).requires_grad_()
    value = loss(y, list(maps), dice=1.0, hardest=0.5)
    value.backward()
    ignored = torch.from_numpy(maps == IGNORED)[:, None].expand_as(y)
    assert y.grad is None or not y.grad[ignored].any()
    other = torch.where(ignored, 9 * logits(seed + 1), y.detach())
    torch.testing.assert_close(loss(other, list(maps), dice=1.0, hardest=0.5), value.detach())


def test_smaller_logits_are_brought_to_the_maps_size():
    y = logits(side=3)
    maps = np.random.default_rng(0).integers(0, CLASSES, (2, SIDE, SIDE), np.uint8)
    wide = F.interpolate(y, (SIDE, SIDE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(loss(y, list(maps)), loss(wide, list(maps)))
    assert loss(y, list(maps)) != loss(
        y.repeat_interleave(2, 2).repeat_interleave(2, 3), list(maps)
    )


def test_dice_is_nothing_where_all_is_right_and_one_where_all_is_wrong():
    maps = np.random.default_rng(0).integers(0, 2, (2, SIDE, SIDE), np.uint8)
    right = 40 * F.one_hot(torch.from_numpy(maps).long(), CLASSES).movedim(3, 1).float()
    assert loss(right, list(maps), dice=1.0) < 1e-6
    wrong = right.flip(1)  # classes 3 and 2 for 0 and 1
    apart = loss(wrong, list(maps), dice=1.0) - loss(wrong, list(maps))
    torch.testing.assert_close(apart, torch.tensor(1.0), atol=1e-4, rtol=0)


def test_the_hardest_pixels_alone():
    y, maps = logits(), np.zeros((2, SIDE, SIDE), np.uint8)
    each = F.cross_entropy(y, torch.from_numpy(maps).long(), reduction="none").flatten()
    expected = each.sort(descending=True).values[: round(0.25 * each.numel())].mean()
    torch.testing.assert_close(loss(y, list(maps), hardest=0.25), expected)


@pytest.mark.parametrize(
    ("outputs", "maps", "says"),
    [
        (torch.zeros(2, 4), 2, r"outputs are \(2, 4\), expected \(2, classes, h, w\)"),
        ([torch.zeros(2, 4, 6, 6)], 2, "outputs are list"),
        (torch.zeros(1, 4, 6, 6), 2, "expected \\(2, classes"),
        (torch.zeros(2, 3, 6, 6), 2, "a pixel is of class 3 and the network has 3"),
    ],
)
def test_refusals(outputs, maps, says):
    with pytest.raises(ModelError, match=says):
        loss(outputs, [np.full((6, 6), 3, np.uint8)] * maps)


@pytest.mark.parametrize("holds", ["logit", "probability"])
@given(MAPS, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_one_value_a_pixel_is_learned_by_binary_cross_entropy(holds, maps, seed):
    maps = np.where(maps == IGNORED, IGNORED, maps % 2).astype(np.uint8)
    z = logits(seed)[:, :1]
    found = loss(of_classes(z if holds == "logit" else z.sigmoid(), holds), list(maps))
    seen = torch.from_numpy(maps != IGNORED)
    if not seen.any():
        assert found == 0
        return
    wanted = torch.from_numpy(maps)[seen].float()
    expected = F.binary_cross_entropy_with_logits(z[:, 0][seen], wanted)
    np.testing.assert_allclose(float(found), float(expected), rtol=1e-3)
    assert of_classes(z, "scores") is z
