"""Convolutions become blocks that do nearly the same, in the file as in memory."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.backends.onnxruntime.run import Session  # noqa: E402
from edgecv.errors import RecipeError, StageError, UnsupportedError  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.edits import describe  # noqa: E402
from edgecv.models.macs import macs, parameters  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from edgecv.stages.restructure import Restructure  # noqa: E402
from tests import networks as nets  # noqa: E402
from tests.methods.restructuring.test_blocks import KINDS  # noqa: E402

ARGS = {"width": 8, "classes": nets.CLASSES}
SHAPE = (3, (nets.SIZE, nets.SIZE))


def restructure(module: nn.Module, out: Path, model: Model | None = None, **options) -> Model:
    """Restructure in place, without fine-tuning and with a short fit unless asked otherwise."""
    stage = Restructure(**{"finetune_epochs": 0, "fit_steps": 10, "samples": 32, **options})
    stage.run((model or Model("zoo:resnet8", ARGS), module), nets.context(out, where="compact"))
    return Model.read(out)


def resnet() -> nn.Module:
    """With statistics that batch norm has learned."""
    module = nets.seeded(lambda: zoo.build("resnet8", **ARGS))
    with torch.no_grad():
        module(torch.randn(32, 3, nets.SIZE, nets.SIZE))
    return module.eval()


@pytest.mark.parametrize("into", KINDS)
def test_what_is_replaced_runs_replays_and_exports(into: str, tmp_path: Path) -> None:
    module = resnet()
    before = macs(module, *SHAPE), parameters(module)
    model = restructure(module, tmp_path / "model", into=into)
    assert (macs(module, *SHAPE), parameters(module)) < before
    facts = model.facts["compact"]
    assert (facts["macs_before"], facts["macs"]) == (before[0], macs(module, *SHAPE))
    assert all(0 <= b["error"] <= b["start"] < 1 for b in facts["blocks"].values())
    x = torch.randn(3, 3, nets.SIZE, nets.SIZE)
    _, loaded = Model.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))
        expected = module(x).numpy()
    graph = export_onnx(loaded, x[:1], tmp_path / "onnx")
    session = Session({"model.onnx": graph.path.read_bytes()})
    found = np.concatenate([session.run({"input": one[None]})["logits"] for one in x.numpy()])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_new_process_loads_the_same_bits(tmp_path: Path) -> None:
    module = resnet()
    restructure(module, tmp_path, into="igcv2")
    x = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    code = (
        "import sys, torch; from pathlib import Path; from edgecv.models.model import Model\n"
        "torch.set_num_threads(1); x = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)\n"
        "with torch.no_grad(): y = Model.load(Path(sys.argv[1]))[1](x)\n"
        "print(y.numpy().tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    with torch.no_grad():
        assert done.stdout.strip() == module(x).numpy().tobytes().hex()


def test_by_default_all_that_fit_but_the_first(tmp_path: Path) -> None:
    model = restructure(resnet(), tmp_path)
    (edit,) = model.edits
    assert list(edit["modules"]) == [f"stage{s}.0.conv{c}" for s in (1, 2, 3) for c in (1, 2)]
    assert describe(edit) == (
        "compact: separable in place of 6 convolutions: " + ", ".join(edit["modules"])
    )


def test_layers_may_be_named_alone_or_by_what_holds_them(tmp_path: Path) -> None:
    model = restructure(resnet(), tmp_path, layers=("stage3", "stage1.0.conv2"))
    assert list(model.edits[0]["modules"]) == ["stage1.0.conv2", "stage3.0.conv1", "stage3.0.conv2"]


def test_the_first_convolution_can_be_asked_for(tmp_path: Path) -> None:
    model = restructure(resnet(), tmp_path, layers=("stem.0",))
    assert list(model.edits[0]["modules"]) == ["stem.0"]


def test_only_the_named_layers_change(tmp_path: Path) -> None:
    module = resnet()
    before = copy.deepcopy(module)
    restructure(module, tmp_path, layers=("stage3",))
    kept = {k: v for k, v in before.state_dict().items() if not k.startswith("stage3.0.conv")}
    assert all(torch.equal(module.state_dict()[k], v) for k, v in kept.items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": ("stage3.0.conv3",)}, "matches 'stage3.0.conv3' (did you mean 'stage3.0.conv"),
        ({"layers": ("",)}, "no layer matches ''"),
        ({"layers": ("head",)}, "layer 'head' is a Linear, not a convolution"),
        ({"layers": ("stage2.0.shortcut.0",)}, "'stage2.0.shortcut.0' is 1x1 already"),
        ({"layers": ("stage1.0.conv1",), "into": "grouped", "groups": 3}, "3 groups do not divide"),
    ],
)
def test_a_layer_that_cannot_be_replaced_is_refused(
    options: dict, says: str, tmp_path: Path
) -> None:
    with pytest.raises((StageError, RecipeError)) as caught:
        restructure(resnet(), tmp_path, **options)
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), {}, "become separable: there is none"),
        (nets.chain(nets.conv(16, 16, groups=4)), {"layers": ("1",)}, "'1' is in 4 groups already"),
        (nets.chain(nn.ReLU()), {"into": "igcv1", "groups": 5}, "2 has 16 and 16 channels, which"),
        (nn.Sequential(nets.conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()), {}, "is the first"),
    ],
)
def test_where_nothing_fits_the_reasons_are_told(
    module: nn.Module, options: dict, says: str, tmp_path: Path
) -> None:
    with pytest.raises((UnsupportedError, StageError)) as caught:
        restructure(module, tmp_path, Model("none:here"), **options)
    assert says in str(caught.value)


def test_a_layer_that_does_not_run_is_refused(tmp_path: Path) -> None:
    module = nets.Concat()
    module.spare = nets.conv(16, 16)
    with pytest.raises(StageError, match="'spare' does not run"):
        restructure(module, tmp_path, Model("none:here"), layers=("spare",))


def test_more_fitting_is_nearer_and_the_network_with_it(tmp_path: Path) -> None:
    """The blocks' outputs come nearer with more steps; so do the logits."""
    x = torch.from_numpy(nets.context(tmp_path / "x").preprocess.normalise(nets.images(64).pixels))
    dense = resnet()
    errors, distances = [], []
    for steps in (0, 120):
        module = resnet()
        model = restructure(module, tmp_path / str(steps), into="igcv3", fit_steps=steps)
        errors.append([b["error"] for b in model.facts["compact"]["blocks"].values()])
        with torch.no_grad():
            distances.append(float((module(x) - dense(x)).square().mean()))
    assert all(b < a for a, b in zip(*errors, strict=True))
    assert distances[1] < distances[0]


def test_fine_tuning_is_told_and_saved(tmp_path: Path) -> None:
    model = restructure(resnet(), tmp_path, finetune_epochs=1)
    facts = model.facts["compact"]
    assert facts["epochs"] == 1
    assert {"top1", "top1_before_finetuning", "loss", "replaced"} <= facts.keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


@pytest.mark.parametrize("into", ["separable", "bottleneck"])
def test_what_is_restructured_can_still_be_pruned(into: str, tmp_path: Path) -> None:
    module = nets.seeded(lambda: zoo.build("resnet8", width=16, classes=nets.CLASSES))
    model = restructure(
        module, tmp_path / "a", Model("zoo:resnet8", {**ARGS, "width": 16}), into=into
    )
    stage = Prune(method="l2", finetune_epochs=0, align=4)
    stage.run((model, module), nets.context(tmp_path / "b"))
    _, loaded = Model.load(tmp_path / "b")
    x = torch.randn(2, 3, nets.SIZE, nets.SIZE)
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))
