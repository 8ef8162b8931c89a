"""Parameters and MACs of the zoo are the published ones, to the digit. Weights on the meta device.

Sources: torchvision's documentation (exact parameters, MACs to three digits), the papers, Li et al.
2017 (CIFAR networks), Liu et al. 2017 (VGG-19), tf-slim's README (the MobileNet grids), Keras
(Xception), timm (EfficientNet-Lite).
"""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.models import zoo  # noqa: E402
from edgecv.models.macs import macs, parameters  # noqa: E402

# name, arguments, parameters, side in pixels, MACs as printed (None: not published)
ROWS: list[tuple[str, dict[str, Any], int, int, str | None]] = [
    ("resnet18", {}, 11_689_512, 224, "1.814G"),
    ("resnet34", {}, 21_797_672, 224, "3.664G"),
    ("resnet50", {}, 25_557_032, 224, "4.089G"),
    ("resnet101", {}, 44_549_160, 224, "7.801G"),
    ("resnet152", {}, 60_192_808, 224, "11.51G"),
    ("vgg11", {}, 132_863_336, 224, "7.61G"),
    ("vgg13", {}, 133_047_848, 224, "11.31G"),
    ("vgg16", {}, 138_357_544, 224, "15.47G"),
    ("vgg19", {}, 143_667_240, 224, "19.63G"),
    ("vgg11", {"batch_norm": True}, 132_868_840, 224, "7.61G"),
    ("vgg13", {"batch_norm": True}, 133_053_736, 224, "11.31G"),
    ("vgg16", {"batch_norm": True}, 138_365_992, 224, "15.47G"),
    ("vgg19", {"batch_norm": True}, 143_678_248, 224, "19.63G"),
    ("mobilenet_v2", {}, 3_504_872, 224, "0.301G"),
    ("mobilenet_v3_large", {}, 5_483_032, 224, "0.217G"),
    ("mobilenet_v3_small", {}, 2_542_856, 224, "0.057G"),
    ("shufflenet_v2", {"width": 0.5}, 1_366_792, 224, "0.040G"),
    ("shufflenet_v2", {"width": 1.0}, 2_278_604, 224, "0.145G"),
    ("shufflenet_v2", {"width": 1.5}, 3_503_624, 224, "0.296G"),
    ("shufflenet_v2", {"width": 2.0}, 7_393_996, 224, "0.583G"),
    ("densenet121", {}, 7_978_856, 224, "2.834G"),
    ("densenet_cifar", {"depth": 100, "growth": 12}, 769_162, 32, None),
    ("densenet_cifar", {"depth": 250, "growth": 24}, 15_324_406, 32, None),
    ("densenet_cifar", {"depth": 190, "growth": 40}, 25_624_430, 32, None),
    ("efficientnet_lite0", {}, 4_652_008, 224, None),
    ("efficientnet_lite1", {}, 5_416_680, 240, None),
    ("efficientnet_lite2", {}, 6_092_072, 260, None),
    ("efficientnet_lite3", {}, 8_197_096, 280, None),
    ("efficientnet_lite4", {}, 13_006_568, 300, None),
    ("xception", {}, 22_855_952, 299, "8.4G"),
    ("lenet_300_100", {}, 266_610, 28, None),
    ("lenet5", {}, 431_080, 28, None),
    ("resnet20", {"shortcut": "zeros"}, 269_722, 32, None),
    ("resnet32", {"shortcut": "zeros"}, 464_154, 32, None),
    ("resnet44", {"shortcut": "zeros"}, 658_586, 32, None),
    ("resnet56", {"shortcut": "zeros"}, 853_018, 32, "1.25e8"),
    ("resnet110", {"shortcut": "zeros"}, 1_727_962, 32, "2.53e8"),
    ("vgg_cifar", {"depth": 16}, 14_724_042, 32, "3.13e8"),
    ("vgg_cifar", {"depth": 19}, 20_035_018, 32, None),
    ("mobilenet_v1", {}, 4_231_976, 224, "569M"),
]
# What a paper prints in millions, where the row above is somebody's exact count.
MILLIONS = [
    ("resnet20", {"shortcut": "zeros"}, "0.27"),
    ("resnet32", {"shortcut": "zeros"}, "0.46"),
    ("resnet44", {"shortcut": "zeros"}, "0.66"),
    ("resnet56", {"shortcut": "zeros"}, "0.85"),
    ("resnet110", {"shortcut": "zeros"}, "1.7"),
    ("densenet_cifar", {"depth": 100, "growth": 12}, "0.8"),
    ("densenet_cifar", {"depth": 250, "growth": 24}, "15.3"),
    ("densenet_cifar", {"depth": 190, "growth": 40}, "25.6"),
    ("vgg_cifar", {"depth": 19}, "20.04"),
    ("efficientnet_lite0", {}, "4.7"),
    ("efficientnet_lite1", {}, "5.4"),
    ("efficientnet_lite2", {}, "6.1"),
    ("efficientnet_lite3", {}, "8.2"),
    ("efficientnet_lite4", {}, "13.0"),
    ("xception", {}, "22.9"),
    ("igcv3", {}, "3.5"),
]
UNITS = {"G": 1e9, "M": 1e6}


def made(name: str, **args: Any) -> nn.Module:
    with torch.device("meta"):
        return zoo.build(name, **args)


def agrees(count: float, printed: str) -> bool:
    """Whether `count` is `printed` ("1.81G", "2.53e8"), rounded or cut off after its last digit."""
    unit = UNITS.get(printed[-1], 1.0)
    mantissa, _, exponent = printed.rstrip("GM").partition("e")
    unit *= 10 ** int(exponent or 0)
    step = 10.0 ** -len(mantissa.partition(".")[2])
    value = count / unit
    return any(math.isclose(turned(value / step) * step, float(mantissa), rel_tol=1e-9)
               for turned in (round, math.floor))  # fmt: skip


def named(name: str, args: dict[str, Any]) -> str:
    return "-".join([name, *(f"{k}={v}" for k, v in args.items())])


@pytest.mark.parametrize("row", ROWS, ids=[named(*r[:2]) for r in ROWS])
def test_counts_are_the_published_ones(row: tuple) -> None:
    name, args, expected, side, printed = row
    module = made(name, **args)
    assert parameters(module) == expected
    if printed is not None:
        count = macs(module, zoo.arguments(name)["channels"], (side, side))
        assert agrees(count, printed), f"{count:,} is not {printed}"


@pytest.mark.parametrize(("name", "args", "printed"), MILLIONS)
def test_parameters_are_what_the_paper_prints(name: str, args: dict, printed: str) -> None:
    assert agrees(parameters(made(name, **args)) / 1e6, printed)


def test_printed_numbers_are_read_to_their_last_digit() -> None:
    assert agrees(1_814_073_344, "1.814G")
    assert agrees(125_485_696, "1.25e8")
    assert not agrees(1_815_073_344, "1.814G")
    assert not agrees(127_000_000, "1.25e8")


def norms(module: nn.Module) -> int:
    return sum(m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm2d))


# tf-slim: 1001 classes; parameters in millions, and millions of MACs by resolution
V1 = {
    1.0: (4.24, {224: 569, 192: 418, 160: 291, 128: 186}),
    0.75: (2.59, {224: 317, 192: 233, 160: 162, 128: 104}),
    0.5: (1.34, {224: 150, 192: 110, 160: 77, 128: 49}),
    0.25: (0.47, {224: 41, 160: 21, 128: 14}),  # 192: 34 is a misprint for 30
}
V2 = {
    1.4: (6.06, {224: 582}),
    1.3: (5.34, {224: 509}),
    1.0: (3.47, {224: 300, 192: 221, 160: 154, 128: 99, 96: 56}),
    0.75: (2.61, {224: 209, 192: 153, 160: 107, 128: 69, 96: 39}),
    0.5: (1.95, {224: 97, 192: 71, 160: 50, 128: 32, 96: 18}),
    0.35: (1.66, {224: 59, 192: 43, 160: 30, 128: 20, 96: 11}),
}


@pytest.mark.parametrize("width", V1)
def test_mobilenet_v1_in_every_width_and_resolution(width: float) -> None:
    """Its parameters are TensorFlow's variables: three per channel of batch norm (no scale).

    Its MACs have the global average in them.
    """
    millions, row = V1[width]
    module = made("mobilenet_v1", width=width, classes=1001)
    assert round((parameters(module) + norms(module)) / 1e6, 2) == millions
    for side, printed in row.items():
        count = macs(module, 3, (side, side)) + module.head.in_features * (side // 32) ** 2
        if width == 0.75:  # that row leaves the first convolution out; the paper has 325 with it
            count -= module.stem[0].weight.numel() * (side // 2) ** 2
        assert round(count / 1e6) == printed, (side, count)


def test_mobilenet_v1_as_its_paper_has_it() -> None:
    """Tables 6 and 7: millions of MACs by width, and by resolution."""
    printed = {1.0: "569M", 0.75: "325M", 0.5: "149M", 0.25: "41M"}
    for width, number in printed.items():
        assert agrees(macs(made("mobilenet_v1", width=width), 3, (224, 224)), number)


@pytest.mark.parametrize("width", V2)
def test_mobilenet_v2_in_every_width_and_resolution(width: float) -> None:
    """Its parameters are counted with batch norm folded into the convolutions, its MACs cut off."""
    millions, row = V2[width]
    module = made("mobilenet_v2", width=width, classes=1001)
    assert round((parameters(module) - 2 * norms(module)) / 1e6, 2) == millions
    for side, printed in row.items():
        assert int(macs(module, 3, (side, side)) / 1e6) == printed


def test_igcv1_as_its_paper_counts() -> None:
    """IGC-L100M2 on ImageNet: 8.61M weights (no batch norm, no bias) and 1.3G MACs."""
    module = made("igcv1_resnet18")
    weights = [m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert round(sum(weights) / 1e6, 2) == 8.61
    assert agrees(macs(module, 3, (224, 224)), "1.3G")


def test_lenets_by_hand() -> None:
    assert macs(made("lenet_300_100"), 1, (28, 28)) == 784 * 300 + 300 * 100 + 100 * 10
    convolutions = 24 * 24 * 25 * 20 + 8 * 8 * 25 * 20 * 50
    assert macs(made("lenet5"), 1, (28, 28)) == convolutions + 800 * 500 + 500 * 10
