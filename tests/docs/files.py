"""The files that the documentation's examples speak of, tiny: made in a second, of real content.

photos/ photo.jpg street.jpg     pictures of three colours, 40 to 60 pixels
images/train images/test         the same in folders by class; labelled/ is images/test
net.onnx                         a classifier of 32x32 that knows the three colours
mynet.py best.pt                 a network in PyTorch and a state dict of it
detector.onnx val.json           a detector of 64x64 with YOLOX's head, and boxes of photos/;
                                 yolox_nano.onnx and fastestdet.onnx are the same file
recipe.yaml                      a recipe for images/ and mynet.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"ant": (170, 90, 90), "bee": (90, 170, 90), "cat": (90, 90, 170)}
SIDE, WIDTH, STRIDES, BOXED = 32, 16, (8, 16, 32), 64

NETWORK = '''"""A small network of one\'s own."""

from torch import nn


def make(width=16, classes=3):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )
'''

RECIPE = """\
model: {module: mynet:make, width: 16}
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 32}
bench: {rounds: 4, burst_ms: 1, budget_s: 0.5}
stages:
  - train: {name: dense, epochs: 4, batch_size: 16}
  - prune: {name: small, ratio: 0.5, finetune_epochs: 1}
  - quantize: {name: small-int8}
targets: [cpu]
"""


def tiny(folder: Path) -> None:
    """Every file of the list above, in `folder`."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 10)):
        for name in COLOURS:
            _pictures(folder / "images" / split / name, name, count, rng)
    for name in COLOURS:
        _pictures(folder / "photos", name, 8, rng, prefix=f"{name}-")
    _pictures(folder / "labelled" / "ant", "ant", 4, rng)
    _pictures(folder / "labelled" / "bee", "bee", 4, rng)
    _pictures(folder / "labelled" / "cat", "cat", 4, rng)
    for name in ("photo", "street"):
        (folder / f"{name}.jpg").write_bytes((folder / "photos" / "ant-00.jpg").read_bytes())
    (folder / "names.txt").write_text("\n".join(COLOURS) + "\n")
    (folder / "mynet.py").write_text(NETWORK)
    (folder / "recipe.yaml").write_text(RECIPE)
    _classifier(folder)
    _checkpoint(folder / "best.pt")
    _detector(folder)


def names(folder: Path) -> dict[str, object]:
    """What docs/api.md takes for granted: a picture, a tensor, and bundles by their names."""
    import edgecv

    made = {
        "out/net-int8.cpu": "net-int8.cpu", "net-fp32.cpu": "net-int8.cpu", "fp32": "dense.cpu",
        "small": "small-int8.cpu", "smaller": "small-int8.cpu",
    }  # fmt: skip
    (folder / "out").mkdir(exist_ok=True)
    for name, source in made.items():
        (folder / f"{name}.edgecv").write_bytes((folder / f"{source}.edgecv").read_bytes())
    rng = np.random.default_rng(3)
    return {
        "edgecv": edgecv,
        "image": rng.integers(0, 255, (48, 64, 3), np.uint8),
        "x": np.zeros((1, 3, SIDE, SIDE), np.float32),
    }


def _pictures(
    folder: Path, kind: str, count: int, rng: np.random.Generator, prefix: str = ""
) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        size = (*rng.integers(40, 60, 2), 3)
        pixels = np.array(COLOURS[kind]) + rng.normal(0, 30, size)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
            folder / f"{prefix}{i:02}.jpg"
        )


def _model(nodes: list[Any], name: str, ends: list[tuple[str, list[int]]], held: Any) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in ends]
    constants = [numpy_helper.from_array(array, n) for n, array in held.items()]
    graph = helper.make_graph(nodes, name, values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _classifier(folder: Path) -> None:
    """Convolutions of random weights; the last layer solved for the photographs' colours."""
    import onnx
    from onnx import helper
    from onnxruntime import InferenceSession
    from PIL import Image

    rng = np.random.default_rng(1)
    held = {
        "conv1.weight": rng.normal(0, 0.3, (WIDTH, 3, 3, 3)).astype(np.float32),
        "conv2.weight": rng.normal(0, 0.1, (WIDTH, WIDTH, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight"], ["a"], "conv1", pads=[1] * 4,
                         strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "conv2.weight"], ["c"], "conv2", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["features"], "flatten"),
    ]  # fmt: skip
    image = ("image", [1, 3, SIDE, SIDE])
    body = _model(nodes, "net", [image, ("features", [1, WIDTH])], held)
    session = InferenceSession(body.SerializeToString())
    rows, wanted = [], []
    for path in sorted((folder / "photos").iterdir()):
        pixels = np.asarray(Image.open(path).resize((SIDE, SIDE)), np.float32) / 255
        rows.append(session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0][0])
        wanted.append(4.0 * (np.array(list(COLOURS)) == path.name.partition("-")[0]))
    design = np.column_stack([rows, np.ones(len(rows))])
    solved = np.linalg.lstsq(design, np.array(wanted), rcond=1e-4)[0].astype(np.float32)
    held |= {"fc.weight": solved[:-1].copy(), "fc.bias": solved[-1].copy()}
    nodes.append(helper.make_node("Gemm", ["features", "fc.weight", "fc.bias"], ["scores"], "fc"))
    onnx.save(_model(nodes, "net", [image, ("scores", [1, 3])], held), folder / "net.onnx")


def _checkpoint(path: Path) -> None:
    """What a training loop leaves: a state dict of mynet:make."""
    import torch

    torch.manual_seed(0)
    space: dict[str, Any] = {}
    exec(NETWORK, space)
    torch.save({"epoch": 20, "model": space["make"]().state_dict()}, path)


def _detector(folder: Path) -> None:
    """Three strides, one 1x1 head each, as YOLOX joins them: (1, 84, 5 + 2), boxes not decoded."""
    import onnx
    from onnx import helper

    rng = np.random.default_rng(2)
    held: dict[str, Any] = {"rows": np.array([1, 7, -1])}
    nodes, before, channels, joined = [], "images", 3, []
    for level, stride in enumerate((2, 2, 2, 2, 2)):
        kernel = rng.normal(0, 0.25, (8, channels, 3, 3)).astype(np.float32)
        held[f"stage{level}.weight"] = kernel
        nodes += [
            helper.make_node("Conv", [before, f"stage{level}.weight"], [f"c{level}"],
                             f"stage{level}", pads=[1] * 4, strides=[stride] * 2),
            helper.make_node("Relu", [f"c{level}"], [f"r{level}"], f"relu{level}"),
        ]  # fmt: skip
        before, channels = f"r{level}", 8
        if 2 ** (level + 1) not in STRIDES:
            continue
        boxes, scores = f"boxes{level}", f"scores{level}"
        for head, rows, spread in ((boxes, 4, 0.1), (scores, 3, 0.5)):
            held[f"{head}.weight"] = rng.normal(0, spread, (rows, 8, 1, 1)).astype(np.float32)
            nodes.append(helper.make_node("Conv", [before, f"{head}.weight"], [head], head))
        nodes += [
            helper.make_node("Sigmoid", [scores], [f"p{level}"], f"sigmoid{level}"),
            helper.make_node("Concat", [boxes, f"p{level}"], [f"m{level}"], f"join{level}", axis=1),
            helper.make_node("Reshape", [f"m{level}", "rows"], [f"l{level}"], f"rows{level}"),
        ]
        joined.append(f"l{level}")
    nodes += [
        helper.make_node("Concat", joined, ["all"], "join", axis=2),
        helper.make_node("Transpose", ["all"], ["output"], "last", perm=[0, 2, 1]),
    ]
    cells = sum((BOXED // s) ** 2 for s in STRIDES)
    ends = [("images", [1, 3, BOXED, BOXED]), ("output", [1, cells, 7])]
    for name in ("detector", "yolox_nano", "fastestdet"):
        onnx.save(_model(nodes, name, ends, held), folder / f"{name}.onnx")
    _boxes(folder)


def _boxes(folder: Path) -> None:
    from PIL import Image

    images, marks = [], []
    for n, path in enumerate(sorted((folder / "photos").iterdir())):
        with Image.open(path) as picture:
            width, height = picture.size
        images.append(
            {"id": n, "file_name": f"photos/{path.name}", "height": height, "width": width}
        )
        marks.append({"id": n, "image_id": n, "category_id": n % 2, "bbox": [4, 4, 24, 20],
                      "area": 480, "iscrowd": 0})  # fmt: skip
    kinds = [{"id": 0, "name": "cup"}, {"id": 1, "name": "shoe"}]
    said = {"images": images, "annotations": marks, "categories": kinds}
    (folder / "val.json").write_text(json.dumps(said))
