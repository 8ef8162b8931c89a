"""The kit: what of edgecv a device needs, as one zip that Python imports from.

The modules that run there (runtime, benchmark, every engine's run.py, and the job's own) and what
they import of edgecv, found by reading their sources: nothing is imported here, and a new file in
one of those folders comes along by itself. Beside them the sources of the binary kernels, which a
device with a compiler builds (`edgecv.binary.device_kernels`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import edgecv
from edgecv import portions

# What a task imports late to measure, to learn and to draw: nothing of it runs on a device.
_HOST = ("paired", "probabilities", "drawing", "metric", "matching", "loss", "augment")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: the same sources give the same bytes


@cache
def build(module: str = "edgecv.runtime") -> bytes:
    """A zip from which `python -m module` runs with numpy and an engine alone.

    Stored uncompressed: a small Python may lack zlib.
    """
    target = BytesIO()
    with ZipFile(target, "w", ZIP_STORED) as archive:
        for name, source in sorted(members(module).items()):
            info = ZipInfo(name, _EPOCH)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, source)
    return target.getvalue()


def members(module: str) -> dict[str, bytes]:
    """Member name -> source. Of other packages only the job's own modules come along."""
    ours = {"edgecv", module.partition(".")[0]}
    queue, seen = [module, *always()], set()
    found: dict[str, bytes] = {}
    while queue:
        name = queue.pop()
        if name in seen or name.partition(".")[0] not in ours or _stays(name):
            continue
        seen.add(name)
        queue.append(name.rpartition(".")[0])
        if path := _file(name):
            source = path.read_bytes()
            end = "/__init__.py" if path.name == "__init__.py" else ".py"
            found[name.replace(".", "/") + end] = source
            queue += _imports(ast.parse(source))
    for name in list(found):  # a zip has no packages without this file
        for folder in Path(name).parents[:-1]:
            found.setdefault(f"{folder.as_posix()}/__init__.py", b"")
    sources = Path(edgecv.__file__).parent / "binary" / "c"
    for path in (*sources.glob("*.c"), *sources.glob("*.h")):  # kernels, built there
        found[f"edgecv/binary/c/{path.name}"] = path.read_bytes()
    return found


def always() -> list[str]:
    """The modules of every kit, whatever the job."""
    own = Path(edgecv.__file__).parent
    places = [(own, p) for kind in ("runtime", "benchmark") for p in own.glob(f"{kind}/*.py")]
    places += [(own, p) for p in (*own.glob("tasks/*.py"), *own.glob("tasks/*/__init__.py"))]
    for root in (own, *portions.roots()):
        places += [(root, p) for p in root.glob("backends/*/run.py")]
    names = (
        ".".join(("edgecv", *p.relative_to(r).with_suffix("").parts)).removesuffix(".__init__")
        for r, p in places
    )
    return sorted(name for name in names if not _stays(name))


def _stays(module: str) -> bool:
    """Whether a task keeps it for the host."""
    return module.startswith("edgecv.tasks.") and not set(_HOST).isdisjoint(module.split("."))


def _file(module: str) -> Path | None:
    """Where a module's source lies; None when the name is not a module's."""
    top, *rest = module.split(".")
    spec = find_spec(top) if top else None
    others = portions.roots() if top == "edgecv" else []
    for location in (*((spec.submodule_search_locations if spec else None) or ()), *others):
        base = Path(location, *rest)
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def _imports(node: ast.AST) -> Iterator[str]:
    """Names that a module may import, also inside functions, and not for type checkers alone."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Import):
            yield from (a.name for a in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            yield inner.module
            yield from (f"{inner.module}.{a.name}" for a in inner.names)
        elif not (isinstance(inner, ast.If) and ast.unparse(inner.test) == "TYPE_CHECKING"):
            yield from _imports(inner)
