"""Versions and source digests: what a result depends on besides its inputs and parameters."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
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


@cache
def source(module: str) -> str:
    """SHA-256 of a module's source; of every file in it when it is a package. Nothing is imported
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


def sources(modules: Iterable[str]) -> dict[str, str]:
    return {name: source(name) for name in modules}
