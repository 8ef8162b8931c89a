"""A program of torch.export (.pt2), made harmless before torch.export.load opens it.

torch.export.load is no safe reader of other people's files: it unpickles sample inputs and opaque
constants as code, runs the guards in the archive as Python, evaluates size expressions as Python,
resolves operators by any name below `torch`, and loads compiled libraries that lie in the archive.
None of that is needed for the graph. So the archive is written anew: the graph (JSON) with
operators of ATen only, plain names, and sizes that are sums and products; weights as raw numbers;
and no guards, no sample inputs, no pickles, no libraries. What cannot be had so is refused.

Without its guards a program takes sizes that it was not exported for; what comes of it is compared
(`convert.py`), and its own sizes are taken (`shapes`).
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgecv.errors import ModelError, UnsupportedError, one_line
from edgecv.models.torchfiles import archive

GRAPH = "models/model.json"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
PLAIN_FILES: tuple[str, ...] = (
    "archive_format", "archive_version", "byteorder", "version", ".data/version",
)  # fmt: skip
PLAIN = re.compile(r"[\w.]*", re.ASCII)
OPERATOR = re.compile(r"torch\.ops\.aten\.(?!save|from_file)\w+(\.\w+)?", re.ASCII)
PYTHON = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite)"
    r"|torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
)
SIZES = re.compile(r"[\w\s+\-*/(),.<>=&|~']*", re.ASCII)
WORDS = re.compile(
    r"(s|u|zuf)\d+|Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|FloorDiv|Mod|PythonMod|CeilDiv"
    r"|Eq|Ne|Gt|Ge|Lt|Le|True|False|int_oo|positive|integer|nonnegative|\d[\d.]*"
)
# Text that is data: compared, or handed to operators.
DATA = ("torch_version", "as_string")


def load(path: Path) -> torch.export.ExportedProgram:
    """The program in a file.

    Raises ModelError: damaged, of a format before PyTorch 2.9; UnsupportedError: an operator that
    is not ATen's, objects or pickled tensors among its constants.
    """
    where = path.name
    found = archive.members(path)
    files = _harmless(found, where)
    made = archive.written(files)
    logging.disable(logging.CRITICAL)  # torch logs what the exception says
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(made)
    except Exception as e:  # of any kind, where a field is not what the reader takes for granted
        why = one_line(e, 160)
        what = f"PyTorch {torch.__version__} cannot load it: {why}"
        raise ModelError(where, what, "save it again with torch.export.save") from None
    finally:
        logging.disable(logging.NOTSET)


def _harmless(found: dict[str, bytes], where: str) -> dict[str, bytes]:
    graph = _json(found, GRAPH, where)
    configs = {name: _json(found, name, where) for name in CONFIGS}
    for node in _nodes(graph):
        node["metadata"] = {}
    graph["guards_code"] = []
    for data in (graph, *configs.values()):
        for what in _wrong(data):
            raise UnsupportedError(where, what, "export the network to ONNX instead")
    for config in configs.values():
        for name, item in config["config"].items():
            kind = str(item.get("path_name", "")).rpartition("_")[0]
            if item.get("use_pickle") and kind not in ("weight", "tensor"):
                what = f"holds an object, {name!r}, and not tensors alone"
                raise UnsupportedError(where, what, "export plain layers")
            if item.get("use_pickle") or kind not in ("weight", "tensor"):
                what = f"its {name!r} is pickled: code, which is never loaded"
                raise UnsupportedError(where, what, "save it again with torch.export.save")
    raw = {n: d for n, d in found.items()
           if re.fullmatch(r"data/(weights/weight|constants/tensor)_\d+", n)}  # fmt: skip
    plain = {n: found[n] for n in PLAIN_FILES if n in found}
    texts = {name: json.dumps(data).encode() for name, data in {**configs, GRAPH: graph}.items()}
    return {**plain, **raw, **texts, "data/sample_inputs/model.pt": b""}


def _json(found: dict[str, bytes], name: str, where: str) -> Any:
    if name not in found:
        what = f"has no {name}: of another format than PyTorch {torch.__version__} writes"
        raise ModelError(where, what, "save it again with torch.export.save")
    try:
        data = json.loads(found[name])
        inner = data["config"] if name in CONFIGS else {"": data["graph_module"]}
        if not all(isinstance(value, dict) for value in inner.values()):
            raise ValueError("not a mapping")
        return data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(where, f"is damaged: {name} is no JSON", "copy it again") from None


def _nodes(data: Any) -> Iterator[dict[str, Any]]:
    """Every node of the graph and of graphs inside it."""
    if isinstance(data, dict):
        if "target" in data and "metadata" in data:
            yield data
        data = list(data.values())
    for item in data if isinstance(data, list) else ():
        yield from _nodes(item)


def _wrong(data: Any, key: str = "") -> Iterator[str]:
    """What in a JSON value is more than names, numbers, ATen's operators and sizes."""
    if isinstance(data, dict):
        for name, value in data.items():
            if not (PLAIN.fullmatch(name) or _is_size(name)):
                yield f"holds a name that is none: {name[:40]!r}"
            yield from _wrong(value, name)
    elif isinstance(data, list):
        for value in data:
            yield from _wrong(value, key)
    elif isinstance(data, str):
        if key == "target":
            if not (OPERATOR.fullmatch(data) or PYTHON.fullmatch(data)):
                yield f"needs {data[:60]!r}, which is no operator of ATen's"
        elif key == "expr_str":
            if not _is_size(data):
                yield f"has a size that is no sum or product: {data[:40]!r}"
        elif key in ("in_spec", "out_spec"):
            if "__" in data:  # classes of Python's by their names
                yield "returns containers of a kind of its own"
        elif key not in DATA and not PLAIN.fullmatch(data):
            yield f"holds text where a name stands: {data[:40]!r}"


def _is_size(text: str) -> bool:
    words = re.findall(r"[A-Za-z_0-9.]+", text)
    return bool(SIZES.fullmatch(text)) and all(WORDS.fullmatch(word) for word in words)


def shapes(path: Path) -> dict[str, tuple[int | None, ...]]:
    """The inputs' shapes by name, None where a size is open. Only JSON is read."""
    where = path.name
    graph = _json(archive.members(path), GRAPH, where)
    try:
        module = graph["graph_module"]
        values, found = module["graph"]["tensor_values"], {}
        for spec in module["signature"]["input_specs"]:
            if "user_input" in spec and "as_tensor" in spec["user_input"]["arg"]:
                name = spec["user_input"]["arg"]["as_tensor"]["name"]
                found[str(name)] = tuple(size.get("as_int") for size in values[name]["sizes"])
        return found
    except (KeyError, TypeError, AttributeError):
        raise ModelError(where, "is damaged: says nothing of its inputs", "save it again") from None


def image(path: Path) -> dict[str, Any]:
    """The size and channels of the input with four axes, as far as the program fixes them."""
    found = next((shape for shape in shapes(path).values() if len(shape) == 4), (None,) * 4)
    _, channels, height, width = found
    known: dict[str, Any] = {"channels": channels} if channels else {}
    return known | ({"size": [height, width]} if height and width else {})
