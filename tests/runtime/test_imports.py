"""A device has numpy and an engine, nothing else: the boundary, in a process of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgecv

ROOT = Path(edgecv.__file__).parent
HEAVY = ("torch", "pydantic", "rich", "yaml", "PIL", "onnx", "safetensors")
BLOCK = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\n"


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_runs_with_the_heavy_packages_blocked(make_bundle) -> None:
    pytest.importorskip("onnxruntime")
    code = """
import numpy as np
from edgecv.runtime import open_bundle, verify
model = open_bundle(sys.argv[1])
print(model(np.zeros((20, 30, 3), np.uint8))[0].label, verify(sys.argv[1]).ok)
"""
    label, ok = python(code, str(make_bundle())).split()
    assert label in ("ant", "bee", "cat", "dog", "eel")
    assert ok == "True"


def test_importing_the_runtime_imports_no_engine() -> None:
    code = """
import edgecv.runtime
print(*sorted({m.split(".")[0] for m in sys.modules if sys.modules[m] is not None}))
"""
    loaded = set(python(code).split())
    outside = loaded - set(sys.stdlib_module_names) - {"numpy", "edgecv", "__main__"}
    assert not {m for m in outside if not m.startswith(("_", "sitecustomize", "distutils"))}


def test_the_runtime_imports_little() -> None:
    """Its time is in `benchmarks/runtime_overhead.py`; how many modules are read is its cause."""
    code = """
import numpy
before = set(sys.modules)
import edgecv.runtime
print(len(set(sys.modules) - before))
"""
    assert int(python(code)) < 60


@pytest.mark.parametrize("path", sorted((ROOT / "runtime").glob("*.py")), ids=lambda p: p.name)
def test_the_sources_import_only_numpy_and_the_standard_library(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "edgecv", "__future__"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in allowed, f"{path.name}:{node.lineno} imports {name}"
