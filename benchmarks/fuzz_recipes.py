"""Recipes with mistakes of every kind: each is read and planned, or refused in a sentence.

    python benchmarks/fuzz_recipes.py [--count 5000] [--seed 0]

Made from edgecv's own recipes: bytes changed, lines moved, values and keys replaced by what people
and attackers write, mappings taken apart. What counts is in `fuzzing.py`.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from fuzzing import changed_bytes, main

from edgecv.plan import pipeline, recipe
from edgecv.plan.store import Store

SOURCE, BOXES = "fashion-mnist-sample", "shapes-boxes:8"
BASE = """model: {zoo: resnet8, width: 8}
data: {train: SOURCE, test: SOURCE, size: 28, mean: [0.5], std: [0.5]}
seed: 3
threads: 1
bench: {rounds: 3, budget_s: 0.5}
stages:
  - train: {name: dense, epochs: 2, batch_size: 64, lr: 0.1}
  - prune: {ratio: 0.3, method: l1, finetune_epochs: 1}
  - lowrank: {from: dense, energy: 0.9}
  - sparsify: {from: dense, sparsity: 0.5}
  - qat: {from: dense, epochs: 1}
  - distill: {name: small, teacher: dense, student: {zoo: resnet8, width: 4}}
  - quantize: {from: dense, precision: int8, samples: 16}
targets: [cpu, openvino]
"""
TASKS = """model: {zoo: tiny_detector, width: 16, classes: 3}
task: {name: detection, decoder: yolox, strides: [8, 16], confidence: 0.3, iou: 0.5, nms: runtime,
       max_detections: 20, agnostic: true, anchors: [[[8, 8]], [[16, 16]]], priors: [[1, 1, 2, 2]]}
data: {train: SOURCE, test: SOURCE, size: 64, resize: letterbox, mean: [0.0], std: [1.0]}
seed: 3
bench: {rounds: 3, budget_s: 0.5}
stages:
  - train: {name: dense, epochs: 2, batch_size: 8, lr: 0.01, mosaic: 0.5, scale: 0.2}
  - prune: {ratio: 0.3, finetune_epochs: 1}
  - quantize: {precision: int8, samples: 16, accuracy_drop: 2}
targets: [cpu, openvino, tflite]
"""
# What stands where something else was expected.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", " ", "x", "x" * 5000, "é模型", "a\nb", "\x1b[31m", "*", "&a", "!!x", "<<", "=", "~"),
    *("os:system", "subprocess:run", "json:loads", ":", "a:b:c", "zoo:", "net.onnx", "no.onnx"),
    *(
        "detection",
        "segmentation",
        "graph",
        "yolov5",
        "masks:no",
        "coco:no.json",
        "yolo:no",
        "voc:",
    ),
    *("model", "dense", "self", "none", "cpu", "../..", "a" * 300, "npz:", "npz:no.npz", "~nobody"),
    *("imagefolder:no", "synthetic:0", "synthetic:4", "parted:no", "images:no", "on", "2001-13-40"),
    *([], [[]], {}, {"a": 1}, [1, 2, 3], ["cpu"] * 50, {"zoo": []}, {"module": "os:system"}),
)
TEXTS = (
    *("a: &a [*a]\n", "a: &a [x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b]\n", "targets: [cpu]\n"),
    *("? [a]\n: b\n", "!!python/object/apply:os.system [x]\n", "%YAML 1.1\n---\n", "--- x\n"),
    *(
        "[" * 300,
        "{a: " * 300,
        "\t- a\n",
        "'",
        '"',
        "|\n x",
        ">-\n",
        "#",
        "\x00",
        "\ufeff",
        "<<: 1",
    ),
    "\n".join(["x0: &x0 [y, y]"] + [f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]" for i in range(1, 40)]),
)


def bases() -> list[str]:
    found = [BASE.replace("SOURCE", SOURCE), *[TASKS.replace("SOURCE", BOXES)] * 4]
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not data["data"]["train"].startswith("shapes"):  # boxes and maps are made as they are
            data["data"] = {**data["data"], "train": SOURCE, "test": SOURCE}
        found.append(yaml.safe_dump(data, sort_keys=False))
    return found


def cases(seed: int, count: int) -> Iterator[bytes]:
    """`count` recipes as bytes; the same for the same seed."""
    made = bases()
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        text = rng.choice(made)
        how = rng.randrange(4)
        if how == 0:
            yield changed_bytes(rng, text.encode())
        elif how == 1:
            yield _lines(rng, text).encode("utf-8", "surrogatepass")
        else:
            data = yaml.safe_load(text)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                _change(rng, data)
            yield yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()


def _lines(rng: random.Random, text: str) -> str:
    """Lines twice, gone, moved, indented otherwise, or with other text between them."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        how = rng.randrange(5)
        if how == 0:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif how == 1 and len(lines) > 1:
            del lines[at]
        elif how == 2:
            lines[at] = " " * rng.randrange(4) + lines[at].lstrip()
        elif how == 3:
            lines.insert(at, rng.choice(TEXTS))
        else:
            lines[at] = lines[at].replace(": ", rng.choice((":", ": [", ": {", ": *", ": &x ")))
    return "".join(lines)


def _change(rng: random.Random, data: Any) -> None:
    """One value or key somewhere in it is another."""
    places = [(data, key) for key in data]
    for holder, key in places:
        inner = holder[key]
        if isinstance(inner, dict):
            places += [(inner, k) for k in inner]
        elif isinstance(inner, list):
            places += [(inner, k) for k in range(len(inner))]
    holder, key = rng.choice(places)
    how = rng.randrange(4)
    if how == 0 and isinstance(holder, dict):
        holder[rng.choice((f"{key}s", f"{key}"[:-1], "", "on", 1, None, "é"))] = holder.pop(key)
    elif how == 1 and len(holder) > 1:
        del holder[key]
    else:
        other = rng.choice(places)
        taken = other[0][other[1]] if how == 2 and other[1] in _keys(other[0]) else None
        holder[key] = copy.deepcopy(taken if taken is not None else rng.choice(VALUES))


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def check(case: bytes) -> None:
    """Reads and plans one. Raises EdgecvError for what is refused; anything else is a fault."""
    with tempfile.TemporaryDirectory(prefix="edgecv-fuzz-") as room:
        path = Path(room) / "recipe.yaml"
        path.write_bytes(case)
        pipeline.plan(recipe.load(path), Store(Path(room) / "store"))


if __name__ == "__main__":
    raise SystemExit(main(cases, check, 5000))
