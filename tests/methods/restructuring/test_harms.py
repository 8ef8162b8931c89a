"""One session tells of every replacement what a model of its own would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgecv.backends.onnxruntime.tensors import runner  # noqa: E402
from edgecv.methods.restructuring.activations import Answers, places  # noqa: E402
from edgecv.methods.restructuring.harms import NUMBER, harms, switched  # noqa: E402
from edgecv.methods.restructuring.matching import matched, matches  # noqa: E402
from tests.methods.restructuring.test_activations import (  # noqa: E402
    Classifier,
    Detector,
    exported,
    images,
)
from tests.methods.restructuring.test_matching import Joined  # noqa: E402

NETWORKS = {"joined": Joined, "detector": Detector, "classifier": Classifier}


@pytest.fixture(params=NETWORKS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> onnx.ModelProto:
    return exported(NETWORKS[request.param](), tmp_path)


@pytest.mark.parametrize("into", ["hardswish", "relu6", "relu"])
def test_each_is_what_that_one_alone_does(model: onnx.ModelProto, into: str) -> None:
    found, some = places(model, into), images(3, seed=1)
    known = matches(model, found, into, images(8))
    harm = harms(model, found, into, known, some)
    answers = Answers(model, some)
    assert list(harm) == [place.tensor for place in found]
    for place in found:
        alone, _ = matched(model, [place], into, known)
        assert harm[place.tensor] == pytest.approx(answers.error(alone), rel=1e-3)


def test_what_replaces_nothing_answers_as_before(model: onnx.ModelProto) -> None:
    found = places(model, "relu")
    made = switched(model, found, "relu", {})
    onnx.checker.check_model(made)
    (image,) = images(1)
    name = model.graph.input[0].name
    before = runner(model)(image)
    after = runner(made)({name: image[None], NUMBER: np.array(-1)})
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gelu_by_its_parts_keeps_its_inner_tensors(tmp_path: Path) -> None:
    model = exported(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), nn.Conv2d(4, 2, 1)), tmp_path)
    (place,) = places(model, "hardswish")
    known = matches(model, [place], "hardswish", images(8))
    assert 0 < harms(model, [place], "hardswish", known, images(2))[place.tensor] < 0.1
