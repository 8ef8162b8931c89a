"""Costly activations are found, counted and replaced; what a network answers is told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from edgecv.errors import RecipeError, UnsupportedError  # noqa: E402
from edgecv.graphs.onnx.epilogues import epilogues  # noqa: E402
from edgecv.methods.distillation.unlabelled import Plan, blocks, distilled  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.restructuring.activations import (  # noqa: E402
    Answers,
    chosen,
    places,
    quantities,
    replaced,
)
from edgecv.methods.restructuring.harms import harms  # noqa: E402
from edgecv.methods.restructuring.matching import matches  # noqa: E402
from edgecv.methods.restructuring.refitting import refitted  # noqa: E402

SIDE = 64


class Detector(nn.Module):
    """Two scales, a sum and a join; boxes beside probabilities, side by side in one output."""

    def __init__(self, act: type[nn.Module] = nn.SiLU, fixed: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), act())
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8), act(), nn.Conv2d(8, 8, 1), act()
        )
        self.down = nn.Sequential(nn.Conv2d(16, 12, 3, 2, 1), act())
        self.box, self.score = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 2, 1)
        self.fixed = fixed

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.down(torch.cat([x + self.deep(x), x], 1))
        found = torch.cat([20 * self.box(x), torch.sigmoid(self.score(x))], 1)
        return found.reshape(1, 6, (SIDE // 4) ** 2 if self.fixed else -1).transpose(1, 2)


class Classifier(nn.Module):
    """A dense layer of a fixed size: no other size of image goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 4, 1), nn.GELU(), nn.Flatten(),
            nn.Linear(8 * 16, 16), nn.Hardswish(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def exported(module: nn.Module, folder: Path) -> onnx.ModelProto:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(
            parameter, 0, 0.5 if parameter.ndim < 2 else 1.5 / parameter[0].numel() ** 0.5
        )
    graph = export_onnx(module.eval(), torch.zeros(1, 3, SIDE, SIDE), folder)
    return onnx.load_model(str(graph.path))


def images(count: int = 24, seed: int = 0) -> np.ndarray:
    """Smooth patches (N, 3, SIDE, SIDE) float32."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, SIDE // 8, SIDE // 8))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported(Detector(), tmp_path_factory.mktemp("detector"))


@pytest.mark.parametrize("into", ["hardswish", "relu6", "relu"])
def test_no_such_activation_is_left_and_every_name_stays(detector, into: str) -> None:
    found = places(detector, into)
    assert [place.kind for place in found] == ["silu"] * 4
    made = replaced(detector, [place.tensor for place in found], into)
    onnx.checker.check_model(made, full_check=True)
    assert not places(made, into)
    assert {"hardswish"} >= {one.kind for one in epilogues(made)}
    held = {t.name for t in detector.graph.initializer}
    assert held - {t.name for t in made.graph.initializer} == set()
    tensors = {name for node in made.graph.node for name in node.output}
    assert {place.tensor for place in found} <= tensors
    assert all(place.elements == 8 * 32 * 32 for place in found[:3])
    assert found[3].elements == 12 * 16 * 16


def test_the_file_that_was_given_is_not_changed(detector) -> None:
    before = detector.SerializeToString(deterministic=True)
    made = replaced(detector, [place.tensor for place in places(detector, "relu")], "relu")
    refitted(detector, made, images(4))
    assert detector.SerializeToString(deterministic=True) == before


def test_hardswish_is_not_replaced_by_itself(tmp_path: Path) -> None:
    model = exported(Detector(nn.Hardswish), tmp_path)
    assert not places(model, "hardswish")
    assert len(places(model, "relu6")) == 4
    with pytest.raises(UnsupportedError, match="no activation that this would make cheaper"):
        chosen([], (), 1.0, {}, "step")


def test_layers_are_named_and_a_wrong_name_is_told(detector) -> None:
    found = places(detector, "relu")
    assert chosen(found, ("stem.*",), 1.0, {}, "step") == found[:1]
    assert chosen(found, (found[2].tensor,), 1.0, {}, "step") == found[2:3]
    with pytest.raises(RecipeError, match="no layer matches 'stme'"):
        chosen(found, ("stme",), 1.0, {}, "step")


def test_a_share_takes_what_harms_least_for_each_number(detector) -> None:
    found = places(detector, "relu")
    harm = harms(detector, found, "relu", matches(detector, found, "relu", images()), images(2))
    assert all(value > 0 for value in harm.values())
    taken = chosen(found, (), 0.7, harm, "step")
    total = sum(place.elements for place in found)
    assert 0 < sum(place.elements for place in taken) <= 0.7 * total
    left = [place for place in found if place not in taken]
    room = 0.7 * total - sum(place.elements for place in taken)
    for place in left:  # nothing that fits was passed over for what harms more
        worse = [
            p for p in taken if harm[p.tensor] / p.elements > harm[place.tensor] / place.elements
        ]
        assert place.elements > room or not worse


def test_boxes_and_probabilities_are_quantities_of_their_own(detector) -> None:
    ends = quantities(detector)
    makers = {node.output[0]: node.op_type for node in detector.graph.node}
    assert [makers[name] for name in ends] == ["Conv", "Sigmoid"] or [
        makers[name] for name in ends
    ] == ["Sigmoid", "Conv"]
    inner = [makers[name] for name in blocks(detector, ends)]
    assert {"Add", "Concat"} <= {*inner}


def error(model: onnx.ModelProto, other: onnx.ModelProto, seen: np.ndarray) -> float:
    return Answers(model, seen).error(other)


def raw(model: onnx.ModelProto, into: str) -> onnx.ModelProto:
    return replaced(model, [place.tensor for place in places(model, into)], into)


@pytest.mark.parametrize("into", ["hardswish", "relu"])
def test_fitted_layers_are_nearer(detector, into: str) -> None:
    others = images(8, 1)
    made = raw(detector, into)
    fitted = refitted(detector, made, images())
    assert error(detector, fitted, others) < 0.6 * error(detector, made, others)


def test_what_needs_no_fitting_stays_as_it_is(detector) -> None:
    fitted = refitted(detector, detector, images())
    for before, after in zip(detector.graph.initializer, fitted.graph.initializer, strict=True):
        a, b = (onnx.numpy_helper.to_array(t) for t in (before, after))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_distilled_is_nearer_and_the_same_for_the_same_seed(detector) -> None:
    made = raw(detector, "relu")
    found = [distilled(detector, made, images(), images(4, 1), Plan(6), "step") for _ in range(2)]
    (one, told), (other, again) = found
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert told == again
    assert told.after < 0.8 * told.before
    assert error(detector, one, images(4, 1)) < error(detector, made, images(4, 1))
    assert [n.output[0] for n in one.graph.node] == [n.output[0] for n in made.graph.node]


def test_another_seed_takes_another_way(detector) -> None:
    made = raw(detector, "relu")
    one, other = (
        distilled(detector, made, images(), images(4, 1), Plan(1, seed=s), "step")[1]
        for s in (0, 1)
    )
    assert one.before == other.before
    assert one.after != other.after


@pytest.mark.parametrize("rate", [1e-3, 3.0])
def test_distillation_never_ends_further_off_than_it_began(detector, rate: float) -> None:
    made = raw(detector, "hardswish")
    after, told = distilled(detector, made, images(), images(4, 1), Plan(2, rate), "step")
    assert told.after <= told.before
    if rate > 1:
        assert told.after == told.before
        for a, b in zip(made.graph.initializer, after.graph.initializer, strict=True):
            x, y = (onnx.numpy_helper.to_array(t) for t in (a, b))
            np.testing.assert_allclose(x, y, rtol=1e-6)


def test_a_network_of_one_size_learns_on_whole_images(tmp_path: Path) -> None:
    model = exported(Classifier(), tmp_path)
    found = places(model, "relu")
    assert [place.kind for place in found] == ["silu", "gelu", "hardswish"]
    fitted = refitted(model, raw(model, "relu"), images())
    made, told = distilled(model, fitted, images(), images(4, 1), Plan(3), "step")
    assert not places(made, "relu")
    assert told.after <= told.before < error(model, raw(model, "relu"), images(4, 1))
