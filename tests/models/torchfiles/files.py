"""Files as PyTorch writes them, whole and broken, for the tests of this folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

State = dict[str, Tensor]


class Net(nn.Module):
    """A convolution, its norm, a map and a head; what it returns is for `forward` to say."""

    def __init__(self, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def state(seed: int = 1) -> State:
    return dict(Net(seed=seed).state_dict())


def behind(prefix: str, values: State) -> State:
    return {f"{prefix}{name}": value for name, value in values.items()}


def without(values: State, end: str) -> State:
    return {name: value for name, value in values.items() if not name.endswith(end)}


def pickled(path: Path, legacy: bool = False) -> Path:
    """A whole module."""
    torch.save(Net(), path, _use_new_zipfile_serialization=not legacy)
    return path


def beside(path: Path) -> Path:
    """Weights with an object beside them."""
    torch.save({"model": state(), "args": argparse.Namespace(lr=0.1)}, path)
    return path


def saved(path: Path, value: object, legacy: bool = False) -> Path:
    if path.suffix == ".safetensors":
        save_file(value, path)  # type: ignore[arg-type]
    else:
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
