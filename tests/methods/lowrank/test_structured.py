"""Structured layers: the product by FFT is the matrix written out, and what it projects to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.methods.lowrank import projection, structured  # noqa: E402
from edgecv.methods.lowrank.structured import Circulant, ToeplitzLike, make, materialised  # noqa: E402

QUICK = settings(max_examples=40, derandomize=True, deadline=None)
SIZES = {"inputs": st.integers(1, 17), "outputs": st.integers(1, 17)}


@pytest.mark.parametrize("structure", structured.STRUCTURES)
@QUICK
@given(**SIZES, rank=st.integers(1, 4), seed=st.integers(0, 1000))
def test_the_product_by_fft_is_that_of_the_matrix(
    structure: str, inputs: int, outputs: int, rank: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = make(structure, inputs, outputs, rank).double()
    x = torch.randn(3, inputs, dtype=torch.float64)
    assert layer.matrix().shape == (outputs, inputs)
    torch.testing.assert_close(layer(x), x @ layer.matrix().T + layer.bias)
    dense = materialised(nn.Sequential(layer))
    assert isinstance(dense[0], nn.Linear)
    torch.testing.assert_close(dense(x), layer(x))


@QUICK
@given(n=st.integers(1, 12), seed=st.integers(0, 1000))
def test_a_circulant_matrix_is_its_first_column_turned(n: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Circulant(n, n).double()
    turned = torch.stack([torch.roll(layer.g.detach(), i) for i in range(n)], 1)
    torch.testing.assert_close(layer.matrix().detach(), turned)


@QUICK
@given(n=st.integers(2, 14), rank=st.integers(1, 4), seed=st.integers(0, 1000))
def test_the_displacement_has_the_rank(n: int, rank: int, seed: int) -> None:
    torch.manual_seed(seed)
    moved = projection.displacement(ToeplitzLike(n, n, rank).double().matrix().detach())
    values = torch.linalg.svdvals(moved)
    assert (values > 1e-9 * values[0]).sum() == min(n, rank)


def test_krylov_by_hand() -> None:
    """M = ½ [g, Z₁ g] [h, Z₋₁ h], with Z₋₁ (a, b) = (−b, a)."""
    layer = ToeplitzLike(2, 2, 1, bias=False)
    layer.g.data, layer.h.data = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    wanted = 0.5 * torch.tensor([[1.0, 2.0], [2.0, 1.0]]) @ torch.tensor([[3.0, -5.0], [5.0, 3.0]])
    torch.testing.assert_close(layer.matrix().detach(), wanted)


def test_every_matrix_is_toeplitz_like_at_full_rank_and_a_toeplitz_one_at_two() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 7)
    assert projection.left(layer, projection.project(layer, "toeplitz", 7)) < 1e-6
    diagonals = torch.randn(13)
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    layer.weight.data = diagonals[rows - columns + 6]
    assert projection.left(layer, projection.project(layer, "toeplitz", 2)) < 1e-6
    assert projection.left(layer, projection.project(layer, "toeplitz", 1)) > 1e-2


def test_a_circulant_layer_is_found_again_and_others_are_averaged() -> None:
    torch.manual_seed(0)
    layer, source = nn.Linear(6, 6), Circulant(6, 6)
    layer.weight.data = source.matrix().detach()
    assert projection.left(layer, projection.project(layer, "circulant", 1)) < 1e-9
    layer = nn.Linear(6, 6)
    found = projection.project(layer, "circulant", 1)
    mean = layer.weight.detach().numpy()[np.arange(6), np.arange(6)].mean()
    assert float(found.g[0].detach()) == pytest.approx(mean, abs=1e-4)
    assert torch.equal(found.bias, layer.bias)


@pytest.mark.parametrize("structure", structured.STRUCTURES)
def test_projection_on_data_is_better_on_it(structure: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(10, 6)
    x = torch.randn(200, 10).double() @ torch.randn(10, 10).double()
    c = (x.T @ x / 200).numpy()
    plain, aware = (projection.project(layer, structure, 2, known) for known in (None, c))
    assert projection.left(layer, aware, c) < projection.left(layer, plain, c)


def test_a_network_without_structure_is_itself() -> None:
    module = nn.Sequential(nn.Linear(3, 3))
    assert materialised(module) is module


def test_what_is_written_out_is_a_copy() -> None:
    module = nn.Sequential(nn.Sequential(make("toeplitz", 5, 4, 2)), nn.ReLU())
    dense = materialised(module.eval())
    assert structured.has_structured(module)
    assert not structured.has_structured(dense)
    assert not dense[0][0].training


def test_gradients_reach_the_parameters() -> None:
    layer = make("toeplitz", 8, 8, 2)
    layer(torch.randn(4, 8)).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in layer.parameters())
