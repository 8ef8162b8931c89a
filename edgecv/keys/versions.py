"""Versions of libraries, and digests of code that is not ours."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    return {name: version(name) for name in distributions}


# What a library loads by itself to do its work, and we never import.
PLUGINS = {
    "litert-torch": ("ai-edge-litert", "litert-converter"),
    "ai-edge-quantizer": ("ai-edge-litert",),
    "onnxscript": ("onnx-ir",),
}
# Libraries that read and check what a person wrote, or show it: what they read is in keys itself.
READERS = {"pydantic", "pydantic_core", "yaml", "rich", "jinja2"}


@cache
def _distributions() -> Mapping[str, list[metadata.Distribution]]:
    """Top-level import name -> the installed distributions that bring it, as
    `metadata.packages_distributions` finds them, which reads every word of their metadata."""
    found: dict[str, list[metadata.Distribution]] = {}
    for distribution in metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        for name in declared or _inferred(distribution):
            found.setdefault(name, []).append(distribution)
    return found


def _inferred(distribution: metadata.Distribution) -> set[str]:
    """Top-level names of the Python files that were installed."""
    record = distribution.read_text("RECORD")
    files = [str(f) for f in distribution.files or ()] if record is None else record.splitlines()
    paths = (file.partition(",")[0] for file in files)
    return {path.removesuffix(".py").partition("/")[0] for path in paths if path.endswith(".py")}


def of_libraries(names: Iterable[str]) -> dict[str, str | None]:
    """Distribution -> version of the libraries with these import names, and of their plug-ins.

    What is not installed is left out: a key changes when it comes.
    """
    brought = {d for name in set(names) - READERS for d in _distributions().get(name, ())}
    found = {distribution.name for distribution in brought}
    found |= {plugin for name in found for plugin in PLUGINS.get(name, ())}
    found = {name.lower().replace("_", "-") for name in found}
    return {name: v for name, v in versions(sorted(found)).items() if v is not None}


@cache
def source(module: str) -> str:
    """SHA-256 of a user's module; of every file in it when it is a package. Nothing is imported
    but the parent packages."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return "absent"
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    sha = hashlib.sha256()
    for path in files:
        sha.update(path.relative_to(origin.parent).as_posix().encode() + b"\0")
        sha.update(path.read_bytes() + b"\0")
    return sha.hexdigest()[:16]
