"""Bundles that were damaged or made on purpose: each is read and shown, or refused in a sentence.

    python benchmarks/fuzz_bundles.py [--count 10000] [--seed 0]

Made from real bundles of small networks (a classifier, two detectors, a segmentation network):
bytes of the file changed; or bytes of a member, values of the manifest, the header of an array,
where the ONNX file's tensors lie, and the digests made right again, so that what lies behind the
SHA-256 is met too. What counts is in `fuzzing.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fuzzing import changed_bytes, changed_json, main
from onnx import TensorProto, helper, numpy_helper

from edgecv.backends.onnxruntime.run import Session
from edgecv.commands.inspect import describe
from edgecv.errors import EngineError
from edgecv.runtime.archive import read_bundle, write_bundle
from edgecv.runtime.bundle import opened
from edgecv.runtime.preprocess import Preprocess
from edgecv.terminal import printable
from edgecv.text_table import lines

SIZE, CLASSES = 8, 5
EVERY = 20  # of so many bundles that can be read, one is opened and run, in ONNX Runtime
HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 8589934592)}",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 3, 8, 8)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "{'descr': '|S1000000000', 'fortran_order': False, 'shape': (3,)}",
    "{'descr': [('a', '<f4', (1000000,))], 'fortran_order': False, 'shape': ()}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3, 8, 8)}",
    "(" * 3000, "[" * 9000, "{'a': " * 1500, "__import__('os').getcwd()", "", "1e999", "'\\ud800'",
)  # fmt: skip


def mapping(channels: int, stride: int) -> bytes:
    """ONNX: one convolution, a map (1, channels, SIZE / stride, SIZE / stride)."""
    weight = np.random.default_rng(1).normal(size=(channels, 3, stride, stride))
    node = helper.make_node("Conv", ["image", "w"], ["map"], strides=[stride, stride])
    ends = [("image", [1, 3, SIZE, SIZE]), ("map", [1, channels, *[SIZE // stride] * 2])]
    tensors = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in ends]
    held = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    graph = helper.make_graph([node], "map", *tensors, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def network() -> bytes:
    """ONNX: conv 3x3 -> ReLU -> global average -> dense."""
    rng = np.random.default_rng(7)
    shapes = {"w": (4, 3, 3, 3), "d": (CLASSES, 4), "b": (CLASSES,)}
    constants = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "d", "b"], ["scores"], transB=1),
    ]
    ends = [("image", [1, 3, SIZE, SIZE]), ("scores", [1, CLASSES])]
    tensors = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in ends]
    graph = helper.make_graph(nodes, "small", *tensors, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


DETECTOR = {"decoder": "yolox", "input": [SIZE, SIZE], "strides": [4], "confidence": 0.1}
YOLOV5 = {
    "decoder": "yolov5", "input": [SIZE, SIZE], "strides": [4],
    "anchors": [[[2, 3], [4, 4]]], "iou": 0.6, "max_detections": 5,
}  # fmt: skip
# What a bundle is of: the network, its classes, and what its manifest says of the task.
KINDS: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "classification": (network(), CLASSES, {"scores": "logits"}),
    "detection": (mapping(5 + CLASSES, 4), CLASSES, {"decode": DETECTOR}),
    "anchors": (mapping(2 * (5 + CLASSES), 4), CLASSES, {"task": "detection", "decode": YOLOV5}),
    "segmentation": (mapping(CLASSES, 2), CLASSES, {
        "decode": {"input": [SIZE, SIZE], "output": "map"}}),
}  # fmt: skip


@cache
def base(kind: str = "classification") -> dict[str, bytes]:
    """The members of a bundle with golden arrays and what each image adds to its metric."""
    content, classes, said = KINDS[kind]
    session = Session({"model.onnx": content})
    eyes = Preprocess((SIZE, SIZE), 3, (127.0,), (64.0,), 1.0)
    rng = np.random.default_rng(3)
    inputs = eyes.normalise(rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8))
    (answers,) = (spec.name for spec in session.outputs)
    rows = [session.run({"image": inputs[i : i + 1]})[answers] for i in range(3)]
    right = np.arange(13) % 3 > 0
    manifest = {
        "name": "small", "task": kind, "target": "cpu", "engine": "onnxruntime",
        "precision": "fp32", "input": {"name": "image", "preprocess": eyes.to_json()},
        "inputs": [t.to_json() for t in session.inputs],
        "outputs": [t.to_json() for t in session.outputs],
        "labels": ["ant", "bee", "cat", "dog", "eel"][:classes], "notes": ["a note"],
        "metric": {"name": "top1", "value": float(right.mean()), "samples": 13, "images": "0f"},
        "executed": {"fp32": 2}, "compiled": True, "tools": {"onnxruntime": "1"}, **said,
    }  # fmt: skip
    by_image = {} if kind == "classification" else {"ends": np.arange(13), "found": np.ones((4, 2))}
    with tempfile.TemporaryDirectory() as room:
        path = write_bundle(
            Path(room) / "small.edgecv", manifest, {"model.onnx": content}, {"image": inputs},
            {answers: np.concatenate(rows)}, None if by_image else right, parts=by_image,
        )  # fmt: skip
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], signed: bool = True, **how: Any) -> bytes:
    """A bundle of the members; signed: with digests that are right."""
    if signed:
        with contextlib.suppress(KeyError, ValueError, TypeError, AttributeError):
            manifest = json.loads(members["manifest.json"])
            known = {n: sha256(d).hexdigest() for n, d in members.items() if n != "manifest.json"}
            if isinstance(manifest.get("members"), dict):
                manifest["members"] = known
                members = {**members, "manifest.json": json.dumps(manifest).encode()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **how) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return file.getvalue()


def cases(seed: int, count: int) -> Iterator[bytes]:
    """`count` bundles as bytes; the same for the same seed."""
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        members = dict(base(rng.choice(list(KINDS))))
        whole = packed(members)
        kind = rng.choice(("file", "member", "json", "json", "json", "text", "npy", "onnx", "zip"))
        if kind == "file":
            yield changed_bytes(rng, whole)
            continue
        if kind == "member":
            name = rng.choice(list(members))
            members[name] = changed_bytes(rng, members[name])
        elif kind == "json":
            manifest = json.loads(members["manifest.json"])
            if "decode" in manifest and rng.random() < 0.5:
                _decode(rng, manifest)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                changed_json(rng, manifest)
            members["manifest.json"] = json.dumps(manifest).encode()
        elif kind == "text":
            members["manifest.json"] = changed_bytes(rng, members["manifest.json"])
        elif kind == "npy":
            _array(rng, members)
        elif kind == "onnx":
            members["engine/model.onnx"] = _outside(rng, members["engine/model.onnx"])
        yield _zipped(rng, members) if kind == "zip" else packed(members)


# What a field may be, and what stands there else.
FIELDS: dict[str, tuple[Any, ...]] = {
    "decoder": ("yolox", "yolov5", "yolov8", "fastestdet", "ssd", "retinaface", "detr", "end2end",
                "suppressed", "centernet", "ultraface"),
    "input": ([8, 8], [16, 8], [1 << 16, 1 << 16]), "outputs": ([], ["map"], ["map", "map"], ["x"]),
    "strides": ([4], [2], [8, 4], [4.0], [1e-3]), "anchors": ([], [[[2, 3]]], [[[2, 3]] * 9]),
    "priors": ([], [[0.1, 0.1, 0.2, 0.2]] * 4, [[2, 3, 4, 5]]), "confidence": (0, 0.5, 1),
    "iou": (0, 0.3, 1), "max_detections": (1, 5, 1 << 40), "agnostic": (True, False),
    "form": ("", "xyxy", "cxcywh", "yxyx", "cycxhw"), "unit": ("", "pixels", "relative"),
    "decoded": (None, True, False), "activation": ("", "none", "sigmoid", "softmax"),
    "background": (None, 0, -1), "nms": ("runtime", "graph"), "variances": ([0.1, 0.2], [9, 1e4]),
}  # fmt: skip
OF_MAPS: dict[str, tuple[Any, ...]] = {
    "input": ([8, 8], [16, 8], [1 << 16, 3]), "output": ("", "map", "x"),
    "holds": ("scores", "logit", "probability", "indices"),
}  # fmt: skip
ODD = (-1, 0, 0.5, 1e-9, 1e308, 1 << 40, True, None, "", "x", [], [[]], [4], [None], {"a": 1})


def _decode(rng: random.Random, manifest: dict[str, Any]) -> None:
    """How outputs are read, otherwise: by fields and values that it may have."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        own = OF_MAPS if manifest["task"] == "segmentation" else FIELDS
        field = rng.choice(list(own)) if rng.random() < 0.95 else "other"
        likely = own.get(field, ODD) if rng.random() < 0.8 else ODD
        manifest["decode"][field] = rng.choice(likely)


def _array(rng: random.Random, members: dict[str, bytes]) -> None:
    """Another header before a golden array's bytes, as long as it says."""
    name = rng.choice([n for n in members if n.endswith(".npy")])
    text = rng.choice(HEADERS).encode() + b"\n"
    size = len(text) if rng.random() < 0.9 else rng.choice((0, 65535, 1))
    members[name] = b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text + members[name][80:]


def _outside(rng: random.Random, content: bytes) -> bytes:
    """A tensor whose values are in another file."""
    model = onnx.load_model_from_string(content)
    tensor = rng.choice(list(model.graph.initializer))
    tensor.data_location = TensorProto.EXTERNAL
    keys = {"location": rng.choice(("/etc/passwd", "../x", "model.bin", "")), "offset": "0"}
    for key, value in keys.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


def _zipped(rng: random.Random, members: dict[str, bytes]) -> bytes:
    """Members under other names, compressed, too many, or bombs."""
    how = rng.randrange(5)
    if how == 0:
        members = {**members, "engine/zeros": bytes(rng.choice((1 << 20, 8 << 20)))}
        return packed(members, compression=zipfile.ZIP_DEFLATED)
    if how == 1:
        name = rng.choice(("../x", "/etc/x", "engine/../../x", "C:\\x", "a" * 5000, "\x1b[31m", ""))
        return packed({**members, name: b"x"})
    if how == 2:
        return packed({**members, **{f"engine/{i}": b"" for i in range(rng.choice((10, 3000)))}})
    if how == 3:
        del members[rng.choice(list(members))]
        return packed(members, rng.random() < 0.5)
    deep = rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"{}," * 2_000_000 + b"{}]"))
    return packed({**members, "manifest.json": deep}, signed=False)


def check(case: bytes) -> None:
    """Reads one and writes it out as `edgecv inspect` does, and runs some of those that can be.
    Raises EdgecvError for what is refused; anything else is a fault."""
    with tempfile.TemporaryDirectory(prefix="edgecv-fuzz-") as room:
        path = Path(room) / "small.edgecv"
        path.write_bytes(case)
        contents = read_bundle(path)
        for key, value in describe(contents).items():
            printable(f"{key}: {value}").encode()
        lines(["member"], [[name] for name in contents.files])
        if sha256(case).digest()[0] % EVERY or contents.manifest["engine"] != "onnxruntime":
            return
        try:
            bundle = opened(contents)
        except EngineError:  # in the engine's own words, of a file that is none
            return
        size = (*contents.preprocess.size, contents.preprocess.channels)
        bundle(np.random.default_rng(0).integers(0, 256, size, np.uint8))
        bundle.close()


if __name__ == "__main__":
    raise SystemExit(main(cases, check, 10000))
