"""LeNet-300-100 and LeNet-5: the networks that pruning and quantization papers measure on MNIST.

LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, in the form of Caffe
that Han et al. (2015) compress: LeNet-300-100 is 784-300-100-10, LeNet-5 is 20-50-500-10 with max
pooling and one ReLU.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgecv.errors import ModelError


class LeNet300(nn.Module):
    """float (N, channels, size, size) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, size: int) -> None:
        super().__init__()
        first, second = max(1, round(300 * width)), max(1, round(100 * width))
        self.dense1, self.relu1 = nn.Linear(channels * size * size, first), nn.ReLU()
        self.dense2, self.relu2 = nn.Linear(first, second), nn.ReLU()
        self.head = nn.Linear(second, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu2(self.dense2(self.relu1(self.dense1(x.flatten(1))))))


class LeNet5(nn.Module):
    """float (N, channels, size, size) -> logits float (N, classes)."""

    def __init__(self, width: float, classes: int, channels: int, size: int) -> None:
        super().__init__()
        if size < 16:
            raise ModelError("zoo lenet5", f"size {size} is below 16", "two 5x5 and two halvings")
        c1, c2, c3 = (max(1, round(c * width)) for c in (20, 50, 500))
        side = ((size - 4) // 2 - 4) // 2
        self.conv1, self.pool1 = nn.Conv2d(channels, c1, 5), nn.MaxPool2d(2)
        self.conv2, self.pool2 = nn.Conv2d(c1, c2, 5), nn.MaxPool2d(2)
        self.dense, self.relu = nn.Linear(c2 * side * side, c3), nn.ReLU()
        self.head = nn.Linear(c3, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool2(self.conv2(self.pool1(self.conv1(x))))
        return self.head(self.relu(self.dense(x.flatten(1))))


def lenet_300_100(
    width: float = 1.0, classes: int = 10, channels: int = 1, size: int = 28
) -> nn.Module:
    """Three dense layers. 266,610 parameters and 266,200 MACs."""
    return LeNet300(width, classes, channels, size)


def lenet5(width: float = 1.0, classes: int = 10, channels: int = 1, size: int = 28) -> nn.Module:
    """Two convolutions and two dense layers. 431,080 parameters and 2.29M MACs."""
    return LeNet5(width, classes, channels, size)
