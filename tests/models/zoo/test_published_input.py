"""Published weights bring their own mean, std, crop, size and labels, where nobody says more."""

import subprocess
import sys

import numpy as np
import pytest

from edgecv.data.images import Images, as_outputs
from edgecv.errors import DataError
from edgecv.models import zoo
from edgecv.models.model import Model
from edgecv.models.zoo import published
from edgecv.plan import recipe
from edgecv.quick_export import Request
from edgecv.quick_export.recipe import recipe_of

TEXT = """model: {{zoo: efficientnet_lite0, pretrained: {pretrained}}}
data: {{train: synthetic:4, test: synthetic:4, size: 224{more}}}
stages:
  - export: {{name: net}}
targets: [cpu]
"""


def loaded(tmp_path, pretrained="true", more=""):
    path = tmp_path / "r.yaml"
    path.write_text(TEXT.format(pretrained=pretrained, more=more))
    return recipe.load(path)


@pytest.mark.parametrize(
    ("name", "side", "crop"),
    [
        ("efficientnet_lite0", 224, 224 / 256),
        ("efficientnet_lite1", 240, 240 / 272),
        ("efficientnet_lite2", 260, 260 / 292),
    ],
)
def test_an_export_that_says_nothing_normalises_as_the_weights_were_trained(name, side, crop):
    """The published evaluation: (pixel - 127) / 128 on the centre, 32 pixels of border cut."""
    made = recipe_of(Request(name, ("cpu",), args={"pretrained": True}))
    assert made.data.height_width == (side, side)
    assert np.allclose([255 * v for v in (*made.data.mean, *made.data.std)], [127, 128])
    assert made.data.crop_pct == pytest.approx(crop, abs=1e-4)
    assert made.data.interpolation == "bicubic"
    assert made.labels is not None
    assert (made.labels[1], made.labels[207]) == ("goldfish", "golden retriever")


def test_what_the_user_says_holds():
    request = Request(
        "efficientnet_lite0", ("cpu",), size=(192, 160), mean=(0.0,), std=(255.0,), crop_pct=1.0,
        interpolation="bilinear", args={"pretrained": True, "classes": 7},
    )  # fmt: skip
    made = recipe_of(request)
    assert made.data.height_width == (192, 160)
    assert (made.data.mean, made.data.std) == ((0.0,), (1.0,))
    assert (made.data.crop_pct, made.data.interpolation) == (1.0, "bilinear")
    assert made.labels is None  # seven outputs of the user's own


def test_without_weights_nothing_is_published():
    made = recipe_of(Request("efficientnet_lite0", ("cpu",)))
    assert (made.data.mean, made.data.std, made.labels) == ((0.0,), (1.0,), None)


def test_a_recipe_that_says_nothing_takes_them_and_tells(tmp_path):
    made = loaded(tmp_path)
    assert np.allclose([255 * v for v in (*made.data.mean, *made.data.std)], [127, 128])
    assert "mean 0.498, std 0.502, as the weights of efficientnet_lite0 expect" in made.notes[0]
    own = loaded(tmp_path, more=", mean: [0.485], std: [0.229]")
    assert (own.data.mean, own.data.std, own.notes) == ((0.485,), (0.229,), ())
    plain = loaded(tmp_path, pretrained="false")
    assert (plain.data.mean, plain.notes) == ((0.5,), ())


def test_a_recipe_with_a_model_folder_takes_the_folders(tmp_path):
    given = {"size": [28, 28], "channels": 1, "mean": [72.9], "std": [90.0], "crop_pct": 1.0,
             "interpolation": "bilinear"}  # fmt: skip
    model = Model("zoo:lenet5", {}, input=given)
    model.save(tmp_path / "net", model.build())
    path = tmp_path / "r.yaml"
    text = TEXT.format(pretrained="true", more=", crop_pct: 0.9")
    path.write_text(text.replace("{zoo: efficientnet_lite0, pretrained: true}", "net"))
    made = recipe.load(path)
    assert np.allclose([255 * v for v in (*made.data.mean, *made.data.std)], [72.9, 90])
    assert (made.data.crop_pct, made.data.interpolation) == (0.9, "bilinear")


def test_every_network_with_weights_says_what_they_expect():
    takes = {name for name in zoo.names() if "pretrained" in zoo.arguments(name)}
    assert takes == set(published.with_weights())
    assert all(published.of(name, {"pretrained": True}) for name in takes)


def test_imagenets_names_and_synsets():
    names, synsets = published.labels(), published.synsets()
    assert len(set(names)) == len(set(synsets)) == 1000
    assert list(synsets) == sorted(synsets)  # the outputs' order
    for number, synset, name in (
        (0, "n01440764", "tench"),
        (281, "n02123045", "tabby"),
        (999, "n15075141", "toilet tissue"),
    ):
        assert (synsets[number], names[number]) == (synset, name)


@pytest.mark.parametrize(
    "folders", [("n01440764", "n02123045"), ("0000", "0281"), ("tench", "tabby")]
)
def test_folders_named_by_synset_number_or_name_are_outputs(folders):
    images = Images(np.zeros((2, 1, 1, 3), np.uint8), np.arange(2), folders)
    assert as_outputs(images, published.labels()).labels.tolist() == [0, 281]


def test_a_number_beyond_the_outputs_is_refused():
    images = Images(np.zeros((1, 1, 1, 3), np.uint8), np.arange(1), ("1000",))
    with pytest.raises(DataError, match="'1000' is no output"):
        as_outputs(images, published.labels())


def test_it_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgecv.models.zoo import published as p; p.labels()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
