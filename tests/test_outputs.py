"""What a network returns, in any form, becomes tensors with names."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest

pytest.importorskip("torch")
import torch

from edgecv.errors import ModelError
from edgecv.outputs import flat, outputs_of

ROW, MAP = torch.zeros(1, 5), torch.ones(1, 4, 8, 8)
Boxes = namedtuple("Boxes", ["boxes", "scores"])


@dataclass
class Answer:
    tokens: torch.Tensor
    pooled: torch.Tensor
    loss: torch.Tensor | None = None


def forms() -> list:
    other = MAP.clone()
    return [
        (ROW, ["logits"]),
        ((ROW,), ["logits"]),
        ([[MAP]], ["output"]),
        (torch.zeros(()), ["output"]),
        (torch.zeros(4, 5), ["output"]),
        ({"embedding": ROW}, ["embedding"]),
        ((ROW, MAP), ["output_0", "output_1"]),
        ({"out": MAP, "aux": other}, ["out", "aux"]),
        (Boxes(ROW, MAP), ["boxes", "scores"]),
        (Answer(MAP, ROW), ["tokens", "pooled"]),
        ({"levels": [MAP, other], "head": ROW}, ["levels_0", "levels_1", "head"]),
        ((ROW, {"map": MAP}), ["output_0", "output_1_map"]),
        ({"input": ROW, "a.b": MAP, "a b": other}, ["input_2", "a_b", "a_b_2"]),
        ({0: ROW, 1: MAP}, ["output_0", "output_1"]),
        (torch.max(MAP.flatten(1), 1), ["output_0", "output_1"]),
    ]


@pytest.mark.parametrize("number", range(len(forms())))
def test_names(number: int) -> None:
    result, names = forms()[number]
    assert list(outputs_of(result).tensors) == names


def test_what_is_left_out_is_said() -> None:
    found = outputs_of({"out": ROW, "loss": None, "stride": 8, "again": ROW})
    assert list(found.tensors) == ["out"]
    assert found.notes == (
        "output 'loss' is left out: it is None",
        "output 'stride' is left out: it is a Python int and no tensor",
        "output 'again' is left out: it is 'out' again",
    )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "returns a NoneType without a tensor"),
        ({"a": None}, "returns a dict without a tensor"),
        ((ROW, {1}), "returns a set in 'output_1'"),
        (object(), "returns a object "),
        (ROW.half(), "answers in float16, not in float32"),
        ({"f": ROW.double()}, "output 'f': answers in float64"),
        (ROW.to(torch.complex64), "complex"),
        (ROW.to_sparse(), "sparse"),
        ((ROW, torch.zeros(1, 0)), r"output 'output_1': is empty: \(1, 0\)"),
    ],
)
def test_what_holds_no_tensors_that_can_be_seen_is_refused(result, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        outputs_of(result, "mine:make")


def test_a_network_is_flat_only_meanwhile() -> None:
    class Net(torch.nn.Module):
        def forward(self, x):
            return {"b": x + 1, "a": None, "c": [x * 2]}

    net = Net()
    with flat(net):
        found = net(ROW)
    assert isinstance(found, tuple)
    assert [t.max() for t in found] == [1, 0]
    assert isinstance(net(ROW), dict)
