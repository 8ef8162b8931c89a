"""Which layers `layers: auto` leaves in float: those whose one bit costs most for their MACs."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from edgecv.methods.binary.modules import OneBit  # noqa: E402
from edgecv.methods.binary.replacing import binarize  # noqa: E402
from edgecv.methods.binary.sensitivity import Cost, damage, least  # noqa: E402
from edgecv.methods.pruning.tuning import recalibrate  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.macs import macs  # noqa: E402
from tests import networks as nets  # noqa: E402

NAMES = [f"stage{s}.0.conv{c}" for s in (1, 2, 3) for c in (1, 2)]
EDIT = {
    "op": "binarize", "step": "b", "form": "xnor", "weights": "binary", "real_inputs": False,
    "estimator": "clip",
    "layers": {n: {"norm": n.replace("conv", "bn"), "act": None} for n in NAMES},
}  # fmt: skip


def test_the_cheapest_for_their_macs_come_first() -> None:
    costs = {"a": Cost(0.4, 100), "b": Cost(0.1, 50), "c": Cost(0.1, 10), "d": Cost(0.0, 40)}
    assert least(costs, 0.1) == {"d"}
    assert least(costs, 0.4) == {"d", "b"}
    assert least(costs, 0.6) == {"d", "b", "a"}
    assert least(costs, 1.0) == set(costs)


def test_what_a_layer_costs_is_its_own(tmp_path) -> None:
    context = nets.context(tmp_path)
    net = nets.seeded(lambda: zoo.build("resnet8", width=8, classes=nets.CLASSES)).eval()
    before = copy.deepcopy(net.state_dict())
    found = damage(net, EDIT, context)
    assert list(found) == NAMES
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(c.divergence > 0 for c in found.values())
    assert sum(c.macs for c in found.values()) < macs(net, 3, (nets.SIZE, nets.SIZE))
    # a layer whose output nothing reads costs nothing
    with torch.no_grad():
        net.get_submodule("stage2.0.bn2").weight.zero_()
    assert damage(net, EDIT, context)["stage2.0.conv2"].divergence == pytest.approx(0, abs=1e-6)


def test_the_norm_that_became_a_part_of_a_layer_is_measured_anew(tmp_path) -> None:
    net = nets.seeded(lambda: zoo.build("resnet8", width=8, classes=nets.CLASSES)).eval()
    binarize(net, EDIT)
    recalibrate(net, nets.context(tmp_path), 100)
    for part in (m for m in net.modules() if isinstance(m, OneBit)):
        assert part.norm is not None
        assert int(part.norm.num_batches_tracked) > 0
        assert not torch.equal(part.norm.running_mean, torch.zeros_like(part.norm.running_mean))


class Aliased(torch.nn.Module):
    """Layers that have two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=2)
        self.parts = torch.nn.Sequential(self.one, torch.nn.ReLU(), self.two, torch.nn.Flatten())
        self.head = torch.nn.LazyLinear(nets.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.parts(x))


def test_layers_of_two_names_have_their_macs(tmp_path) -> None:
    net = nets.seeded(Aliased)
    net(torch.zeros(1, 3, nets.SIZE, nets.SIZE))
    edit = {**EDIT, "layers": {"two": {"norm": None, "act": None}}}
    side = nets.SIZE - 4
    assert damage(net, edit, nets.context(tmp_path))["two"].macs == 8 * 4 * 9 * side**2
