"""A Model folder is code by name, edits and weights: it loads anywhere to the same bits."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from edgecv.errors import ModelError  # noqa: E402
from edgecv.models.model import Model, check_finite, check_outputs, resolve  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from tests import networks as nets  # noqa: E402

MINE = """
from torch import nn

def make(width=8, classes=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.PReLU(width), nn.Conv2d(width, width, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

def number(): return 3
def broken(): return nn.Conv2d(3, -1, 3)
"""
LOAD = """
import sys, torch
from pathlib import Path
from edgecv.models.model import Model
torch.manual_seed(99)
_, module = Model.load(Path(sys.argv[1]))
assert "torch_pruning" not in sys.modules, "replay needs no pruning library"
x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
torch.set_num_threads(1)
with torch.inference_mode():
    print(module(x).numpy().tobytes().hex())
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A user's module in the working folder, under a name of its own for every test."""
    name = f"mine_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")
    return f"{name}:make"


def outputs_elsewhere(folder: Path) -> str:
    """The outputs' bytes, from a new process in this working folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def outputs(module: nn.Module) -> str:
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    torch.set_num_threads(1)
    with torch.inference_mode():
        return module.eval()(x).numpy().tobytes().hex()


def saved(folder: Path, builder: str = "zoo:resnet8", **args) -> tuple[Model, nn.Module]:
    torch.manual_seed(0)
    model = Model(builder, {"classes": 4, **args})
    module = model.build()
    model.save(folder, module)
    return model, module


def test_a_new_process_gives_the_same_bits(tmp_path: Path) -> None:
    _, module = saved(tmp_path / "m")
    assert outputs_elsewhere(tmp_path / "m") == outputs(module)


def test_a_pruned_network_of_ones_own_too(tmp_path: Path, mine: str) -> None:
    model, module = saved(tmp_path / "m", mine, width=16)
    stage = Prune(method="l1", finetune_epochs=1, align=4)
    stage.run((model, module), nets.context(tmp_path / "p", where="small"))
    again, other = Model.load(tmp_path / "p")
    assert len(again.edits) == 1
    assert other[0].out_channels == 8
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert outputs_elsewhere(tmp_path / "p") == outputs(other)
    untouched, dense = Model.load(tmp_path / "m")
    assert (untouched.edits, dense[0].out_channels) == ((), 16), "the input still loads"


def test_everything_it_says_of_itself_survives(tmp_path: Path) -> None:
    model = Model(
        "zoo:resnet8",
        {"width": 8},
        input={"size": [16, 16], "mean": [127.0]},
        labels=("a", "b"),
        facts={"dense": {"top1": 0.5}},
    )
    model.save(tmp_path, model.build())
    assert Model.read(tmp_path) == model
    assert model.with_facts("x", {}) != model
    assert model.facts == {"dense": {"top1": 0.5}}


def test_a_folder_holds_json_and_safetensors_and_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved(tmp_path / name)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]
    for file in ("model.json", "weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_description_is_read_without_torch(tmp_path: Path) -> None:
    saved(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\nfrom pathlib import Path\n"
        "from edgecv.models.model import Model; print(Model.read(Path(sys.argv[1])).builder)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.check_output([sys.executable, "-c", code, tmp_path], env=environment)
    assert said.decode().strip() == "zoo:resnet8"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, bad: float) -> None:
    model = Model("zoo:resnet8")
    module = model.build()
    module.stage2[0].conv1.weight.data[0, 0, 0, 0] = bad
    with pytest.raises(ModelError, match=r"'stage2\.0\.conv1\.weight' holds NaN or Inf"):
        model.save(tmp_path / "m", module)
    assert not (tmp_path / "m").exists()
    with pytest.raises(ModelError, match="conv1"):
        check_finite(module, "here")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_cut_weights_are_a_model_error(tmp_path: Path, keep: int) -> None:
    saved(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="weights do not fit"):
        Model.load(tmp_path)


def test_missing_weights_are_a_model_error(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing"):
        Model.load(tmp_path)


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = load_file(tmp_path / "weights.safetensors")
    del weights["head.bias"]
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match=r"weights do not fit zoo:resnet8: .*head\.bias"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not a Model folder"),
        ("", "is not JSON"),
        ("[]", "schema None"),
        ("{}", "schema None"),
        ('{"schema": 2}', "schema 2, expected 1"),
        ('{"schema": 1}', "is damaged"),
        ('{"schema": 1, "builder": "zoo:resnet8", "args": {}, "edits": 3}', "is damaged"),
    ],
)
def test_a_damaged_description_is_a_model_error(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "model.json").write_text(text)
    for read in (Model.read, Model.load):
        with pytest.raises(ModelError, match=said):
            read(tmp_path)


def test_an_edit_from_a_newer_edgecv_says_so(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "edits": [{"op": "fold", "step": "x"}]}))
    with pytest.raises(ModelError, match=r"unknown edit 'fold' .*newer edgecv"):
        Model.load(tmp_path)


def test_code_that_changed_since_is_a_warning_when_it_still_fits(
    tmp_path: Path, mine: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path / "m", mine)
    Model.load(tmp_path / "m")
    assert not caplog.text
    data = json.loads((tmp_path / "m" / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**data, "source_digest": "0" * 16}))
    with caplog.at_level(logging.WARNING):
        Model.load(tmp_path / "m")
    assert f"the code of {mine} has changed" in caplog.text


def test_code_that_no_longer_fits_is_an_error(tmp_path: Path, mine: str) -> None:
    saved(tmp_path / "m", mine)
    file = tmp_path / f"{mine.partition(':')[0]}.py"
    file.write_text(MINE.replace("classes)", "classes), nn.PReLU(4)"))
    sys.modules.pop(mine.partition(":")[0])
    with pytest.raises(ModelError, match=r"Missing key.*was its code edited\?"):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("mak", "did you mean 'make'"),
        ("number", "returned a int, not a torch.nn.Module"),
        ("broken", r"raised \w+ at \w+\.py:\d+"),
    ],
)
def test_a_builder_that_is_none_is_named(mine: str, attribute: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Model(mine.replace("make", attribute)).build()


@pytest.mark.parametrize(
    ("builder", "args", "said"),
    [
        ("no_such_module:make", {}, r"is no_such_module\.py in the working folder"),
        ("nonsense", {}, "is not of the form"),
        (":make", {}, "is not of the form"),
        ("zoo:resnet9", {}, "did you mean resnet8"),
        ("zoo:resnet8", {"widht": 8}, "did you mean width"),
    ],
)
def test_a_builder_that_is_not_there_is_named(builder: str, args: dict, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Model(builder, args).build()


def test_a_wrong_argument_of_ones_own_builder(mine: str) -> None:
    with pytest.raises(ModelError, match=r"unexpected keyword argument 'widht'"):
        Model(mine, {"widht": 3}).build()


def test_a_module_that_does_not_import_keeps_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")
    (tmp_path / "half_written.py").write_text("def make(:\n")
    with pytest.raises(ModelError, match="SyntaxError"):
        resolve("half_written:make")


class Returns(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what(x)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda x: (x, x), "returns a tuple, not one tensor"),
        (lambda x: {"logits": x}, "returns a dict, not one tensor"),
        (lambda x: x, r"returns float32 \(1, 3, 8, 8\), expected float32 \(1, classes\)"),
        (lambda x: x.mean((2, 3)), "has 3 outputs and the data 4 classes"),
        (lambda x: x @ torch.zeros(5, 5), "fails on a 1x3x8x8 input"),
    ],
)
def test_outputs_that_are_no_logits_are_named(what, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_outputs(Returns(what), "mine:make", [torch.zeros(1, 3, 8, 8)], 4)


class Volumes(nn.Module):
    """Takes an image, and lays it into a volume itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv3d(3, 4, (1, 3, 3))

    def forward(self, x):
        return self.inner(x[:, :, None]).mean((2, 3, 4))


def test_layers_of_volumes_are_refused_before_training() -> None:
    image = [torch.zeros(1, 3, 8, 8)]
    with pytest.raises(ModelError, match=r"layer 'inner' \(Conv3d\) is of volumes"):
        check_outputs(Volumes(), "mine:make", image, 4)
    check_outputs(Volumes(), "mine:make", image, 4, trains=False)
    for layer in (nn.Conv3d(3, 4, 3), nn.Conv1d(3, 4, 3)):
        with pytest.raises(ModelError, match=r"images are \(N, C, H, W\), and that layer"):
            check_outputs(nn.Sequential(layer), "mine:make", image, 4, trains=False)


def test_checking_outputs_leaves_the_mode_alone() -> None:
    module = Returns(lambda x: x.mean((2, 3))).train()
    check_outputs(module, "mine:make", [torch.zeros(1, 3, 8, 8)], None)
    assert module.training


@pytest.mark.parametrize("what", [lambda x: (x.mean((2, 3)), x), lambda x: {"map": x, "none": None},
                                  lambda x: x.sum()])  # fmt: skip
def test_any_tensors_will_do_where_nothing_is_trained(what) -> None:
    check_outputs(Returns(what), "mine:make", [torch.zeros(1, 3, 8, 8)], None, trains=False)
    with pytest.raises(ModelError, match="only quantize and export it"):
        check_outputs(Returns(what), "mine:make", [torch.zeros(1, 3, 8, 8)], None)


def test_the_first_output_has_the_classes_of_the_data() -> None:
    several = Returns(lambda x: (x.mean((2, 3)), x))
    check_outputs(several, "mine:make", [torch.zeros(1, 3, 8, 8)], 3, trains=False)
    with pytest.raises(ModelError, match="has 3 outputs and the data 4 classes"):
        check_outputs(several, "mine:make", [torch.zeros(1, 3, 8, 8)], 4, trains=False)
