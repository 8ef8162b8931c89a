"""A block that can be the convolution becomes it; any other comes as near as least squares can."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import ModelError  # noqa: E402
from edgecv.methods.restructuring.blocks import Spec, chosen, make  # noqa: E402
from edgecv.methods.restructuring.fitting import captured, error, fit, regress, start_from  # noqa: E402
from edgecv.methods.restructuring.replacing import put  # noqa: E402
from edgecv.models.edits import replay  # noqa: E402
from tests import networks as nets  # noqa: E402
from tests.methods.restructuring.test_blocks import KINDS  # noqa: E402


def spec_of(layer: nn.Conv2d, into: str, **options) -> Spec:
    spec = chosen(layer, into, options.get("groups"), options.get("expansion"))
    assert isinstance(spec, Spec), spec
    return spec


def pairs_of(layer: nn.Conv2d, seed: int = 1, batches: int = 3) -> list:
    torch.manual_seed(seed)
    xs = [torch.randn(8, layer.in_channels, 8, 8) + 0.5 for _ in range(batches)]
    with torch.no_grad():
        return [(x, layer(x)) for x in xs]


def composed(into: str, **options) -> nn.Conv2d:
    """A convolution that a block of that kind can be exactly: it gives what such a block gives."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    block = make(spec_of(layer, into, **options))
    with torch.no_grad():
        nothing = block(torch.zeros(1, 8, 5, 5))[0, :, 2, 2]
        eye = torch.zeros(72, 8, 5, 5)
        for i in range(8):
            for a in range(3):
                for b in range(3):  # the kernel is the response to one pixel
                    eye[(i * 3 + a) * 3 + b, i, a + 1, b + 1] = 1
        response = block(eye)[:, :, 2, 2] - nothing
        layer.weight.copy_(response.reshape(8, 3, 3, 8).permute(3, 0, 1, 2))
        layer.bias.copy_(nothing)
    return layer


@pytest.mark.parametrize("into", ["separable", "bottleneck"])
def test_what_the_block_can_be_is_found_without_training(into: str) -> None:
    layer = composed(into)
    found = fit(spec_of(layer, into), layer.weight, pairs_of(layer), steps=0, seed=0)
    assert found.start == found.error < 1e-6


@pytest.mark.parametrize(("into", "reached"), [("grouped", 0.75), ("igcv2", 0.35), ("igcv3", 0.25)])
def test_where_the_start_is_partly_random_descending_comes_this_near(
    into: str, reached: float
) -> None:
    """Not convex: a block that could be the convolution is not found exactly. Measured bounds."""
    layer = composed(into)
    found = fit(spec_of(layer, into), layer.weight, pairs_of(layer), steps=150, seed=0)
    assert found.error < reached < found.start


@pytest.mark.parametrize("into", KINDS)
def test_regression_beats_what_is_near_it(into: str) -> None:
    """The last convolution is a minimum: no small step away from it helps."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, padding=1)
    pairs = pairs_of(layer)
    spec = spec_of(layer, into, **({"groups": 2} if into == "grouped" else {}))
    block = make(spec)
    with torch.no_grad():
        start_from(block, spec, layer.weight)
    regress(block, pairs)
    best = error(block, pairs)
    last = [m for m in block if isinstance(m, nn.Conv2d)][-1]
    for parameter in (last.weight, last.bias):
        kept = parameter.detach().clone()
        for _ in range(5):
            with torch.no_grad():
                parameter.copy_(kept + 0.02 * torch.randn_like(kept))
            assert error(block, pairs) > best
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("into", KINDS)
def test_descending_never_ends_above_the_start(into: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    pairs = pairs_of(layer)
    found = fit(spec_of(layer, into), layer.weight, pairs, steps=40, seed=0)
    assert found.error <= found.start < 1
    assert error(found.block, pairs) == pytest.approx(found.error, rel=1e-5)
    again = fit(spec_of(layer, into), layer.weight, pairs, steps=40, seed=0)
    assert all(map(torch.equal, found.block.parameters(), again.block.parameters()))


def test_separable_start_is_the_best_rank_one_of_every_input() -> None:
    """‖W_i − p d‖² is what the singular values beyond the first leave (Eckart & Young)."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, bias=False)
    spec = spec_of(layer, "separable")
    block = make(spec)
    with torch.no_grad():
        start_from(block, spec, layer.weight)
    for i in range(4):
        kernels, d = layer.weight[:, i].detach().flatten(1), block[0].weight[i].flatten()
        left = (kernels - (kernels @ d)[:, None] * d / d.square().sum()).square().sum()
        values = torch.linalg.svdvals(kernels)
        torch.testing.assert_close(left, values[1:].square().sum(), atol=1e-6, rtol=1e-4)


def test_pairs_are_the_students_inputs_and_the_teachers_outputs() -> None:
    teacher, student = (nets.seeded(lambda: nets.chain(nn.ReLU()), seed) for seed in (0, 1))
    x = torch.randn(20, 3, 8, 8)
    pairs = captured(teacher, student, "2", x)
    assert [len(a) for a, _ in pairs] == [16, 4]
    torch.testing.assert_close(torch.cat([a for a, _ in pairs]), torch.relu(student[0](x)))
    torch.testing.assert_close(torch.cat([b for _, b in pairs]), teacher[:3](x))
    assert not student[2]._forward_pre_hooks
    assert not teacher[2]._forward_hooks


def test_a_layer_that_is_used_twice_gives_two_pairs_and_is_replaced_everywhere() -> None:
    module = nets.Shared()
    module.alias = module.b
    assert len(captured(copy.deepcopy(module), module, "b", torch.zeros(4, 3, 8, 8))) == 2
    block = make(spec_of(module.b, "separable"))
    put(module, module.b, block)
    assert module.b is block
    assert module.alias is block


def edit_of(**changes) -> dict:
    layer = nn.Conv2d(16, 16, 3, padding=1)
    data = spec_of(layer, "separable").json() | changes
    return {"op": "replace", "step": "compact", "modules": {"2": data}}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (edit_of(c_in=8), "replaces 8 to 16 channels, '2' has (16, 16)"),
        (edit_of(into="magic"), "is damaged: \"a block named 'magic'\""),
        (edit_of(more=1), "is damaged"),
        ({**edit_of(), "modules": {"9": edit_of()["modules"]["2"]}}, "layer '9', which is not"),
        ({"op": "replace", "step": "compact"}, "is damaged: 'modules'"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit: dict, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        replay(nets.chain(nn.ReLU()), edit)
    assert says in str(caught.value)
