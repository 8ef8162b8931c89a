"""`restructure: {into: relu}`: a file goes in and a file comes out, whatever comes after it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from edgecv.context import Context  # noqa: E402
from edgecv.data.images import Images  # noqa: E402
from edgecv.errors import DataError, RecipeError, UnsupportedError  # noqa: E402
from edgecv.methods.export.onnx import export_onnx  # noqa: E402
from edgecv.methods.restructuring.activations import places  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.plan import recipe  # noqa: E402
from edgecv.quick_export import Request, export  # noqa: E402
from edgecv.runtime.preprocess import Preprocess  # noqa: E402
from edgecv.stages.restructure import Restructure  # noqa: E402

SIDE, COUNT = 32, 24


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    conv, act = torch.nn.Conv2d, torch.nn.SiLU
    return torch.nn.Sequential(
        conv(3, 8, 3, 2, 1), act(), conv(8, 8, 3, 1, 1, groups=8), act(), conv(8, 6, 1)
    )


def pixels(count: int = COUNT) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, SIDE // 8, SIDE // 8, 3), np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("network")
    return export_onnx(network().eval(), torch.zeros(1, 3, SIDE, SIDE), out).path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(pixels()):
        Image.fromarray(image).save(folder / f"{i:03}.png")
    return folder


def context(out: Path, count: int = COUNT, **more) -> Context:
    images = Images(pixels(count), np.zeros(count, np.int64), ())
    pre = Preprocess((SIDE, SIDE), 3, (0.0,), (255.0,))
    return Context(out, 0, pre, lambda _: images, where="cheap", **more)


def ran(source, out: Path, **options) -> onnx.ModelProto:
    out.mkdir(exist_ok=True)
    Restructure(**{"into": "relu", "passes": 2, **options}).run(source, context(out))
    return onnx.load_model(str(out / "source.onnx"))


def test_the_same_seed_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    one, other = (ran(file, tmp_path / name) for name in "ab")
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    files = {p.name for p in (tmp_path / "a").iterdir()}
    assert files == {"source.onnx", "graph.json"}


def test_it_says_what_it_cost(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ran(file, tmp_path / "a", layers=("0",))
    told = json.loads((tmp_path / "a" / "graph.json").read_text())["facts"]["restructured"]
    assert (told["activations"], len(told["replaced"]), told["share"]) == (2, 1, 0.5)
    assert told["error"] <= told["error_fitted"] <= told["error_replaced"]
    assert told["distilled"]["before"] == pytest.approx(told["error_fitted"], rel=1e-3)
    assert "1 of 2 activations, 50% of their numbers, are relu now" in caplog.text


def test_what_was_interrupted_leaves_nothing(file: Path, tmp_path: Path) -> None:
    def stop(*said) -> None:
        if "error" in said[2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Restructure(into="relu").run(file, context(tmp_path, progress=stop))
    assert not list(tmp_path.iterdir())


def test_a_pytorch_network_becomes_a_file(tmp_path: Path) -> None:
    made = ran((Model("none:here"), network()), tmp_path / "a", into="relu6")
    assert not places(made, "relu6")
    assert [node.op_type for node in made.graph.node].count("Clip") == 2


def test_too_few_images_are_told(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 images are too few"):
        Restructure(into="relu").run(file, context(tmp_path, 4))


def test_nothing_to_replace_is_told(tmp_path: Path) -> None:
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    with pytest.raises(UnsupportedError, match="no activation that this would make cheaper"):
        ran((Model("none:here"), plain), tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"into": "relu", "fit_steps": 3}, "fit_steps: of blocks alone, and into is relu"),
     ({"share": 0.5}, "share: of activations alone, and into is separable")],
)  # fmt: skip
def test_what_would_not_be_read_is_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Restructure(**options)


def plan(model: str, *steps: str, folder: Path) -> recipe.Recipe:
    lines = "".join(f"  - {step}\n" for step in steps)
    head = f"model: {model}\ndata: {{images: pictures, size: {SIDE}}}\ntargets: [cpu]\nstages:\n"
    (folder / "pictures").mkdir(exist_ok=True)
    Image.fromarray(pixels(1)[0]).save(folder / "pictures" / "a.png")
    path = folder / "my.yaml"
    path.write_text(head + lines)
    return recipe.load(path)


CHEAP = "restructure: {into: relu}"


@pytest.mark.parametrize("after", [(), ("export",), ("quantize",), (CHEAP, "quantize")])
def test_a_file_goes_through_without_labels(file: Path, tmp_path: Path, after: tuple) -> None:
    made = plan(str(file), CHEAP, *after, folder=tmp_path)
    assert made.steps[0].stage.word == "restructure"


@pytest.mark.parametrize(
    ("steps", "said"),
    [((CHEAP, "prune"), "learns from labels"),
     ((CHEAP, "export", CHEAP), "needs a PyTorch network, and 'export' is a graph file"),
     (("quantize", CHEAP), "needs a PyTorch network, and 'quantize' is a graph file")],
)  # fmt: skip
def test_what_cannot_follow_is_refused(file: Path, tmp_path: Path, steps: tuple, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        plan(str(file), *steps, folder=tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_export_ships_the_cheaper_network(
    file: Path, pictures: Path, tmp_path: Path, precision: str
) -> None:
    request = Request(
        str(file), ("cpu",), precision, pictures, size=(SIDE, SIDE), activations="relu"
    )
    made = export(request, tmp_path)["cpu"]
    (engine,) = made.files
    ops = {node.op_type for node in onnx.load_model(str(engine)).graph.node}
    assert "Sigmoid" not in ops
    assert ("QuantizeLinear" in ops) == (precision == "int8")


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"activations_share": 0.5}, "--activations-share: no activation is named"),
     ({"activations_share": 1.5, "activations": "relu"}, "--activations-share: .*less than"),
     ({"activations": "swish"}, "--activations: ")],
)  # fmt: skip
def test_what_export_does_not_know_is_told(
    file: Path, pictures: Path, tmp_path: Path, asked: dict, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        export(Request(str(file), ("cpu",), calibration=pictures, **asked), tmp_path)


def test_export_asks_for_images(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--activations: .*images to learn from"):
        export(Request(str(file), ("cpu",), activations="relu"), tmp_path)
