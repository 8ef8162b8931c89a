"""A TorchScript archive, loaded after its code was looked through.

What torch.jit.load runs: the archive's TorchScript (its `__setstate__` while loading, its `forward`
later), a small language whose only doors to the outside are operators of PyTorch's. Its pickles
are read by a C++ unpickler that builds tensors, containers and the classes of the archive itself,
and never calls Python. Of the operators `aten::save` writes files, `aten::from_file` maps them, the
rpc ones send, and custom classes (`torch.classes`) may load libraries. An archive that names any of
these, or an operator that is neither aten nor prim, is refused before it is loaded.

What is not ruled out is a fault in PyTorch's own readers.
"""

from __future__ import annotations

import ast
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from edgecv.errors import ModelError, UnsupportedError
from edgecv.models.torchfiles import archive, pickles

DOORS = {
    "save", "from_file", "PythonOp", "IgnoredPythonOp", "rpc_async", "rpc_remote", "rpc_sync",
}  # fmt: skip
SPACES = {"aten", "prim"}
KEPT = ("code/", "data/", "constants/", "data.pkl", "constants.pkl", "version", "byteorder", ".")


def load(path: Path) -> torch.jit.ScriptModule:
    """The network in a file, on the CPU, in eval mode.

    Raises ModelError: damaged, or no TorchScript that PyTorch 2 reads; UnsupportedError: an
    operator of another library, or one that reaches outside.
    """
    where = path.name
    found = {n: d for n, d in archive.members(path).items() if n.startswith(KEPT)}
    found = {n: d for n, d in found.items() if not n.endswith(".debug_pkl")}
    check(found, where)
    made = archive.written(found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(made, map_location="cpu")
            return module.eval()
    except (RuntimeError, ValueError, OSError, KeyError, IndexError, TypeError) as e:
        why = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
        what = f"PyTorch {torch.__version__} cannot load it: {' '.join(why.split())[:160]}"
        raise ModelError(where, what, "save it again with torch.jit.save") from None


def check(files: Mapping[str, bytes], where: str) -> None:
    """Whether an archive's code and pickles stay inside. Raises ModelError, UnsupportedError."""
    for name, data in files.items():
        if name.endswith(".pkl"):
            try:
                outside = [n for n in pickles.foreign(pickles.names(io.BytesIO(data)))
                           if not _own(n)]  # fmt: skip
            except ValueError:
                raise ModelError(where, f"is damaged: {name} is cut off", "copy it again") from None
            if outside:
                what = f"holds a {outside[0]}, which is code of no TorchScript"
                raise UnsupportedError(where, what, "save plain layers with torch.jit.save")
        elif name.startswith("code/"):
            try:
                tree = ast.parse(data.decode())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                raise ModelError(where, f"{name} is no TorchScript", "save it again") from None
            for what in _doors(tree):
                hint = "save it again without that, or export it to ONNX"
                raise UnsupportedError(where, f"{what} ({name.removeprefix('code/')})", hint)


def _own(name: str) -> bool:
    """A class of the archive itself, or a container."""
    inside = name.startswith("__torch__.") and not name.startswith("__torch__.torch.classes")
    return inside or name.startswith("torch.jit._pickle.")


def _doors(tree: ast.AST) -> Iterator[str]:
    """What of a source reaches outside, or could by another name."""
    chained = {id(node.value): node for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in DOORS:
                yield f"calls {node.attr!r}, which reaches outside the network"
            root = ast.unparse(node)
            if root in ("torch.classes", "__torch__.torch.classes"):
                yield "has a custom class of a library's"
            if root == "__torch__.torch" and id(node) not in chained:
                yield "gives all of torch another name"
        elif isinstance(node, ast.Name) and node.id in ("ops", "torch", "__torch__"):
            after = chained.get(id(node))
            if after is None:
                yield f"gives {node.id} another name"
            elif node.id == "ops" and after.attr not in SPACES:
                yield f"needs the operators of {after.attr!r}, a library that is not PyTorch's own"
        elif isinstance(node, ast.Constant) and node.value in DOORS:
            yield f"names {node.value!r}, which reaches outside the network"
