"""A network with quantizers is the user's own, and gives its float network back."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import ModelError, StageError  # noqa: E402
from edgecv.methods.qat.attach import has_quantizers, of, plain, rounded  # noqa: E402
from edgecv.methods.qat.initialisation import prepare  # noqa: E402
from edgecv.models.edits import describe, replay  # noqa: E402
from tests.methods.qat.nets import Spelled, settled  # noqa: E402

X = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def made(bits: int = 8, method: str = "lsq") -> tuple[nn.Module, dict]:
    torch.manual_seed(0)
    module = settled(Spelled())
    return module, prepare(module, X, "step", method, bits, bits)


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_replayed_and_loaded_it_is_the_same_to_the_bit(method: str) -> None:
    module, edit = made(4, method)
    other = Spelled()
    replay(other, edit)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.eval()(X), module(X))


def test_eight_bits_are_close_and_two_are_not() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = settled(Spelled())(X)
        error = {b: float((made(b)[0](X) - wanted).norm() / wanted.norm()) for b in (8, 2)}
    assert error[8] < 0.03
    assert error[2] > 3 * error[8]


def test_parameters_keep_their_names() -> None:
    module, _ = made()
    own = {n for n in module.state_dict() if not n.startswith("fake_quantizers.")}
    assert own == set(Spelled().state_dict())


def test_gradients_reach_every_parameter() -> None:
    module, _ = made()
    module.train()(X).square().sum().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []


def test_levels_below_zero_only_where_values_are() -> None:
    _, edit = made()
    span = {n: (q["low"], q["high"]) for n, q in edit["quantizers"].items()}
    assert span["relu6"] == (0, 255)
    low, high = span["input"]
    assert high - low == 255
    assert -160 < low < -100


def test_the_float_network_comes_back() -> None:
    module, edit = made(4)
    wanted = rounded(module, edit)
    network = plain(copy.deepcopy(wanted))
    assert type(network) is Spelled
    assert not has_quantizers(network)
    assert set(network.state_dict()) == set(Spelled().state_dict())
    assert torch.equal(network(X), wanted(X))
    assert has_quantizers(module)


def test_rounded_weights_lie_on_the_grid_and_do_not_move_again() -> None:
    module, edit = made(4)
    once = rounded(module, edit)
    for name, q in edit["quantizers"].items():
        if "parameter" in q:
            weight, quantizer = once.get_parameter(q["parameter"]), of(once)[name]
            assert torch.equal(quantizer(weight), weight)
            assert len(weight[0].unique()) <= 2 * q["high"] + 1


def test_code_that_has_changed_is_named() -> None:
    _, edit = made()

    class Changed(Spelled):
        def forward(self, x):
            return super().forward(torch.relu(x))

    module = Changed()
    replay(module, edit)
    with pytest.raises(ModelError, match=r"call 0 of its forward is relu, was conv2d"):
        module(X)


def test_a_second_edit_is_refused() -> None:
    module, edit = made()
    with pytest.raises(ModelError, match="two edits with quantizers"):
        replay(module, edit)


def test_a_damaged_edit_is_named() -> None:
    _, edit = made()
    del edit["quantizers"]["input"]["high"]
    with pytest.raises(ModelError, match="'step' lacks 'high'"):
        replay(Spelled(), edit)


def test_activations_that_are_no_numbers_are_named() -> None:
    module = settled(Spelled())
    module.b.weight.data[0] = float("nan")
    with pytest.raises(StageError, match=r"step: relu: is NaN or infinite"):
        prepare(module, X, "step", "lsq", 8, 8)


def test_the_history_tells_the_bits() -> None:
    _, edit = made(4)
    assert describe(edit) == (
        "step: learned ranges (lsq): weights of 4/8 bits, activations of 4/8 bits"
    )


def test_a_network_that_is_one_sequence_runs_with_quantizers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = module.eval()(x)
    prepare(module, x, "step", "lsq", 8, 8)
    assert torch.allclose(module.eval()(x), wanted, atol=0.1)
