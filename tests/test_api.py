"""What `edgecv` promises to Python programs, each for real on tiny networks."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgecv
from edgecv import errors
from edgecv.installation import cure

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
nn = torch.nn

PROMISED = {
    "Answer", "Benchmark", "Bundle", "Diagnosis", "Parity", "Recipe", "Results", "Verdict",
    "__version__", "bench", "compress", "errors", "export", "finish", "gate", "open_bundle",
    "parity", "predict", "run", "why",
}  # fmt: skip
SIZE, MEAN, STD = 16, 0.5, 0.25
NAMES = ["ant", "bee", "cat"]
USER = Path(__file__).parent / "data" / "uses_all_of_the_api.py"


def network() -> nn.Module:
    """Three classes from 16x16 RGB; weights with some life in them."""
    torch.manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    return made.train()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """uint8 (48, 16, 16, 3): each class has a colour of its own and noise."""
    rng = np.random.default_rng(0)
    colours = 60 + 120 * np.eye(3)[np.arange(48) % 3]
    noise = rng.normal(0, 20, (48, SIZE, SIZE, 3))
    return np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def batch(pixels: np.ndarray) -> torch.Tensor:
    """The same as a training loop has them."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


@pytest.fixture(scope="module")
def photos(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures in a folder for each class."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("photos")
    for i, picture in enumerate(pixels):
        (folder / NAMES[i % 3]).mkdir(exist_ok=True)
        image.fromarray(picture).save(folder / NAMES[i % 3] / f"{i:02}.png")
    return folder


def trained(module: nn.Module, batch: torch.Tensor, steps: int = 12) -> list[float]:
    """A user's own loop: the losses."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(module(batch), torch.arange(len(batch)) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def made(
    pixels: np.ndarray, batch: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, edgecv.Bundle]:
    """Bundles of one network by "precision.target"."""
    out, module = tmp_path_factory.mktemp("made"), network()
    trained(module, batch)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found = {}
    for precision in ("fp32", "int8"):
        seen: list[tuple[float, float, str]] = []
        for bundle in edgecv.export(
            module, ["cpu", "openvino"], out=out, precision=precision, calibration=pixels,
            input_size=SIZE, mean=MEAN, std=STD, labels=NAMES, name=f"net-{precision}",
            progress=lambda done, total, note, seen=seen: seen.append((done, total, note)),
        ):  # fmt: skip
            found[f"{precision}.{bundle.target}"] = bundle
        assert seen[-1][0] == seen[-1][1] == max(total for _, total, _ in seen)
    assert module.training, "the caller's network is as it was"
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    return found


# the front


def test_all_is_what_is_promised_and_nothing_else() -> None:
    assert set(edgecv.__all__) == PROMISED
    assert len(edgecv.__all__) == len(PROMISED)
    for name in edgecv.__all__:
        assert getattr(edgecv, name) is not None
        assert name in dir(edgecv)
    with pytest.raises(AttributeError, match="no attribute 'never'"):
        _ = edgecv.never  # type: ignore[attr-defined]


def test_every_function_and_type_says_what_it_takes_and_raises() -> None:
    for name in set(edgecv.__all__) - {"errors", "__version__"}:
        found = getattr(edgecv, name)
        assert found.__doc__, name
        if not isinstance(found, type):
            assert "Raises" in found.__doc__, name


def test_the_page_has_every_name() -> None:
    page = (Path(edgecv.__file__).parent.parent / "docs" / "api.md").read_text()
    assert "`edgecv.errors`" in page
    for name in set(edgecv.__all__) - {"__version__", "errors"}:
        function = not isinstance(getattr(edgecv, name), type)
        assert (f"\n## {name}\n" if function else f"`{name}") in page, name
        assert not function or f"\nedgecv.{name}(" in page, name


# Of a command: words of its own, and the keyword that stands for an option of another name.
COMMANDS = {
    "export": ({"_q", "quiet"}, {"target": "targets"}), "bench": ({"profile"}, {}),
    "gate": ({"update", "junit", "summary", "_q", "quiet"}, {}), "parity": (set(), {}),
    "why": (set(), {}),
    "predict": (set(), {}),
    "run": ({"_q", "quiet"}, {"set": "settings", "target": "targets", "no_report": "report"}),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_function_has_the_words_of_its_command(name: str) -> None:
    from edgecv.api.export_options import ExportOptions
    from edgecv.cli import build_parser

    commands = next(a for a in build_parser()._actions if getattr(a, "choices", None)).choices
    own, called = COMMANDS[name]
    options = {
        o.removeprefix("--").replace("-", "_") for o in commands[name]._option_string_actions
    }
    options -= own | {"_h", "help", "_v", "verbose", "traceback", "json"}
    wanted = {called.get(option, option) for option in options}
    takes = {p.name for p in inspect.signature(getattr(edgecv, name)).parameters.values()}
    takes |= set(ExportOptions.__annotations__) if name == "export" else set()
    given = {a.dest for a in commands[name]._actions if not a.option_strings}
    assert takes - {"options", "progress", "failed"} == wanted | given


def test_no_module_has_the_name_of_a_function() -> None:
    """An import of the one would hide the other: `import edgecv.bench` anywhere in a process."""
    modules = {m.name for m in pkgutil.iter_modules(edgecv.__path__)}
    assert modules & set(edgecv.__all__) == {"errors"}


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
        cwd=Path(edgecv.__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_imports_nothing() -> None:
    code = "import edgecv, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = set(python(code).split())
    assert not loaded & {"torch", "onnx", "numpy", "pydantic", "yaml", "rich", "PIL"}


def test_functions_that_devices_use_need_numpy_alone(made: dict[str, edgecv.Bundle]) -> None:
    heavy = ("torch", "pydantic", "rich", "yaml", "PIL", "onnx", "safetensors", "pandas")
    path = str(made["int8.cpu"].path)
    code = f"""
import sys
sys.modules.update(dict.fromkeys({heavy!r}))
import edgecv, numpy
model = edgecv.open_bundle({path!r})
print(model(numpy.zeros((20, 30, 3), numpy.uint8))[0].label)
print(edgecv.bench({path!r}, rounds=3, budget=0.1, burst_ms=1).rows[0].bundle)
try:
    edgecv.export("resnet8", "cpu", out="never")
except edgecv.errors.MissingExtraError as e:
    print(e.hint)
"""
    label, bundle, hint = python(code).splitlines()
    assert label in NAMES
    assert bundle == "net-int8.cpu.edgecv"
    assert hint == cure("compress", "")


# export


def test_a_network_becomes_bundles_that_answer(
    made: dict[str, edgecv.Bundle], pixels: np.ndarray
) -> None:
    assert set(made) == {"fp32.cpu", "fp32.openvino", "int8.cpu", "int8.openvino"}
    for key, bundle in made.items():
        precision, target = key.split(".")
        assert (bundle.precision, bundle.target) == (precision, target)
        assert bundle.path.stat().st_size == bundle.size_bytes
        assert all(file.is_file() for file in bundle.files)
        assert bundle.sqnr_db is not None
        assert bundle.sqnr_db > (80 if precision == "fp32" else 20)
        assert set(bundle.executed) == {precision}
        opened = bundle.open()
        answers = [opened(picture)[0].label for picture in pixels[:12]]
        assert answers == [NAMES[i % 3] for i in range(12)]
        opened.close()
    again = edgecv.open_bundle(made["int8.cpu"], threads=1)  # a bundle is a path
    assert again(pixels[0])[0].label == "ant"


def test_labelled_images_and_limits_are_judged(
    batch: torch.Tensor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecv.plan.recipe_data import Bench
    from edgecv.quick_export import recipe as quick_recipe

    # limits compare with fp32, which is measured: shortly, here
    monkeypatch.setattr(quick_recipe, "Bench", lambda: Bench(rounds=3, budget_s=0.1, burst_ms=1))
    module = network()
    trained(module, batch)
    said = {"input_size": SIZE, "mean": MEAN, "std": STD, "crop_pct": 1.0}
    (bundle,) = edgecv.export(
        module, "cpu", out=tmp_path, evaluate=f"imagefolder:{photos}", labels=NAMES, **said
    )
    assert bundle.metric is not None
    assert (bundle.metric["name"], bundle.metric["value"]) == ("top1", 1.0)
    assert bundle.metric["samples"] == 48
    impossible = {"size_mb": 1e-6, "name": "small"}
    with pytest.raises(errors.BudgetError, match="met by nothing"):
        edgecv.export(module, ["cpu"], out=tmp_path, **said, **impossible)
    assert list(tmp_path.glob("small*.edgecv"))  # the nearest is there to be looked at


def test_one_target_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3D convolutions go to ONNX engines alone."""

    class Gelu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x[:, :, None])[:, :, 0].mean((2, 3))

    monkeypatch.chdir(tmp_path)
    failed: dict[str, errors.EdgecvError] = {}
    options = {"input_size": 8, "channels": 1, "color": "grey", "out": "out"}
    found = edgecv.export(Gelu(), ["cpu", "c"], failed=failed, **options)
    assert [b.target for b in found] == ["cpu"]
    assert list(failed) == ["c"]
    with pytest.raises(type(failed["c"])):
        edgecv.export(Gelu(), ["cpu", "c"], **options)


@pytest.mark.parametrize(
    ("options", "kind", "where"),
    [
        ({}, errors.RecipeError, "input_size"),
        ({"input_size": (1, 2, 3)}, errors.RecipeError, "input_size"),
        ({"input_size": 8, "keep_float": ["stem"]}, errors.RecipeError, "keep_float"),
        ({"input_size": 8, "precision": "int8"}, errors.DataError, "calibration"),
        ({"input_size": 8, "accuracy_drop": -1}, errors.RecipeError, "accuracy_drop"),
        ({"input_size": 8, "calibration": np.zeros((2, 8, 8, 3))}, errors.RecipeError,
         "calibration"),
        ({"input_size": 8, "mean": 0.5, "std": 60.0}, errors.RecipeError, "mean, std"),
        ({"input_size": 8, "decoder": "yolox", "decode": {"decoder": "ssd"}}, errors.RecipeError,
         "decode: decoder"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_its_keyword(
    options: dict, kind: type, where: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as refused:
        edgecv.export(network(), ["cpu"], out=tmp_path, **options)
    assert refused.value.where == where
    assert "--" not in str(refused.value)


def test_a_word_or_a_value_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"'calibrate'\. Did you mean 'calibration'"):
        edgecv.export(network(), "cpu", out=tmp_path, input_size=8, calibrate="photos")
    for word, value in (
        ("precision", "int7"),
        ("units", "0..2"),
        ("nms", "file"),
        ("task", "cats"),
    ):
        with pytest.raises(errors.RecipeError, match="one of ") as refused:
            edgecv.export(network(), "cpu", out=tmp_path, input_size=8, **{word: value})
        assert refused.value.where == word


def test_what_was_taken_unsaid_is_told(tmp_path: Path) -> None:
    (plain,) = edgecv.export(network(), "cpu", out=tmp_path, input_size=8)
    assert any("give mean and std" in note for note in plain.notes)
    (units,) = edgecv.export(network(), "cpu", out=tmp_path, input_size=8, mean=MEAN, std=STD)
    assert any("are units of 0..1, which in 0..255 is mean 127.5" in note for note in units.notes)


def test_what_is_no_network_and_no_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.RecipeError, match=r"takes a name, a path or a torch.nn.Module"):
        edgecv.export(7, "cpu", out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(errors.TargetError, match="never"):
        edgecv.export(network(), "never", out=tmp_path, input_size=8)
    with pytest.raises(errors.StoreError):
        edgecv.export(network(), "cpu", out=Path(__file__) / "below", input_size=8)


def test_a_network_that_only_a_program_has_is_in_no_folder() -> None:
    from edgecv.models import live_network

    with live_network.held(network()) as name:
        assert name == "<object>:Sequential"
        one, other = live_network.copied(name), live_network.copied(name)
        assert one is not other
    with pytest.raises(errors.ModelError, match="an object of a Python program"):
        live_network.copied(name)


def test_weights_behind_a_hook_are_copied() -> None:
    from edgecv.models import live_network

    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Conv2d(1, 2, 3))
    layer(torch.zeros(1, 1, 4, 4))
    assert not layer.weight.is_leaf
    with live_network.held(layer) as name:
        assert torch.equal(live_network.copied(name).weight, layer.weight)


# compress, a loop, finish


def test_a_pruned_network_is_trained_by_its_owner_and_finished(
    batch: torch.Tensor, pixels: np.ndarray, tmp_path: Path
) -> None:
    module = network()
    trained(module, batch)
    before = sum(p.numel() for p in module.parameters())
    small = edgecv.compress(module, batch, macs=0.5, align=4)
    assert sum(p.numel() for p in small.parameters()) < 0.7 * before
    assert sum(p.numel() for p in module.parameters()) == before
    assert small.training
    losses = trained(small, batch)
    assert losses[-1] < losses[0]
    (bundle,) = edgecv.finish(small, "cpu", out=tmp_path, mean=MEAN, std=STD, labels=NAMES)
    assert bundle.precision == "fp32"
    opened = bundle.open()
    with torch.no_grad():
        wanted = small.eval()(batch[:1]).numpy()
    (answer,) = opened.run({"input": batch[:1].numpy()}).values()
    np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)
    assert opened(pixels[1])[0].label == "bee"


def test_learned_integers_are_the_ones_that_run(
    batch: torch.Tensor, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Of a network that was pruned before."""
    module = edgecv.compress(network(), batch, macs=0.5, align=4)
    trained(module, batch)
    ready = edgecv.compress(module, batch, quantize=True)
    with pytest.raises(errors.RecipeError, match="has quantizers already"):
        edgecv.compress(ready, batch, macs=0.5)
    steps = {n: p.clone() for n, p in ready.named_parameters() if "fake_quantizers" in n}
    assert steps
    trained(ready, batch)
    learned = dict(ready.named_parameters())
    assert any(not torch.equal(learned[n], step) for n, step in steps.items())
    state = {k: v.clone() for k, v in ready.state_dict().items()}
    made = edgecv.finish(ready, ["cpu", "openvino"], out=tmp_path, mean=MEAN, std=STD, labels=NAMES)
    assert all(torch.equal(v, state[k]) for k, v in ready.state_dict().items())
    assert ready.training
    with torch.no_grad():
        wanted = ready.eval()(batch).numpy()
    for bundle in made:
        assert (bundle.precision, set(bundle.executed)) == ("int8", {"int8"})
        opened = bundle.open()
        rows = [next(iter(opened.run({"input": x[None].numpy()}).values()))[0] for x in batch]
        noise = np.square(np.array(rows) - wanted).mean() / np.square(wanted).mean()
        assert noise < 1e-3  # 30 dB: a level here and there, and not another grid
        assert opened(pixels[2])[0].label == "cat"


def test_channels_go_by_the_clock_of_an_engine(
    batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecv.methods.pruning import whole

    quick = {"rounds": 5, "precision": 1.0, "budget_s": 0.2, "burst_ms": 1.0}
    monkeypatch.setattr(whole, "TRIAL_PLAN", quick)
    told: list[str] = []
    large = torch.nn.functional.interpolate(batch[:4], 32)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 16, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    small = edgecv.compress(net, large, latency_ratio=0.9, align=64, keep=["0", "4"],
                            progress=lambda _done, _total, note: told.append(note))  # fmt: skip
    assert (small[2].out_channels, small[4].in_channels) == (64, 64)  # half of the time goes
    assert any("measuring" in note for note in told)


def test_mean_and_std_that_make_no_pixels_of_the_example_are_refused(
    batch: torch.Tensor, tmp_path: Path
) -> None:
    ready = edgecv.compress(network(), batch, quantize=True)
    for mean, std in ((0.0, 255.0), (0.485, 0.9)):
        with pytest.raises(errors.RecipeError, match="compress was shown") as refused:
            edgecv.finish(ready, "cpu", out=tmp_path, mean=mean, std=std)
        assert refused.value.where == "mean, std"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "kind", "what"),
    [
        ({}, errors.RecipeError, "nothing is asked for"),
        ({"ratio": 0.5, "macs": 0.5}, errors.RecipeError, "give one of"),
        ({"ratio": 1.5}, errors.RecipeError, "less than 1"),
        ({"ratio": 0.5, "method": "taylor"}, errors.RecipeError, "without labels"),
        ({"macs": 0.01, "align": 8}, errors.BudgetError, "is not reached"),
        ({"quantize": True, "weight_bits": 9}, errors.RecipeError, "is 9"),
        ({"ratio": 0.5, "targets": ["never"]}, errors.TargetError, "never"),
    ],
)
def test_compress_refuses_in_a_sentence(
    batch: torch.Tensor, options: dict, kind: type, what: str
) -> None:
    with pytest.raises(kind, match=what):
        edgecv.compress(network(), batch, **options)


def test_several_outputs_learn_no_integers(batch: torch.Tensor) -> None:
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 5, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.head(torch.relu(self.conv(x)))
            return found[:, :4], found[:, 4:].sigmoid()

    small = edgecv.compress(Boxes(), batch, ratio=0.5, align=4)
    assert [y.shape[1] for y in small(batch)] == [4, 1]
    with pytest.raises(errors.UnsupportedError, match="returns a tuple"):
        edgecv.compress(Boxes(), batch, quantize=True)


def test_an_example_that_is_none_is_refused(batch: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(errors.ModelError, match="fails on a 1x1x16x16 input"):
        edgecv.compress(network(), batch[:, :1], ratio=0.5)
    for wrong in (batch[0], batch[:0], batch.numpy(), batch / 0):
        with pytest.raises(errors.RecipeError) as refused:
            edgecv.compress(network(), wrong, ratio=0.5)  # type: ignore[arg-type]
        assert refused.value.where == "example"
    with pytest.raises(errors.RecipeError, match="did not come from"):
        edgecv.finish(network(), "cpu", out=tmp_path)


# what is asked of bundles


def test_bundles_are_measured_side_by_side(made: dict[str, edgecv.Bundle]) -> None:
    found = edgecv.bench(
        [made["int8.cpu"]], against=made["fp32.cpu"], rounds=3, budget=0.2, burst_ms=1
    )
    first, second = found.rows
    assert (first.bundle, first.latency_ratio) == ("net-fp32.cpu.edgecv", 1.0)
    assert second.latency_ratio_low <= second.latency_ratio <= second.latency_ratio_high
    assert 0 < second.p50_ms <= second.p90_ms <= second.p99_ms
    assert found.data["bundles"][1]["latency_ms"]["p50"] == second.p50_ms
    for options in ({"threads": 0}, {"rounds": 1}, {"budget": 0.0}, {"precision": 0.1},
                    {"scenario": "ofline"}):  # fmt: skip
        with pytest.raises(errors.RecipeError) as refused:
            edgecv.bench(made["int8.cpu"], **options)  # type: ignore[arg-type]
        assert refused.value.where == next(iter(options))
    with pytest.raises(errors.BundleError, match="no such file"):
        edgecv.bench("never.edgecv", budget=0.1)


def test_rows_are_a_table_where_pandas_is(
    made: dict[str, edgecv.Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = edgecv.bench(made["int8.cpu"], rounds=3, budget=0.1, burst_ms=1)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pandas", None)
        with pytest.raises(errors.MissingExtraError, match="pip install pandas"):
            found.to_pandas()
    pytest.importorskip("pandas")
    table = found.to_pandas()
    assert list(table["bundle"]) == ["net-int8.cpu.edgecv"]
    assert table["p50_ms"].iloc[0] == found.rows[0].p50_ms


def test_a_candidate_is_judged(made: dict[str, edgecv.Bundle]) -> None:
    same = edgecv.gate(
        made["int8.cpu"], made["int8.cpu"], max_slowdown=None, max_memory_growth=None
    )
    assert same
    assert (same.verdict, same.exit_code) == ("pass", 0)
    worse = edgecv.gate(
        made["fp32.cpu"], made["int8.cpu"], max_slowdown=None, max_memory_growth=None
    )
    assert not worse
    assert (worse.verdict, worse.exit_code) == ("regression", 1)
    (pair,) = worse.pairs
    assert {c.name: c.verdict for c in pair.checks}["fidelity"] == "regression"
    allowed = edgecv.gate(
        made["fp32.cpu"], made["int8.cpu"], max_slowdown=None, max_memory_growth=None,
        max_sqnr_drop=200.0,
    )  # fmt: skip
    assert allowed.verdict == "pass"
    nothing = dict.fromkeys(("max_slowdown", "max_accuracy_drop", "max_sqnr_drop",
                             "max_size_growth", "max_memory_growth"))  # fmt: skip
    for options in (nothing, {"max_slowdown": -1.0}, {"threads": 0}):
        with pytest.raises(errors.RecipeError):
            edgecv.gate(made["fp32.cpu"], made["int8.cpu"], **options)  # type: ignore[arg-type]
    with pytest.raises(errors.RecipeError, match="no baseline yet"):
        edgecv.gate("never.json", made["int8.cpu"])


def test_the_first_step_that_differs_is_named(made: dict[str, edgecv.Bundle], photos: Path) -> None:
    found = edgecv.parity(made["int8.cpu"], against=made["fp32.cpu"], images=photos, samples=8)
    assert found
    assert (found.agrees, found.first, found.samples) == (True, None, 8)
    quantized = [row for row in found.rows if row.step == "quantize"]
    assert 15 < quantized[0].sqnr_db < 60
    with pytest.raises(errors.RecipeError) as refused:
        edgecv.parity(made["int8.cpu"], samples=0)
    assert refused.value.where == "samples"
    with pytest.raises(errors.DataError, match="give against: "):
        edgecv.parity(made["int8.cpu"])


def test_why_says_what_it_found(made: dict[str, edgecv.Bundle]) -> None:
    found = edgecv.why(made["int8.cpu"], against=made["fp32.cpu"], budget=0.5)
    assert found.call_ms
    assert (found.not_run, found.rounding) == ("", None)
    assert len(found.findings) == len(found.data["findings"])
    for one in (*found.findings, *found.noted):
        assert one.kind
        assert one.change
    for options, where in (
        ({"samples": 3}, "samples"), ({"images": "photos"}, "against"), ({"budget": 0.0}, "budget"),
        ({"images": "a", "evaluate": "imagefolder:a"}, "images"),
    ):  # fmt: skip
        with pytest.raises(errors.RecipeError) as refused:
            edgecv.why(made["int8.cpu"], **options)  # type: ignore[arg-type]
        assert refused.value.where == where


def test_pictures_are_answered(
    made: dict[str, edgecv.Bundle], photos: Path, tmp_path: Path
) -> None:
    found = list(edgecv.predict(made["int8.cpu"], photos / "bee", top=1, save=tmp_path / "drawn"))
    assert len(found) == 16
    assert {a.predictions[0]["label"] for a in found} == {"bee"}
    assert all(a.saved and a.saved.is_file() and set(a.latency_ms) for a in found)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    mixed = [tmp_path / "bad.png", photos / "ant" / "00.png"]
    with pytest.raises(errors.DataError, match=r"bad\.png"):
        list(edgecv.predict(made["int8.cpu"], mixed))
    failed: dict[str, errors.EdgecvError] = {}
    (answer,) = edgecv.predict(made["int8.cpu"], mixed, failed=failed)
    assert answer.image == str(mixed[1])
    assert list(failed) == [str(mixed[0])]
    with pytest.raises(errors.RecipeError) as refused:  # at once, not with the first picture
        edgecv.predict(made["int8.cpu"], mixed, iou=0.5)
    assert refused.value.where == "iou"


# run


RECIPE = {
    "model": {"module": "mynet:make", "width": 16},
    "data": {"size": SIZE, "crop_pct": 1.0},
    "bench": {"rounds": 3, "burst_ms": 1, "budget_s": 0.1},
    "stages": [
        {"train": {"name": "dense", "epochs": 2, "batch_size": 16}},
        {"quantize": {"name": "int8"}},
    ],
    "targets": ["cpu", "openvino"],
}


def test_a_recipe_runs_from_a_dict(
    project: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text((project / "mynet.py").read_text())
    source = f"imagefolder:{photos}"
    recipe = {**RECIPE, "data": {**RECIPE["data"], "train": source, "test": source}}
    notes: list[str] = []
    found = edgecv.run(
        recipe, targets="cpu", settings={"train.epochs": 1, "train.lr": 1e-5}, accuracy_drop=100,
        progress=lambda _done, _total, note: notes.append(note),
    )  # fmt: skip
    assert recipe["stages"][0]["train"]["epochs"] == 2, "the caller's dict is as it was"
    assert found.out == Path("runs/recipe")
    assert [(r.step, r.target, r.status) for r in found.rows] == [
        ("dense", "cpu", "ok"), ("int8", "cpu", "ok")
    ]  # fmt: skip
    dense, small = found.rows
    assert small.bundle is not None
    assert edgecv.open_bundle(small.bundle).labels == NAMES
    assert (small.metric, small.reference) == ("top1", dense.value)
    assert small.sqnr_db is not None
    assert found.ok
    assert "accuracy_drop" in found.limits[0]
    assert found.data["recipe"]["settings"] == ["train.epochs=1", "train.lr=1e-05"]
    assert any(note.startswith("dense") for note in notes)
    pytest.importorskip("pandas")
    assert list(found.to_pandas()["precision"]) == ["fp32", "int8"]


def test_a_recipe_is_refused_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.RecipeError) as refused:
        edgecv.run({**RECIPE, "modle": 1})
    assert refused.value.where == "recipe: modle"
    with pytest.raises(errors.RecipeError, match="no such file"):
        edgecv.run("never.yaml")
    with pytest.raises(errors.RecipeError) as refused:
        edgecv.run("quickstart", settings={"prune.never.more": 1})
    assert refused.value.where == "settings['prune.never.more']"
    checked = edgecv.Recipe.load("quickstart", {"seed": 3}, ["cpu"])
    assert (checked.seed, [t.name for t in checked.targets]) == (3, ["cpu"])
    with pytest.raises(errors.RecipeError, match="is checked already"):
        edgecv.run(checked, settings={"seed": 1})
    assert not list(tmp_path.iterdir())


# types


def test_a_program_that_uses_all_of_it_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    text = USER.read_text()
    used = {name for name in edgecv.__all__ if f"edgecv.{name}" in text}
    assert used == set(edgecv.__all__)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import edgecv\n"
        "made = edgecv.export('net.onnx', ['cpu'], out='out', precision='int7')\n"
        "reveal_type(edgecv.run('a.yaml').rows[0].p50_ms)\n"
        "edgecv.bench('a.edgecv', thread=1)\n"
    )
    cache = Path(__file__).parent.parent / ".mypy_cache" / "user"
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache)]
    done = subprocess.run(
        [*command, str(USER), str(wrong)], capture_output=True, text=True, cwd=tmp_path,
        timeout=600, check=False,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if ": error: " in line or "note: Rev" in line]
    assert {line.rsplit("/")[-1].split(":")[0] for line in said} == {"wrong.py"}, done.stdout
    assert len([line for line in said if ": error: " in line]) == 2, done.stdout
    assert any('"float | None"' in line or '"float | None"' in line for line in said), done.stdout
