"""binarize: the layers it takes, what it saves, and that a killed run ends in the same bytes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.errors import ModelError, RecipeError, UnsupportedError  # noqa: E402
from edgecv.methods.binary.modules import OneBit, RPReLU  # noqa: E402
from edgecv.models import history, zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.binarize import Binarize  # noqa: E402
from edgecv.stages.train import Train  # noqa: E402
from tests import networks as nets  # noqa: E402

ROOT = Path(__file__).parents[2]
X = torch.randn(4, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
QUICK = {"epochs": 4, "batch_size": 8, "flip": False, "lr": 0.01}
ARGS = {"width": 8, "classes": nets.CLASSES}
NO_PLACE = {"shared"}
INNER = ["stage1.0.conv1", "stage1.0.conv2", "stage2.0.conv1", "stage2.0.conv2",
         "stage3.0.conv1", "stage3.0.conv2"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    module = nets.seeded(lambda: zoo.build("resnet8", **ARGS))
    Train(epochs=6, lr=0.01, batch_size=8, flip=False).run(
        (Model("zoo:resnet8", ARGS), module), nets.context(out)
    )
    return out


def binarize(source: Path, out: Path, context: dict | None = None, **options) -> dict:
    stage = Binarize(**{**QUICK, **options})
    stage.run(Model.load(source), nets.context(out, where="b", **(context or {})))
    return Model.read(out).facts["b"]


@pytest.mark.parametrize("form", ["react", "bireal", "xnor"])
@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_it_learns(trained: Path, tmp_path: Path, form: str, weights: str) -> None:
    facts = binarize(trained, tmp_path, form=form, weights=weights, epochs=20)
    assert facts["top1"] >= 0.7
    model, module = Model.load(tmp_path)
    made = {n: m for n, m in module.named_modules() if isinstance(m, OneBit)}
    assert list(made) == INNER
    assert all(m.norm is not None and m.weights == weights for m in made.values())
    assert {m.around for m in made.values()} == {form != "xnor"}
    assert any(isinstance(m, RPReLU) for m in module.modules()) == (form == "react")
    assert f"b: {form}, {weights} weights, one-bit inputs: stage1.0.conv1" in "\n".join(
        history.of(model)
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_another_process_computes_the_same_bits(trained: Path, tmp_path: Path) -> None:
    binarize(trained, tmp_path)
    _, module = Model.load(tmp_path)
    save_file({"x": X}, tmp_path / "x.safetensors")
    code = (
        "import sys, torch; from pathlib import Path; from edgecv.models.model import Model\n"
        "from safetensors.torch import load_file, save_file\n"
        "torch.set_num_threads(1); out = Path(sys.argv[1]); _, net = Model.load(out)\n"
        "x = load_file(out / 'x.safetensors')['x']\n"
        "save_file({'y': net(x).detach().contiguous()}, out / 'y.safetensors')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    torch.set_num_threads(1)
    assert torch.equal(load_file(tmp_path / "y.safetensors")["y"], module(X))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("estimator", ["polynomial", "annealed"])
def test_a_killed_run_ends_in_the_same_bytes(trained: Path, tmp_path: Path, estimator: str) -> None:
    facts = binarize(trained, tmp_path / "whole", estimator=estimator)

    def die(done: int, *_: object) -> None:
        if done == 12:  # 5 steps an epoch: in the third, the first with one-bit weights
            raise KilledError

    with pytest.raises(KilledError):
        binarize(trained, tmp_path / "killed", {"progress": die}, estimator=estimator)
    assert binarize(trained, tmp_path / "killed", estimator=estimator) == facts
    for name in ("model.json", "weights.safetensors"):
        one, two = ((tmp_path / n / name).read_bytes() for n in ("whole", "killed"))
        assert one == two, name


def test_the_first_step_leaves_weights_real(trained: Path, tmp_path: Path) -> None:
    seen: list[tuple[bool, float]] = []

    def look(done: int, *_: object) -> None:
        if done % 5 == 1:
            seen.append((layer().one_bit, layer().sharpness))

    model, module = Model.load(trained)
    stage = Binarize(**QUICK, estimator="annealed")

    def layer() -> OneBit:
        return next(m for m in module.modules() if isinstance(m, OneBit))

    stage.run((model, module), nets.context(tmp_path, where="b", progress=look))
    assert [bit for bit, _ in seen] == [False, False, True, True]
    assert [sharp for _, sharp in seen] == pytest.approx([0.1, 10, 0.1, 10])
    assert layer().one_bit


def test_layers_are_taken_by_name(trained: Path, tmp_path: Path, caplog) -> None:
    binarize(trained, tmp_path, layers=("stage3", "stage2.0.*2", "stem"))
    _, module = Model.load(tmp_path)
    made = [n for n, m in module.named_modules() if isinstance(m, OneBit)]
    assert made == ["stage2.0.conv2", "stage3.0.conv1", "stage3.0.conv2"]
    assert "stem.0 adds 27 products" in caplog.text
    assert "stage3.0.shortcut.0 adds 16" in caplog.text
    with pytest.raises(RecipeError, match="did you mean 'stage3'"):
        binarize(trained, tmp_path / "x", layers=("stagge3",))


def test_one_name_alone_is_no_list() -> None:
    with pytest.raises(ValueError, match=r"write auto, or a list: \[stem\]"):
        Binarize(layers="stem")


def test_real_inputs_keep_their_floats(trained: Path, tmp_path: Path) -> None:
    binarize(trained, tmp_path, activations="real", weights="ternary")
    _, module = Model.load(tmp_path)
    made = next(m for m in module.modules() if isinstance(m, OneBit))
    assert made.shift is None
    assert torch.equal(made.signed(X), X)


def test_trained_ternary_weights_learn(trained: Path, tmp_path: Path) -> None:
    facts = binarize(trained, tmp_path, activations="real", weights="ttq", epochs=20)
    assert facts["top1"] >= 0.7
    _, module = Model.load(tmp_path)
    made = next(m for m in module.modules() if isinstance(m, OneBit))
    sizes = made.sizes.tolist()
    assert sizes[0] != sizes[1]
    assert sorted(set(made.quantized()[0].flatten().tolist())) == [-sizes[1], 0.0, sizes[0]]
    with pytest.raises(ValueError, match="ttq needs activations: real"):
        Binarize(weights="ttq")


def test_layers_by_sensitivity(trained: Path, tmp_path: Path) -> None:
    facts = binarize(trained, tmp_path, layers="auto", share=0.5)
    costs = facts["sensitivity"]
    assert list(costs) == INNER
    _, module = Model.load(tmp_path)
    made = [n for n, m in module.named_modules() if isinstance(m, OneBit)]
    halved = nets.SIZE // 2
    sides = {"stage1": nets.SIZE, "stage2": halved, "stage3": halved // 2}
    net = zoo.build("resnet8", **ARGS)
    macs = {n: net.get_submodule(n).weight.numel() * sides[n.partition(".")[0]] ** 2 for n in INNER}
    order = sorted(INNER, key=lambda n: costs[n] / macs[n])
    assert set(made) == set(order[: len(made)])
    share = [sum(macs[n] for n in order[:k]) / sum(macs[n] for n in INNER)
             for k in (len(made) - 1, len(made))]  # fmt: skip
    assert share[0] < 0.5 <= share[1]
    with pytest.raises(ValueError, match="share is for layers: auto"):
        Binarize(share=0.5)


@pytest.mark.parametrize("name", sorted(nets.PRUNABLE))
def test_any_network_keeps_its_shapes(name: str, tmp_path: Path) -> None:
    module = nets.seeded(nets.PRUNABLE[name])
    stage = Binarize(epochs=1, batch_size=20)
    run = functools.partial(stage.run, (Model("none:here"), module))
    if name in NO_PLACE:
        with pytest.raises(UnsupportedError, match="no layer can have one bit"):
            run(nets.context(tmp_path, where="b"))
        return
    run(nets.context(tmp_path, where="b"))
    module.eval()
    assert module(X).shape == (4, nets.CLASSES)
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers, "the first and the last stay"


class ByHand(nn.Module):
    """A layer whose weight alone is used."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, nets.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.conv2d(self.a(x).relu(), self.b.weight)
        return self.head(y.mean((2, 3)))


def test_a_layer_that_is_not_called_itself_stays_float(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="b is not called itself"):
        Binarize(epochs=1, layers=("b",)).run(
            (Model("none:here"), nets.seeded(ByHand)), nets.context(tmp_path, where="b")
        )


def test_an_edit_that_does_not_fit_is_an_error(trained: Path, tmp_path: Path) -> None:
    from edgecv.models.edits import replay

    binarize(trained, tmp_path, epochs=1)
    (edit,) = Model.read(tmp_path).edits
    net = zoo.build("resnet8", **ARGS)
    for change, said in (
        ({"layers": {"stem.1": {"norm": None, "act": None}}}, "names 'stem.1'"),
        ({"layers": {"nowhere": {"norm": None, "act": None}}}, "not there"),
        ({"form": "deep"}, "is damaged"),
        ({"layers": {"stem.0": {}}}, "is damaged"),
    ):
        with pytest.raises(ModelError, match=said):
            replay(net, {**edit, **change})
