"""The zoo: sizes as published, refusals, traceability, and Lite0's published weights."""

import hashlib
import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from edgecv import installation
from edgecv.backends.onnxruntime.run import Session
from edgecv.errors import MissingExtraError, ModelError
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.pruning import groups
from edgecv.models import zoo
from edgecv.models.edits import replay
from edgecv.models.zoo import blocks, efficientnet_lite, igc


def test_names_are_listed_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgecv.models import zoo; print(*zoo.names())\n"
        "try: zoo.build('resnet8')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.split() == zoo.names() == sorted(first.split())
    assert {"resnet8", "resnet20", "mobilenet_v2_small", "efficientnet_lite0"} < set(zoo.names())
    assert second.startswith("MissingExtraError")
    assert f"({installation.cure('compress', 'torch')})" in second


@pytest.mark.parametrize("name", zoo.names())
def test_defaults_give_a_network_that_runs(name):
    """Shapes alone, on the meta device: the largest has 144M weights."""
    defaults = zoo.arguments(name)
    with torch.device("meta"):
        model = zoo.build(name).eval()
        side = defaults.get("size", 64)
        y = model(torch.zeros(2, defaults["channels"], side, side))
    assert y.shape == _answered(name, defaults["classes"], side)


def _answered(name, classes, side):
    """The shape of two answers, by the task; of segmentation as large as the network leaves it."""
    cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
    return {
        "classification": (2, classes),
        "detection": (2, cells, 5 + classes),
        "segmentation": (2, classes, *(side // {"unet": 1, "fast_scnn": 8}.get(name, 1),) * 2),
    }[zoo.task(name)]


# One small network of every family, as a recipe could ask for it, and its side in pixels.
SMALL = {
    "densenet121": ({"width": 0.125, "stride": 8}, 24),
    "densenet_cifar": ({"depth": 10, "growth": 4}, 16),
    "efficientnet_lite1": ({"stride": 8}, 24),
    "fast_scnn": ({"width": 0.25}, 32),
    "igcv1": ({"width": 8, "groups": 4, "depth": 8}, 16),
    "igcv1_resnet18": ({"width": 4, "stride": 8}, 24),
    "igcv2": ({"width": 0.25, "stride": 8}, 24),
    "igcv3": ({"width": 0.25, "stride": 8}, 24),
    "lenet5": ({"width": 0.2, "size": 20}, 20),
    "lenet_300_100": ({"width": 0.1, "size": 12}, 12),
    "mobilenet_v1": ({"width": 0.25, "stride": 8}, 24),
    "mobilenet_v2": ({"width": 0.25, "stride": 8}, 24),
    "mobilenet_v2_small": ({"width": 4}, 16),
    "mobilenet_v3_large": ({"width": 0.25, "stride": 8}, 24),
    "mobilenet_v3_small": ({"width": 0.25, "stride": 8}, 24),
    "resnet18": ({"width": 0.125, "stride": 8}, 24),
    "resnet50": ({"width": 0.125, "stride": 8}, 24),
    "resnet8": ({"width": 8, "shortcut": "zeros"}, 16),
    "shufflenet_v2": ({"width": 0.25, "stride": 8}, 24),
    "tiny_detector": ({"width": 4}, 32),
    "unet": ({"width": 4, "depth": 2}, 16),
    "vgg16": ({"width": 0.125, "size": 32, "batch_norm": True}, 32),
    "vgg_cifar": ({"depth": 11, "width": 0.125}, 16),
    "vgg_small": ({"width": 8}, 16),
    "xception": ({"width": 0.1, "stride": 8}, 32),
}


def test_every_family_has_a_small_network_here():
    assert {zoo._place(name)[0] for name in SMALL} == {zoo._place(name)[0] for name in zoo.names()}


@pytest.mark.parametrize("name", SMALL)
def test_onnx_says_what_torch_says(name, tmp_path):
    """Trained statistics, or batch norm would be the identity; another class count and channels."""
    args, side = SMALL[name]
    torch.manual_seed(0)
    model = zoo.build(name, classes=5, channels=2, **args)
    x = torch.randn(4, 2, side, side)
    with torch.no_grad():
        model(x)
        model.eval()
        graph = export_onnx(model, x[:1], tmp_path)
        expected = model(x).numpy()
    session = Session({"model.onnx": graph.path.read_bytes()})
    output = session.outputs[0].name
    found = np.concatenate([session.run({"input": one[None]})[output] for one in x.numpy()])
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "xception"])
def test_stride_is_what_the_input_is_divided_by(name):
    model = zoo.build(name, width=0.125, stride=8).eval()
    seen = []
    last = model.stages if name == "resnet18" else model.last
    last.register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-1]))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert seen == [4]


def test_width_multiplies_channels_of_the_same_network():
    thin, wide = (zoo.build("mobilenet_v1", width=w) for w in (0.25, 0.5))
    assert [2 * m.out_channels for m in thin.modules() if isinstance(m, nn.Conv2d)] == [
        m.out_channels for m in wide.modules() if isinstance(m, nn.Conv2d)
    ]


def test_a_shuffle_and_its_inverse_are_the_identity():
    x = torch.arange(24.0).reshape(1, 12, 1, 2)
    there, back = blocks.ChannelShuffle(12, 3), blocks.ChannelShuffle(12, 4)
    assert there(x)[0, :4, 0, 0].tolist() == [0, 8, 16, 2]  # first of each group, second, ...
    assert torch.equal(back(there(x)), x)
    assert there.state_dict() == {}


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(8, 8, 4), (8, 16, 4), (12, 12, 3)])
def test_interleaved_groups_are_complementary(c_in, c_out, groups):
    """One path from every input to every output: with weights of 1, a sum counts its paths."""
    for block in (
        igc.interleaved(c_in, c_out, groups, kernel_size=1, padding=0),
        igc.sparse_pointwise(c_in, c_out, groups),
    ):
        for part in block.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.ones_(part.weight)
        paths = block(torch.eye(c_in).reshape(c_in, c_in, 1, 1)).reshape(c_in, c_out)
        assert torch.equal(paths, torch.ones(c_in, c_out))


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
        ("mobilenet_v2", {"width": "1"}, "width must be float, got '1'"),
        ("mobilenet_v2", {"width": 0}, "above 0 and at most 16.0, got 0.0"),
        ("mobilenet_v2", {"width": 64}, "above 0 and at most 16.0, got 64.0"),
        ("mobilenet_v2", {"stride": 12}, "stride 12 is no power of 2 up to 32"),
        ("mobilenet_v2", {"stride": 64}, "stride 64 is no power of 2 up to 32"),
        ("resnet20", {"shortcut": "none"}, "projection or zeros, got 'none'"),
        ("vgg_cifar", {"depth": 12}, "one of 11, 13, 16, 19, got 12"),
        ("vgg16", {"size": 28}, "size 28 is below 32"),
        ("densenet_cifar", {"depth": 41}, "6 n + 4, got 41"),
        ("igcv1", {"groups": 7}, "groups 7 does not divide width 48"),
        ("igcv1", {"depth": 21}, "3 n + 2, got 21"),
        ("lenet5", {"size": 12}, "size 12 is below 16"),
        ("unet", {"width": 1.5}, "width must be int, got 1.5"),
        ("unet", {"width": 4096, "depth": 9}, "2,097,152 channels at its deepest, at most 65,536"),
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
    absent = efficientnet_lite.Weights("no_such_package_at_all", "file", "")
    monkeypatch.setitem(efficientnet_lite.WEIGHTS, 0, absent)
    with pytest.raises(MissingExtraError, match=re.escape(installation.cure("zoo", ""))):
        zoo.build("efficientnet_lite0", pretrained=True)


def test_altered_weights_are_refused_unread(tmp_path, monkeypatch):
    """A file with another checksum never reaches torch.load."""
    (tmp_path / "weights.pth").write_bytes(b"not the weights")
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("torch.load was called"))
    weights = efficientnet_lite.WEIGHTS[0]
    with pytest.raises(ModelError) as caught:
        efficientnet_lite._imagenet_state(tmp_path / "weights.pth", weights)
    assert hashlib.sha256(b"not the weights").hexdigest()[:12] in str(caught.value)
    with pytest.raises(ModelError, match="no such file"):
        efficientnet_lite._imagenet_state(tmp_path / "absent.pth", weights)


# Logits of the published weights on a ramp, taken from PyPI's efficientnet-lite-pytorch 0.1.0. Both
# implementations gave the same bits on torch 2.13 CPU; 1e-4 is left for other builds.
GOLDEN = {
    0: (224, [0.26600018, 0.59058195, 1.71974349, 1.38394690], 701, 3.47019029),
    1: (240, [-0.09421279, -0.00960685, 1.63648653, 1.46268451], 701, 4.64422178),
    2: (260, [-0.14223555, 1.20913482, 0.82107782, 0.68469113], 437, 4.05392122),
}


@pytest.mark.parametrize("size", GOLDEN)
def test_golden_logits_of_the_published_weights(size):
    _needs_weights(size)
    model = zoo.build(f"efficientnet_lite{size}", pretrained=True).eval()
    side, expected, best, largest = GOLDEN[size]
    x = torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side)
    with torch.no_grad():
        y = model(x)[0]
    torch.testing.assert_close(y[:4], torch.tensor(expected), atol=1e-4, rtol=0)
    assert y.argmax() == best
    torch.testing.assert_close(y.max(), torch.tensor(largest), atol=1e-4, rtol=0)


def _needs_weights(size):
    package = efficientnet_lite.WEIGHTS[size].package
    if importlib.util.find_spec(package) is None:
        pytest.skip(
            f"{package.replace('_', '-')} is not installed ({installation.cure('zoo', package)})"
        )


def test_lite0_with_another_head_keeps_the_backbone():
    _needs_weights(0)
    whole = zoo.build("efficientnet_lite0", pretrained=True).state_dict()
    other = zoo.build("efficientnet_lite0", classes=5, pretrained=True).state_dict()
    assert other["head.weight"].shape == (5, 1280)
    assert all(torch.equal(whole[key], other[key]) for key in whole if not key.startswith("head."))


@pytest.mark.parametrize(
    ("name", "args", "divides"),
    [("tiny_detector", {}, 32), ("fast_scnn", {"width": 0.25}, 32), ("unet", {"depth": 3}, 8)],
)
def test_a_size_that_the_network_cannot_halve_is_refused(name, args, divides):
    model = zoo.build(name, **args).eval()
    with pytest.raises(ModelError, match=f"of 32x{divides // 2} has sides that {divides} does not"):
        model(torch.zeros(1, 3, 32, divides // 2))


def test_a_detector_says_in_eval_mode_what_its_loss_reads_in_train_mode():
    """One network, batch norm in eval mode both times: cells in order, scores after the sigmoid."""
    model = zoo.build("tiny_detector", width=4, classes=3).eval()
    nn.init.normal_(model.heads[1].classes.weight)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        answer = model(x)
        model.training = True
        levels = model(x)
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, 64 // s, 96 // s) for s in (8, 16, 32)
    ]
    rows = torch.cat([level.permute(0, 2, 3, 1).reshape(2, -1, 8) for level in levels], 1)
    torch.testing.assert_close(answer[..., :4], rows[..., :4])
    torch.testing.assert_close(answer[..., 4:], rows[..., 4:].sigmoid())


@pytest.mark.parametrize("name", ["tiny_detector", "unet", "fast_scnn"])
def test_half_of_the_channels_of_dense_outputs_can_go(name):
    """Every width can be halved, and what is left runs and answers the same shape."""
    args, side = SMALL[name]
    torch.manual_seed(0)
    model = zoo.build(name, **args)
    with torch.no_grad():
        model(torch.randn(4, 3, side, side))  # statistics that are no identity
    x = torch.randn(2, 3, side, side)
    found = groups.find(model.eval(), x[:1], name)
    kept = [torch.arange(group.width // 2) for group in found]
    before, weights = model(x).shape, sum(p.numel() for p in model.parameters())
    replay(model, groups.edit(model, found, kept, "half"))
    assert model(x).shape == before
    assert sum(p.numel() for p in model.parameters()) < 0.45 * weights
