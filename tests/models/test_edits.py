"""Edits replay without a pruning library, on plain layers, and say clearly when they do not fit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import ModelError  # noqa: E402
from edgecv.models.edits import describe, replay  # noqa: E402


def keep(**modules) -> dict:
    named = {name.replace("_", "."): kept for name, kept in modules.items()}
    return {"op": "keep_channels", "step": "small", "modules": named}


def numbered(layer: nn.Module) -> nn.Module:
    """Every parameter counts up from 0, so that what stays can be told."""
    for p in layer.parameters():
        p.data = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape)
    return layer


def test_a_convolution_keeps_rows_and_columns() -> None:
    layer = numbered(nn.Conv2d(3, 4, 2))
    before = layer.weight.detach().clone()
    replay(nn.Sequential(layer), keep(**{"0": {"out": [0, 3], "in": [1, 2]}}))
    assert torch.equal(layer.weight, before[[0, 3]][:, [1, 2]])
    assert layer.bias.tolist() == [0, 3]
    assert (layer.out_channels, layer.in_channels, layer.groups) == (2, 2, 1)


def test_a_dense_layer_keeps_rows_and_columns() -> None:
    layer = numbered(nn.Linear(3, 2))
    replay(nn.Sequential(layer), keep(**{"0": {"in": [0, 2]}}))
    assert layer.weight.tolist() == [[0, 2], [3, 5]]
    assert layer.bias.tolist() == [0, 1]
    assert (layer.in_features, layer.out_features) == (2, 2)


@pytest.mark.parametrize("sides", [{"out": [1, 2]}, {"in": [1, 2]}, {"out": [1, 2], "in": [1, 2]}])
def test_a_depthwise_convolution_has_one_list(sides: dict) -> None:
    layer = numbered(nn.Conv2d(4, 4, 1, groups=4, bias=False))
    replay(nn.Sequential(layer), keep(**{"0": sides}))
    assert layer.weight.flatten().tolist() == [1, 2]
    assert (layer.out_channels, layer.in_channels, layer.groups) == (2, 2, 2)
    assert layer(torch.ones(1, 2, 1, 1)).flatten().tolist() == [1, 2]


def test_a_grouped_convolution_keeps_whole_groups() -> None:
    layer = numbered(nn.Conv2d(6, 3, 1, groups=3, bias=False))  # 2 in, 1 out each
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    before = layer(x).flatten()
    replay(nn.Sequential(layer), keep(**{"0": {"out": [0, 2], "in": [0, 1, 4, 5]}}))
    assert layer.groups == 2
    assert torch.equal(layer(x[:, [0, 1, 4, 5]]).flatten(), before[[0, 2]])


def test_batch_norm_keeps_its_statistics() -> None:
    layer = numbered(nn.BatchNorm2d(4))
    layer.running_mean = torch.arange(4.0)
    layer.running_var = 1 + torch.arange(4.0)
    replay(nn.Sequential(layer), keep(**{"0": {"in": [1, 3]}}))
    for name in ("weight", "bias", "running_mean"):
        assert getattr(layer, name).tolist() == [1, 3]
    assert layer.running_var.tolist() == [2, 4]
    assert layer.num_features == 2


def test_prelu_keeps_its_slopes() -> None:
    layer = numbered(nn.PReLU(4))
    replay(nn.Sequential(layer), keep(**{"0": {"out": [0, 2]}}))
    assert (layer.weight.tolist(), layer.num_parameters) == ([0, 2], 2)


def test_what_stays_is_copied_and_can_be_trained() -> None:
    layer = nn.Linear(2, 2)
    weight = layer.weight
    replay(nn.Sequential(layer), keep(**{"0": {"out": [0]}}))
    layer.weight.data.zero_()
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.requires_grad
    assert weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"op": "unfold"}, "unknown edit 'unfold'"),
        ({}, "unknown edit None"),
        (keep(stem={"out": [0]}), "names layer 'stem', which is not there"),
        (keep(**{"0": {"out": [0, 99]}}), "does not fit layer '0'"),
        (keep(**{"0": {"in": [99]}}), "does not fit layer '0'"),
        (keep(**{"0": {"in": []}}), "does not fit layer '0'"),
        (keep(**{"1": {"out": [0]}}), "cannot keep channels of a GroupNorm"),
    ],
)
def test_an_edit_that_does_not_fit_is_a_model_error(edit: dict, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        replay(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)), edit)


def test_history_names_layers_that_lost_channels() -> None:
    edit = keep(stem={"out": [0, 1], "was": 4}, head={"in": [0, 1]}, norm={"out": [0, 1]})
    assert describe(edit) == "small: kept channels of 1 layers: stem 4→2"
    assert describe({"op": "unfold", "step": "one"}) == "one: unfold"
