"""What is rewritten for LiteRT computes what PyTorch's own operator does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgecv.methods.export._nhwc import culprit, keep_channels_last

ATEN = torch.ops.aten


class Call(nn.Module):
    """A function, or a layer, as a network."""

    def __init__(self, of) -> None:
        super().__init__()
        self.layer = of if isinstance(of, nn.Module) else None
        self.of = of

    def forward(self, x):
        return self.of(x) if self.layer is None else self.layer(x)


def rewritten(of, shape=(1, 4, 9, 8)):
    """The ATen graph of it, having seen that it answers the same."""
    torch.manual_seed(0)
    module, x = Call(of).eval(), torch.randn(shape)
    with torch.no_grad():
        program = torch.export.export(module, (x,)).module()
        keep_channels_last(program, x)
        torch.testing.assert_close(program(x), module(x), atol=1e-5, rtol=1e-5)
    return program


def calls(program, target):
    return program.graph.find_nodes(op="call_function", target=target)


@pytest.mark.parametrize("seed", range(16))
def test_transposed_convolutions(seed):
    """No padding, no groups, no dilation are left: what LiteRT lowers."""
    rng = np.random.default_rng(seed)
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    apart, groups = rng.integers(1, 3, 2), int(rng.choice([1, 2, 4]))
    padding = np.minimum(rng.integers(0, 3, 2), (kernel - 1) * apart)
    extra = rng.integers(0, np.maximum(stride, apart))
    layer = nn.ConvTranspose2d(
        4, 8, *(tuple(map(int, v)) for v in (kernel, stride, padding, extra)), groups,
        bool(seed % 2), tuple(map(int, apart)),
    )  # fmt: skip
    found = calls(rewritten(layer), ATEN.conv_transpose2d.input)
    assert len(found) == groups
    assert all(len(c.args) < 5 or not any(c.args[4]) for c in found)


@pytest.mark.parametrize(("how", "picked"), [
    ({"scale_factor": 0.5}, 0), ({"size": (5, 11)}, 0), ({"scale_factor": 2}, 0),
    ({"scale_factor": 0.7}, 2), ({"scale_factor": (1.3, 1.0)}, 1),
])  # fmt: skip
def test_nearest_pixels(how, picked):
    """Of a factor that is not out / in, torch takes others than LiteRT: picked by their places."""
    program = rewritten(lambda x: F.interpolate(x, **how))
    assert len(calls(program, ATEN.index_select.default)) == picked
    assert len(calls(program, ATEN.upsample_nearest2d.vec)) == (not picked)


def test_a_transposed_convolution_that_litert_knows_is_left():
    program = rewritten(nn.ConvTranspose2d(4, 8, 2, 2))
    assert not calls(program, ATEN.slice.Tensor)


@pytest.mark.parametrize("seed", range(16))
def test_pooling(seed):
    rng = np.random.default_rng(seed)
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    padding, ceil = rng.integers(0, kernel // 2 + 1), bool(rng.integers(2))
    window = [tuple(map(int, v)) for v in (kernel, stride, padding)]
    rewritten(lambda x: F.avg_pool2d(x, *window, ceil, bool(seed % 2)))
    rewritten(lambda x: F.max_pool2d(x - 5, *window, 1, ceil))
    rewritten(lambda x: F.max_pool2d(x.relu(), *window, 1, ceil))


def test_a_mean_without_its_padding_is_no_composite():
    program = rewritten(lambda x: F.avg_pool2d(x, 3, 2, 1, False, False))
    (pool,) = calls(program, ATEN.avg_pool2d.default)
    assert pool.args[0].target is ATEN.pad.default
    assert len(pool.args) == 3


def test_no_infinity_is_padded_with():
    """Of negative values the edge is repeated: an int8 grid cannot hold minus infinity."""
    program = rewritten(lambda x: F.max_pool2d(F.silu(x), 3, 2, 1))
    (pool,) = calls(program, ATEN.max_pool2d.default)
    assert pool.args[3] == [0, 0]
    assert pool.args[0].target is ATEN.cat.default
    uneven = rewritten(
        lambda x: F.max_pool2d(F.pad(F.silu(x), (1, 0, 0, 1), value=float("-inf")), 3, 2)
    )
    assert not calls(uneven, ATEN.pad.default)


def test_padding_that_tensorflow_has_is_left():
    program = rewritten(lambda x: F.max_pool2d(F.silu(x), 5, 1, 2))
    (pool,) = calls(program, ATEN.max_pool2d.default)
    assert pool.args[3] == [2, 2]


@pytest.mark.parametrize(
    "of",
    [
        F.elu,
        F.selu,
        lambda x: F.elu(x, 0.3),
        lambda x: F.celu(x, 0.4),
        lambda x: F.group_norm(x, 2, torch.arange(4.0), torch.ones(4)),
        lambda x: F.group_norm(x, 1),
        lambda x: F.group_norm(x, 4, eps=0.1),
        lambda x: F.instance_norm(x, weight=torch.arange(4.0)),
    ],
)
def test_activations_and_norms(of):
    program = rewritten(of)
    left = {
        ATEN.elu.default,
        ATEN.selu.default,
        ATEN.group_norm.default,
        ATEN.instance_norm.default,
    }
    assert not left & {node.target for node in program.graph.nodes}


@pytest.mark.parametrize(
    "of",
    [lambda x: 1.0 - x, lambda x: torch.arange(8.0) - x, lambda x: torch.rsub(x, 2)],
)
def test_a_constant_minus_a_map(of):
    """LiteRT folds it into the convolution before it with the wrong sign."""
    program = rewritten(of)
    assert not calls(program, ATEN.sub.Tensor) + calls(program, ATEN.rsub.Scalar)


@pytest.mark.parametrize("of", [lambda y: 2.0 / y, lambda y: (y + 1).reciprocal()])
def test_a_constant_over_a_map(of):
    """LiteRT folds it into the convolution before it as if it were x / c."""
    weight = torch.randn(3, 4, 1, 1)
    program = rewritten(lambda x: of(F.conv2d(x, weight)))
    (division,) = calls(program, ATEN.div.Tensor)
    assert division.args[1].target is ATEN.abs.default
    assert not calls(rewritten(lambda x: 1 / (1 + x.exp())), ATEN.abs.default)


def test_a_message_of_the_converter_is_traced_to_the_users_line():
    program = torch.export.export(Call(lambda x: x.median(1)[0]), (torch.randn(1, 4, 3, 3),))
    dump = "Lowering not found: aten.median.dim While executing %median : torch.ops.aten.median.dim"
    assert culprit(program.module(), dump).startswith("aten.median in `")
    assert culprit(program.module(), "failed to legalize operation 'mhlo.convolution'") == ""
