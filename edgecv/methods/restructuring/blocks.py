"""W ≈ a product of cheap convolutions: the blocks that can stand where a k×k convolution stood.

    separable    pointwise · depthwise k×k
    grouped      G1(g) · shuffle · Gk(g)                        g groups, mixed once by the shuffle
    igcv1        shuffle · G1(c_out/g) · shuffle · Gk(g)        complementary
    igcv2        shuffle · G1(c_out/g) · shuffle · G1(g) · depthwise k×k          complementary
    igcv3        shuffle · G1(2) · depthwise k×k · shuffle · G1(2), `expansion` times wider inside
    bottleneck   1x1 · k×k · 1x1, `expansion` (below 1) of the input's channels inside

Gk(g) and G1(g) are k×k and 1x1 convolutions of g groups. There is no activation and no batch norm
inside: what is replaced is linear, and its own batch norm and activation come after it as before.
The last convolution has a bias, so that means agree even where the kernel cannot.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, get_args

from torch import nn

from edgecv.methods.restructuring import Into
from edgecv.models.layer_kinds import altered
from edgecv.models.zoo.blocks import ChannelShuffle
from edgecv.models.zoo.igc import PAIR, cheapest_groups, interleaved, sparse_pointwise

GROUPED = ("grouped", "igcv1", "igcv2")  # those with a choice of groups
EXPANSION = {"igcv3": 2.0, "bottleneck": 0.25}


@dataclass(frozen=True)
class Spec:
    """A block, as an edit has it: plain numbers. stride to dilation: (rows, columns).

    groups: g, where the block has groups. inner: channels inside igcv3 and bottleneck
    """

    into: str
    c_in: int
    c_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1
    inner: int = 0

    def json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def read(data: dict[str, Any]) -> Spec:
        """Raises KeyError or TypeError where `data` is no block's."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        if fields["into"] not in get_args(Into):
            raise KeyError(f"a block named {fields['into']!r}")
        return Spec(**fields)


def chosen(layer: nn.Module, into: str, groups: int | None, expansion: float | None) -> Spec | str:
    """The block for a layer, or why there is none: the end of "layer X ..."."""
    if not isinstance(layer, nn.Conv2d):
        return f"is a {type(layer).__name__}, not a convolution"
    if why := altered(layer):
        return why
    if layer.groups > 1:
        return f"is in {layer.groups} groups already"
    if math.prod(_pair(layer.kernel_size)) == 1:
        return "is 1x1 already"
    if layer.padding_mode != "zeros":
        return f"pads with {layer.padding_mode!r}, not with zeros"
    if layer.padding == "same" and any(
        d * (k - 1) % 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
    ):
        return "pads one side more than the other"
    spec = _sized(layer, into, groups, expansion)
    if isinstance(spec, Spec) and weights(spec) >= layer.weight.numel():
        return f"is no larger ({layer.weight.numel()} weights) than the block ({weights(spec)})"
    return spec


def _sized(layer: nn.Conv2d, into: str, groups: int | None, expansion: float | None) -> Spec | str:
    c_in, c_out = layer.in_channels, layer.out_channels
    common, g, inner = math.gcd(c_in, c_out), 1, 0
    if into in GROUPED:
        if groups is not None and common % groups:
            return f"has {c_in} and {c_out} channels, which {groups} groups do not divide"
        g = groups or _default_groups(into, c_in, c_out, _pair(layer.kernel_size))
        if g == 1:
            return f"has {c_in} and {c_out} channels, which have no groups in common"
    elif into in EXPANSION:
        inner = max(1, round(c_in * (expansion or EXPANSION[into])))
        if into == "igcv3":
            inner += inner % PAIR
            if c_in % PAIR or c_out % PAIR:
                return f"has {c_in} and {c_out} channels, which two groups do not divide"
    return Spec(
        into, c_in, c_out, _pair(layer.kernel_size), _pair(layer.stride), _padding(layer),
        _pair(layer.dilation), g, inner,
    )  # fmt: skip


def make(spec: Spec) -> nn.Sequential:
    """The block, randomly initialised. Its last convolution is what least squares start."""
    c_in, c_out, spatial = spec.c_in, spec.c_out, _spatial(spec)
    if spec.into == "separable":
        return nn.Sequential(_depthwise(c_in, spatial), nn.Conv2d(c_in, c_out, 1))
    if spec.into == "grouped":
        return nn.Sequential(
            nn.Conv2d(c_in, c_out, groups=spec.groups, bias=False, **spatial),
            ChannelShuffle(c_out, spec.groups),
            nn.Conv2d(c_out, c_out, 1, groups=spec.groups),
        )
    if spec.into == "igcv1":
        return interleaved(c_in, c_out, spec.groups, bias=True, **spatial)
    if spec.into == "igcv2":
        pointwise = sparse_pointwise(c_in, c_out, spec.groups, bias=True)
        return nn.Sequential(_depthwise(c_in, spatial), *pointwise)
    if spec.into == "igcv3":
        return nn.Sequential(
            nn.Conv2d(c_in, spec.inner, 1, groups=PAIR, bias=False),
            ChannelShuffle(spec.inner, PAIR),
            _depthwise(spec.inner, spatial),
            nn.Conv2d(spec.inner, c_out, 1, groups=PAIR),
            ChannelShuffle(c_out, c_out // PAIR),
        )
    return nn.Sequential(
        nn.Conv2d(c_in, spec.inner, 1, bias=False),
        nn.Conv2d(spec.inner, spec.inner, bias=False, **spatial),
        nn.Conv2d(spec.inner, c_out, 1),
    )


def weights(spec: Spec) -> int:
    """Weights of the block's kernels: its cost for one pixel, where the stride is 1."""
    k, c_in, c_out, g = math.prod(spec.kernel), spec.c_in, spec.c_out, spec.groups
    return {
        "separable": c_in * (k + c_out),
        "grouped": c_out * (c_in * k + c_out) // g,
        "igcv1": c_out * (c_in * k // g + g),
        "igcv2": c_in * k + c_out * (c_in // g + g),
        "igcv3": spec.inner * (c_in // PAIR + k + c_out // PAIR),
        "bottleneck": spec.inner * (c_in + spec.inner * k + c_out),
    }[spec.into]


def _default_groups(into: str, c_in: int, c_out: int, kernel: tuple[int, int]) -> int:
    """igcv1 and igcv2: least weights; grouped: 4, or the most below it that divides.

    igcv1 has at least two channels in a group: with one it would be `separable`.
    """
    common = math.gcd(c_in, c_out)
    divisors = [g for g in range(1, common + 1) if common % g == 0]
    if into == "igcv2":
        return cheapest_groups(c_in, c_out)
    if into == "igcv1":
        paired = [g for g in divisors if 2 * g <= c_out]
        return min(paired or [1], key=lambda g: c_in * math.prod(kernel) // g + g)
    return max(g for g in divisors if g <= 4)


def _depthwise(channels: int, spatial: dict[str, Any]) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, groups=channels, bias=False, **spatial)


def _spatial(spec: Spec) -> dict[str, Any]:
    return {
        "kernel_size": spec.kernel,
        "stride": spec.stride,
        "padding": spec.padding,
        "dilation": spec.dilation,
    }


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    """Zeros on either side; "same" and "valid" in numbers (an uneven "same" is not eligible)."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        kernel, dilation = _pair(layer.kernel_size), _pair(layer.dilation)
        return dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2
    return _pair(layer.padding)
