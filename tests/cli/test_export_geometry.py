"""`edgecv export` with geometry, colour and channels: what is recorded is what the bundle does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import RecipeError
from edgecv.plan.graph import Expansion
from edgecv.quick_export import Request
from edgecv.quick_export.images import understood_as
from edgecv.quick_export.recipe import recipe_of
from edgecv.runtime import Preprocess, open_bundle
from edgecv.runtime.archive import read_bundle
from tests.runtime.conftest import network

ort = pytest.importorskip("onnxruntime")
Image = pytest.importorskip("PIL.Image")
PHOTO = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    path.write_bytes(network(size=24))
    return path


def plain(path: Path, x: np.ndarray) -> np.ndarray:
    """The file's own scores, by ONNX Runtime without its optimiser."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    z = session.run(None, {"image": np.ascontiguousarray(x, np.float32)})[0].reshape(-1)
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def scores(bundle: Path, image: object) -> np.ndarray:
    return np.array([p.score for p in sorted(open_bundle(bundle)(image, None))])


def letterboxed() -> np.ndarray:
    whole = Image.new("RGB", (24, 24), (9, 9, 9))
    whole.paste(Image.fromarray(PHOTO).resize((24, 17), Image.BILINEAR), (0, 0))
    return np.asarray(whole).astype(np.float32)


def stretched() -> np.ndarray:
    return np.asarray(Image.fromarray(PHOTO).resize((24, 24), Image.BICUBIC)).astype(np.float32)


IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BOXED = ("--resize", "letterbox", "--pad-value", "9", "--pad-at", "corner")


def test_a_bundle_sees_what_the_options_say(edgecv: Callable, net: Path, tmp_path: Path) -> None:
    done = edgecv(
        "export", net, "--target", "cpu", *BOXED, "--interpolation", "bilinear", "--color", "bgr",
        "--mean", "0", "--std", "1", "--out", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "mean 0 and std 1 are units of 0..255 here: pixels go in as they are" in done.out
    (bundle,) = tmp_path.glob("*.edgecv")
    want = plain(net, letterboxed()[..., ::-1].transpose(2, 0, 1)[None])
    np.testing.assert_allclose(scores(bundle, PHOTO), want, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "wanted", "note"),
    [
        (
            {"resize": "stretch", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            lambda: (stretched() / 255 - IMAGENET[0]) / IMAGENET[1],
            "are units of 0..1, which in 0..255 is mean 123.675 116.28 103.53",
        ),
        (
            {"resize": "stretch", "mean": (0.0,), "std": (1.0,), "units": "0..1"},
            lambda: stretched() / 255,
            "mean 0 and std 1 are units of 0..1 here: pixels are scaled to 0..1",
        ),
        ({"resize": "stretch", "std": (255.0,), "color": "bgr"},
         lambda: stretched()[..., ::-1] / 255, ""),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_what_pixels_become(options, wanted, note: str) -> None:
    request = Request("resnet8", ("cpu",), size=(24, 24), **options)
    made = recipe_of(request)
    pre = Preprocess(channels=3, **Expansion(made, compare=False).input())
    np.testing.assert_allclose(pre(PHOTO)[0].transpose(1, 2, 0), wanted(), atol=1e-5)
    said = understood_as(request, made.data)
    assert note in said
    assert bool(note) == bool(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pad_value": 3}, "--pad-value: means nothing with resize crop"),
        ({"resize": "stretch", "pad_at": "corner"}, "--pad-at: means nothing with resize stretch"),
        ({"resize": "letterbox", "crop_pct": 1.0}, "--crop-pct: means nothing with resize letterb"),
        ({"resize": "letterbox", "pad_value": 256}, "--pad-value: "),
        ({"color": "grey", "channels": 3}, "--channels: grey is of 1 channel"),
        ({"mean": (127.0,), "std": (0.5,)}, "--mean, --std: mean 127 and std 0.5: one looks like"),
        ({"std": (3.0,)}, "--mean, --std: std 3 may be units of 0..1 or of 0..255"),
        ({"mean": (10.0, 20.0)}, "--mean: give one value, or one per channel"),
        ({"std": (0.0,)}, "--std: a standard deviation is above 0"),
        ({"channels": 0}, "--channels: "),
    ],
)
def test_what_means_nothing_is_one_sentence(options, said: str) -> None:
    with pytest.raises(RecipeError) as e:
        recipe_of(Request("resnet8", ("cpu",), **options))
    assert str(e.value).startswith(said)
    assert "\n" not in str(e.value)


def test_grey_is_not_for_a_file_of_three_channels(net: Path) -> None:
    with pytest.raises(RecipeError, match="grey is of 1 channel, and the model takes 3"):
        recipe_of(Request(str(net), ("cpu",), color="grey"))


def test_other_channels_from_arrays_in_int8(edgecv: Callable, tmp_path: Path) -> None:
    channels = 5
    path, photos = tmp_path / "net.onnx", tmp_path / "photos"
    path.write_bytes(network(size=24, channels=channels))
    photos.mkdir()
    images = np.random.default_rng(1).integers(0, 256, (8, 30, 40, channels), dtype=np.uint8)
    for i, image in enumerate(images):
        np.save(photos / f"{i}.npy", image)
    done = edgecv(
        "export", path, "--target", "cpu", "--precision", "int8", "--calibration", photos,
        "--resize", "stretch", "--std", "255", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    (bundle,) = (tmp_path / "out").glob("*.edgecv")
    assert read_bundle(bundle).preprocess.channels == channels
    each = [np.asarray(Image.fromarray(images[0][..., c]).resize((24, 24), Image.BICUBIC))
            for c in range(channels)]  # fmt: skip
    want = plain(path, np.stack(each)[None] / 255)
    for image in (images[0], photos / "0.npy"):
        np.testing.assert_allclose(scores(bundle, image), want, atol=0.05)


def test_a_recipe_without_a_size_takes_the_files(net: Path, tmp_path: Path) -> None:
    from edgecv.plan import recipe

    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {net}\ndata: {{train: 'synthetic:4', test: 'synthetic:4', resize: stretch}}\n"
        "stages: [export]\ntargets: [cpu]\n"
    )
    made = recipe.load(path)
    assert made.data.height_width == (24, 24)
    assert "size 24 24" in made.notes[0]
