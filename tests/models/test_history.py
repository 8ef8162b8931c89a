"""A Model folder's history reads in words, and a damaged one is an error in a line."""

from __future__ import annotations

import dataclasses

import pytest

from edgecv.errors import ModelError
from edgecv.models import history
from edgecv.models.model import Model

BITS = {
    "op": "binarize", "step": "bits", "form": "react", "weights": "binary", "real_inputs": False,
    "estimator": "polynomial", "layers": {"a": {}, "b": {}, "c": {}, "d": {}},
}  # fmt: skip


def model(edit: dict, facts: dict) -> Model:
    found = Model("zoo:resnet8", {"width": 8})
    return dataclasses.replace(found, edits=(edit,), facts={"bits": facts})


def test_what_a_step_did_and_measured() -> None:
    found = history.of(model(BITS, {"epochs": 2, "loss": [1.5, 0.25], "top1": 0.5}))
    assert found == [
        "built by zoo:resnet8(width=8)",
        "bits: react, binary weights, one-bit inputs: a, b, c and 1 more",
        "bits: 2 epochs, loss 0.250, top1 0.5000",
    ]


@pytest.mark.parametrize(
    ("edit", "facts"),
    [
        ({"op": "binarize", "step": "bits"}, {}),
        ({**BITS, "layers": 3}, {}),
        ({"op": "binarize"}, {}),
        ({"op": "quantizers", "step": "bits"}, {}),
        (BITS, {"top1": "high"}),
        (BITS, {"rounds": [], "method": "l1", "macs": 5}),
        (BITS, {"epochs": 2, "loss": 3}),
    ],
    ids=repr,
)
def test_what_no_step_writes_is_told_in_a_line(edit: dict, facts: dict) -> None:
    with pytest.raises(ModelError, match="is damaged"):
        history.of(model(edit, facts))
