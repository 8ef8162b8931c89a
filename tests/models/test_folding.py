"""Weights that are computed become the weights that they are, bit for bit, wherever a network
comes in."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402
from torch.nn.utils import spectral_norm as old_spectral_norm  # noqa: E402
from torch.nn.utils import weight_norm as old_weight_norm  # noqa: E402

from edgecv.errors import ModelError  # noqa: E402
from edgecv.models.folding import folded  # noqa: E402
from edgecv.models.model import Model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
PLAIN = {f"{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2), nn.Flatten(),
        nn.Linear(4 * 12 * 12, 5),
    )  # fmt: skip


class Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def masked(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.random_unstructured(layer, "weight", 0.2)
    prune.l1_unstructured(layer, "bias", 1)


def twice(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)
    parametrizations.spectral_norm(layer)


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": old_weight_norm,
    "old spectral_norm": old_spectral_norm,
    "masks": masked,
    "two of them": twice,
    "of one's own": lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
}


def wrapped(way: str) -> nn.Sequential:
    net = plain()
    for i in (0, 2, 4):
        WAYS[way](net[i])
    return net


@pytest.mark.parametrize("way", WAYS)
def test_folded_weights_answer_bit_for_bit(way: str) -> None:
    net = wrapped(way).eval()
    with torch.no_grad():
        before = net(X)
        found = folded(net, "net")
        assert torch.equal(found(X), before)
    assert set(found.state_dict()) == PLAIN == {name for name, _ in found.named_parameters()}
    copy.deepcopy(found)
    found.train()(X).sum().backward()
    assert all(p.grad is not None for p in found.parameters())


def test_what_was_frozen_stays_frozen() -> None:
    net = plain()
    for p in net[0].parameters():
        p.requires_grad_(False)
    parametrizations.weight_norm(net[0])
    old_weight_norm(net[2])
    found = folded(net, "net")
    assert [p.requires_grad for p in found[0].parameters()] == [False, False]
    assert all(p.requires_grad for p in found[2].parameters())


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, old_weight_norm])
def test_weights_inside_a_recurrent_layer_fold_too(wrap: Callable[..., Any]) -> None:
    net = nn.LSTM(3, 4, batch_first=True).eval()
    wrap(net, "weight_hh_l0")
    x = X.flatten(2).transpose(1, 2)
    with torch.no_grad():
        before = net(x)[0]
        assert torch.equal(folded(net, "net")(x)[0], before)
        net.load_state_dict({k: 2 * v for k, v in net.state_dict().items()})
        assert not torch.equal(net(x)[0], before), "the layer reads the weights that were loaded"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_are_told(
    kind: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    net = wrapped("old weight_norm").to(kind)
    with caplog.at_level(logging.WARNING):
        found = folded(net, "nets:mine")
    assert str(kind).removeprefix("torch.") in caplog.text
    assert {v.dtype for v in found.state_dict().values()} == {torch.float32}
    assert found(X).dtype == torch.float32


def test_wrappers_come_off() -> None:
    assert set(folded(torch.nn.DataParallel(plain()), "net").state_dict()) == PLAIN
    compiled = torch.compile(plain())
    assert set(folded(compiled, "net").state_dict()) == PLAIN


class Hooked(nn.Module):
    """A hook that is nobody's makes the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        weight = self.fc.weight
        del self.fc._parameters["weight"]
        self.fc.v = nn.Parameter(weight.detach())
        self.fc.register_forward_pre_hook(lambda m, _: setattr(m, "weight", 2 * m.v))
        self.fc.weight = 2 * self.fc.v.detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Hooked, "layer 'fc'.* a hook computes"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "layer '0'.* no weight yet"),
        (lambda: nn.Sequential(nn.Linear(3, 4, device="meta")), "layer '0'.* no values"),
        (lambda: nn.Sequential(nn.Linear(3, 4, dtype=torch.complex64)), "complex"),
    ],
)
def test_what_cannot_be_had_is_refused_by_the_layers_name(
    make: Callable[[], nn.Module], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        folded(make(), "nets:mine")


def test_models_are_built_folded_and_older_files_still_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folding_mine.py").write_text(
        "from tests.models.test_folding import wrapped\ndef make(way): return wrapped(way)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")  # its builder is no zoo's
    for way in WAYS:
        model = Model("folding_mine:make", {"way": way})
        module = model.build()
        assert set(module.state_dict()) == PLAIN
        raw = wrapped(way).eval()
        with torch.no_grad():
            for p in raw.parameters():
                p.mul_(1.5)
            wanted = raw(X)
        model.save(tmp_path / way, module)
        state = {k: v.detach().clone().contiguous() for k, v in raw.state_dict().items()}
        save_file(state, tmp_path / way / "weights.safetensors")  # as it was written before
        with torch.no_grad():
            assert torch.equal(Model.load(tmp_path / way)[1](X), wanted), way
    sys.modules.pop("folding_mine", None)


class Forgetful(nn.Sequential):
    def train(self, mode: bool = True) -> Any:  # freezes batch norms, as many networks do
        super().train(mode)
        self[1].eval()


class Deaf(nn.Sequential):
    def eval(self) -> Any:
        return self


class Batchwise(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> Any:  # noqa: ARG002
        return super().train(True)


@pytest.mark.parametrize(("kind", "says"), [
    (Forgetful, r"its train\(\) returns NoneType, not the network"),
    (Deaf, r"layer '0' \(Conv2d\): stays in train mode"),
])  # fmt: skip
def test_a_network_that_cannot_be_put_into_eval_mode_is_refused(kind: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        folded(kind(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "mynet:make")


def test_a_layer_that_keeps_to_its_batch_by_its_own_word_stays() -> None:
    module = folded(nn.Sequential(nn.Conv2d(3, 4, 3), Batchwise(4)), "mynet:make")
    assert module[1].training
    assert not module[0].training
