"""Quantizers sit where engines hold integers, with the bits that were asked for."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgecv.errors import UnsupportedError  # noqa: E402
from edgecv.methods.qat.insertion import choose  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from tests import networks as nets  # noqa: E402
from tests.methods.qat.nets import Spelled  # noqa: E402

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def placed(module: nn.Module, weight_bits: int = 4, activation_bits: int = 3, x=X) -> dict:
    return choose(module, x, "step", "lsq", weight_bits, activation_bits)["quantizers"]


def activations(module: nn.Module) -> dict[str, int]:
    return {n: q["bits"] for n, q in placed(module).items() if "parameter" not in q}


def test_a_residual_network() -> None:
    """A batch norm and a ReLU are one tensor with the layer or the sum before them."""
    found = activations(zoo.build("resnet8", width=8, classes=4))
    assert {n: b for n, b in found.items() if "stage" not in n} == {
        "input": 8, "stem_2_relu": 3, "adaptive_avg_pool2d": 8, "head_linear": 8,
    }  # fmt: skip
    assert {n: b for n, b in found.items() if "stage2" in n} == {
        "stage2_0_relu1_relu": 3,
        "stage2_0_bn2_batch_norm": 8,  # operands of a sum
        "stage2_0_shortcut_1_batch_norm": 8,
        "stage2_0_relu2_relu": 3,
    }


def test_first_and_last_weights_have_eight_bits() -> None:
    found = placed(zoo.build("resnet8", width=8, classes=4))
    bits = {q["parameter"]: q["bits"] for q in found.values() if "parameter" in q}
    assert bits.pop("stem.0.weight") == bits.pop("head.weight") == 8
    assert set(bits.values()) == {4}
    seven = placed(zoo.build("resnet8", width=8, classes=4), weight_bits=7)
    assert {q["bits"] for q in seven.values() if "parameter" in q} == {7}


def test_a_step_per_channel_but_one_for_a_dense_layer() -> None:
    found = placed(zoo.build("resnet8", width=8, classes=4))
    assert found["stem_0"]["channels"] == 8
    assert found["head"]["channels"] == 1


def test_a_relu6_limits_the_range() -> None:
    found = placed(zoo.build("mobilenet_v2_small", width=8, classes=4))
    assert {q["most"] for n, q in found.items() if n.endswith("hardtanh")} == {6.0}
    assert "most" not in found["blocks_0_project_1_batch_norm"]


def test_calls_are_found_however_they_are_spelled() -> None:
    module = Spelled()
    edit = choose(module, X, "step", "lsq", 4, 3)
    found = {n: q["bits"] for n, q in edit["quantizers"].items() if "parameter" not in q}
    assert found == {
        "input": 8,
        "relu6": 3,
        "relu": 8,  # read by a sum and a concatenation
        "norms_1_batch_norm": 8,
        "cat": 8,  # z, which only it reads, is on its grid
        "adaptive_avg_pool2d": 8,
        "head_linear": 8,
    }
    names = {c["name"]: c["output"] for c in edit["calls"] if "output" in c}
    assert names["avg_pool2d"] == "cat"  # an average keeps the grid of what it averages


def test_training_and_evaluation_make_the_same_calls() -> None:
    module = Spelled()
    one = choose(module.train(), X, "step", "lsq", 4, 3)
    assert one == choose(module.eval(), X, "step", "lsq", 4, 3)


def test_a_layer_that_is_used_twice_has_one_quantizer() -> None:
    edit = choose(nets.Shared(), X, "step", "lsq", 4, 3)
    assert [c["weight"] for c in edit["calls"] if "weight" in c] == ["a", "b", "b", "head"]


class Tail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return F.hardswish(self.a(x)).mean((2, 3))


def test_an_activation_that_is_not_a_clip_is_a_tensor_of_its_own() -> None:
    assert list(activations(Tail())) == ["input", "a_conv2d", "hardswish", "mean"]


@pytest.mark.parametrize("name", nets.PRUNABLE)
def test_every_layer_is_found(name: str) -> None:
    module = nets.seeded(nets.PRUNABLE[name])
    found = placed(module)
    layers = [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert {q["parameter"] for q in found.values() if "parameter" in q} == {
        f"{n}.weight" for n in layers
    }


def test_nothing_to_quantize_is_said() -> None:
    with pytest.raises(UnsupportedError, match="no conv2d and no linear"):
        placed(nn.Sequential(nn.ReLU(), nn.Flatten()))


def test_an_output_that_is_no_tensor_is_said() -> None:
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(UnsupportedError, match="returns a tuple"):
        placed(Two())


def test_what_a_detector_joins_at_its_end_has_no_grid() -> None:
    """Boxes and scores on one would be trained for what no engine does."""
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    edit = choose(zoo.build("tiny_detector", width=8, classes=3), x, "step", "lsq", 8, 8)
    named = {c["name"] for c in edit["calls"] if "output" in c}
    assert "cat" not in named
    assert "heads_2_classes_conv2d" in edit["quantizers"]
    assert "heads_2_box_conv2d" not in edit["quantizers"]
