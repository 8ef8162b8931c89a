"""What a bundle's manifest.json must say: every key by type and range, and no part against another.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from edgecv import tasks
from edgecv.backends import ENGINES
from edgecv.errors import DataError
from edgecv.runtime.fidelity import KINDS, width
from edgecv.runtime.placement import PLACES, RESIZES
from edgecv.runtime.preprocess import COLORS, DTYPES, LAYOUTS, MOST_CHANNELS, Preprocess
from edgecv.runtime.resample import INTERPOLATIONS
from edgecv.runtime.shape import NUMBER, Every, Number, Only, Text, whole, wrong
from edgecv.runtime.spec import TensorSpec

NAME = Text(1000)
LINE = Text(100_000)
COUNT = whole(0, 1 << 40)
ELEMENTS = 1 << 31  # of one tensor: what an int32 index reaches
SCALE = Number(1e-30, 1e30)
TENSOR = Only({
    "name": NAME,
    "dtype": Text(among=("float16", "float32", "float64", "int8", "uint8", "int16", "uint16",
                         "int32", "uint32", "int64", "uint64", "bool")),
    "shape": Every(list, whole(1, ELEMENTS)),
    "layout?": Text(among=(*LAYOUTS, "NC")),
    "kind?": Text(among=KINDS),
    "groups?": Every(list, COUNT),
    "bounds?": Every(list, Number(0, 1e30)),
    "scale?": SCALE,
    "zero_point?": whole(-(1 << 31), 1 << 31),
})  # fmt: skip
PIXEL = Number(-1e9, 1e9)
PREPROCESS = Only({
    "size": [whole(1, 1 << 16), whole(1, 1 << 16)],
    "channels": whole(1, MOST_CHANNELS),
    "mean": Every(list, PIXEL),
    "std": Every(list, PIXEL),
    "crop_pct?": Number(0.05, 1),
    "interpolation?": Text(among=tuple(INTERPOLATIONS)),
    "resize?": Text(among=RESIZES),
    "pad_value?": whole(0, 255),
    "pad_at?": Text(among=PLACES),
    "color?": Text(among=COLORS),
    "layout?": Text(among=LAYOUTS),
    "dtype?": Text(among=DTYPES),
    "scale?": SCALE,
    "zero_point?": whole(-255, 255),
})  # fmt: skip
METRIC = {
    "name?": NAME,
    "value": Number(0, 1),
    "samples": whole(0, 1 << 40),
    "images?": NAME,
}
SHAPE = {
    **dict.fromkeys(("edgecv", "name", "target", "precision"), NAME),
    "task?": Text(among=tasks.names()),
    "decode?": dict,
    "engine": Text(among=ENGINES),
    "input?": {"name": NAME, "preprocess": PREPROCESS},
    "graph?": {"inputs": Every(list, TENSOR), "outputs": Every(list, TENSOR)},
    "inputs": Every(list, TENSOR),
    "outputs": Every(list, TENSOR),
    "scores?": Text(among=("logits", "probabilities")),
    "labels?": Every(list, LINE),
    "metric?": METRIC,
    "golden?": {"repeat": whole(1, 1 << 16)},
    "executed?": Every(dict, COUNT),
    "compiled?": bool,
    "notes?": Every(list, LINE),
    "tools?": Every(dict, (str, type(None))),
    "recipe_digest?": NAME,
    "model_digest?": NAME,
    "grid?": dict,
    "keep_float?": Every(list, str),
    "parity?": dict,
    "files": Every(list, NAME),
    "size_bytes?": COUNT,
    "members": Every(dict, Text(64)),
}

Tensors = tuple[TensorSpec, ...]
# Of a network that takes no image: nobody uses it.
NO_IMAGE = Preprocess((1, 1), 1, (0.0,), (1.0,))


class Read(NamedTuple):
    """graph: the inputs and outputs by the graph's own names, in its own layout; empty where the
    manifest does not tell."""

    preprocess: Preprocess
    inputs: Tensors
    outputs: Tensors
    graph: tuple[Tensors, Tensors]


def read(manifest: Mapping[str, Any]) -> Read:
    """What a manifest says of preprocessing and tensors. Raises ValueError, which says what is
    wrong."""
    if problem := wrong(manifest, SHAPE):
        raise ValueError(problem)
    tasks.of_manifest(manifest)
    preprocess = NO_IMAGE
    if image := manifest.get("input"):
        try:
            preprocess = Preprocess.from_json(image["preprocess"])
        except DataError as e:
            raise ValueError(f"input.{e.where}: {e.what} ({e.hint})") from None
    inputs, outputs = _ends(manifest, "")
    graph = _ends(manifest["graph"], "graph.") if manifest.get("graph") else ((), ())
    _agree(manifest, preprocess, inputs, outputs)
    return Read(preprocess, inputs, outputs, graph)


def _ends(listed: Mapping[str, Any], where: str) -> tuple[Tensors, Tensors]:
    inputs, outputs = (
        tuple(TensorSpec.from_json(t) for t in listed[key]) for key in ("inputs", "outputs")
    )
    for key, tensors in (("inputs", inputs), ("outputs", outputs)):
        _tensors(where + key, tensors)
    return inputs, outputs


def _tensors(key: str, tensors: Tensors) -> None:
    if not tensors:
        raise ValueError(f"{key} are none")
    if len({t.name for t in tensors}) < len(tensors):
        raise ValueError(f"{key} have one name twice")
    for tensor in tensors:
        if prod(tensor.shape) > ELEMENTS or len(tensor.shape) > 16:
            raise ValueError(f"tensor {tensor.name!r} is too large")
        if tensor.groups and not _parted(tensor):
            raise ValueError(f"tensor {tensor.name!r} {tensor.shape} has groups {tensor.groups}")
        if tensor.bounds and len(tensor.bounds) != len(tensor.groups or ()) - 2:
            raise ValueError(f"tensor {tensor.name!r} has bounds {tensor.bounds} of other groups")


def _parted(tensor: TensorSpec) -> bool:
    """Whether its groups are parts of one of its axes, batch and channels first."""
    axis, *ends = tensor.groups or (0,)
    n, *rest = tensor.shape
    last = tensor.layout == "NHWC" and len(rest) == 3
    shape = (n, rest[-1], *rest[:-1]) if last else tensor.shape
    grows = all(a < b for a, b in pairwise(ends))
    return 0 < axis < len(shape) and len(ends) > 2 and grows and (ends[0], ends[-1]) == (
        0, shape[axis],
    )  # fmt: skip


def _agree(
    manifest: Mapping[str, Any], preprocess: Preprocess, inputs: Tensors, outputs: Tensors
) -> None:
    """Raises ValueError where two parts of a manifest contradict each other."""
    if manifest.get("input"):
        _agree_on_image(manifest["input"]["name"], preprocess, inputs)
    files = manifest["files"]
    plain = all(n not in ("", ".", "..") and n.isprintable() and not set(n) & set("/\\")
                for n in files)  # fmt: skip
    if not files or not plain or len(set(files)) < len(files):
        raise ValueError(f"files {files[:4]!r:.80} are not base names")
    classes = width(outputs[0])
    row = manifest.get("task", "classification") == "classification"  # of others a task knows
    if row and (labels := manifest.get("labels")) is not None and len(labels) != classes:
        raise ValueError(f"{len(labels)} labels for {classes} classes")


def _agree_on_image(name: str, preprocess: Preprocess, inputs: Tensors) -> None:
    image = next((spec for spec in inputs if spec.name == name), None)
    if image is None:
        raise ValueError(f"input.name {name!r} is not among the inputs")
    h, w, c = (*preprocess.size, preprocess.channels)
    shape = (c, h, w) if preprocess.layout == "NCHW" else (h, w, c)
    if (image.shape[1:], image.dtype) != (shape, preprocess.dtype):
        made = f"{preprocess.dtype} {(*image.shape[:1], *shape)}"
        raise ValueError(f"input {image.name!r} is {image.dtype} {image.shape}, its images {made}")


__all__ = ["METRIC", "NUMBER", "SHAPE", "read"]
