"""Which block fits which convolution, and what it costs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.methods.restructuring.blocks import EXPANSION, GROUPED, Spec, chosen, make, weights  # noqa: E402

KINDS = ("separable", "bottleneck", "grouped", "igcv1", "igcv2", "igcv3")


def test_every_block_is_tried_here() -> None:
    assert set(KINDS) == {"separable", *GROUPED, *EXPANSION}


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    into=st.sampled_from(KINDS),
    c_in=st.integers(2, 24),
    c_out=st.integers(2, 24),
    kernel=st.sampled_from([(3, 3), (5, 5), (1, 3), (2, 2)]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, (2, 1), "valid"]),
)
def test_a_block_gives_the_shape_of_what_it_replaces(
    into: str, c_in: int, c_out: int, kernel: tuple, stride: int, dilation: int, padding: object
) -> None:
    layer = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation)
    spec = chosen(layer, into, None, None)
    if isinstance(spec, str):  # too few channels for groups, or no smaller
        assert "channels" in spec or "no larger" in spec
        return
    block, x = make(spec), torch.zeros(2, c_in, 13, 12)
    assert block(x).shape == layer(x).shape
    kernels = [p.numel() for p in block.parameters() if p.ndim == 4]
    assert sum(kernels) == weights(spec) < layer.weight.numel()
    assert Spec.read(spec.json()) == spec


def test_same_padding_is_kept() -> None:
    layer = nn.Conv2d(16, 16, 5, padding="same", dilation=2)
    spec = chosen(layer, "separable", None, None)
    assert isinstance(spec, Spec)
    assert spec.padding == (4, 4)


@pytest.mark.parametrize(
    ("layer", "into", "groups", "says"),
    [
        (nn.Linear(4, 4), "separable", None, "is a Linear, not a convolution"),
        (nn.Conv2d(8, 8, 1), "separable", None, "is 1x1 already"),
        (nn.Conv2d(8, 8, 3, groups=2), "separable", None, "is in 2 groups already"),
        (nn.Conv2d(8, 8, 3, padding_mode="reflect"), "igcv1", None, "pads with 'reflect'"),
        (nn.Conv2d(8, 8, 2, padding="same"), "igcv1", None, "pads one side more"),
        (nn.Conv2d(8, 9, 3), "grouped", None, "no groups in common"),
        (nn.Conv2d(8, 8, 3), "grouped", 3, "which 3 groups do not divide"),
        (nn.Conv2d(3, 8, 3), "igcv3", None, "which two groups do not divide"),
        (nn.Conv2d(2, 1, 3), "separable", None, "is no larger (18 weights) than the block (20)"),
    ],
)
def test_what_does_not_fit_is_said(
    layer: nn.Module, into: str, groups: int | None, says: str
) -> None:
    reason = chosen(layer, into, groups, None)
    assert isinstance(reason, str)
    assert says in reason


def test_igcv_groups_cost_least() -> None:
    layer = nn.Conv2d(64, 64, 3)
    for into in ("igcv1", "igcv2"):
        best = chosen(layer, into, None, None)
        others = [chosen(layer, into, g, None) for g in (2, 4, 8, 16, 32)]
        assert weights(best) == min(weights(s) for s in others if isinstance(s, Spec))
