"""Run the tests that a change touches, nearest first, for at most two minutes.

python scripts/fast_tests.py                  what differs from the merge base with main
python scripts/fast_tests.py --base HEAD      what is not committed
python scripts/fast_tests.py --list FILE...   name the test files of these, run nothing

Near are, in this order: a test file that changed itself; one that mirrors a file that changed
(edgecv/tasks/paired.py: tests/tasks/test_paired.py); one that imports it; one that imports a module
that imports it. Test files run one after the other until the time is spent; what was left out is
named, and the exit code is then 0 only where all that ran passed. `make test` runs everything.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BUDGET_S = 115.0
# Files that no test imports, and the tests that read them.
READ = {
    "docs": ("tests/test_docs.py", "tests/test_docs_site.py"),
    "docs/notebooks": ("tests/test_notebooks.py",),
    "tests/docs": ("tests/test_docs_blocks.py",),
    "README.md": ("tests/test_docs.py",),
    "CONTRIBUTING.md": ("tests/test_docs.py",), "ARCHITECTURE.md": ("tests/test_docs.py",),
    "mkdocs.yml": ("tests/test_docs.py",), "scripts": ("tests/test_docs.py", "tests/test_keys.py"),
    "targets": ("tests/test_target.py", "tests/test_docs.py"),
    "recipes": ("tests/plan/test_recipe.py",),
    "benchmarks": ("tests/test_docs.py",), "pyproject.toml": ("tests/test_docs.py",),
}  # fmt: skip


def changed(base: str) -> list[str]:
    """Paths that differ from `base`, committed or not, and new ones; from the root."""
    said = [_git("diff", "--name-only", base), _git("ls-files", "-o", "--exclude-standard")]
    return sorted({line for text in said for line in text.splitlines()})


def merge_base() -> str:
    """Where this branch left the main one; HEAD where there is no other."""
    for name in ("origin/main", "origin/master", "main", "master"):
        try:
            return _git("merge-base", "HEAD", name).strip()
        except subprocess.CalledProcessError:
            continue
    return "HEAD"


def touched(paths: Sequence[str]) -> list[str]:
    """Test files of these paths, nearest first."""
    tests = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("test_*.py"))
    ranks: dict[str, int] = {}

    def found(names: Iterable[str], rank: int) -> None:
        for name in names:
            ranks[name] = min(rank, ranks.get(name, rank))

    for path in paths:  # a template, a kernel in C: the tests of its room
        if path.startswith("edgecv/") and not path.endswith(".py"):
            room = f"tests/{Path(path).parts[1]}/"
            found((t for t in tests if t.startswith(room)), 2)
    found((node for path in paths if (node := blocks_of(path))), 1)
    modules = {m for p in paths if (m := module_of(p))}
    found((p for p in paths if p in tests), 0)
    for path in paths:
        found((t for t in tests if mirrors(t, path)), 1)
        found((t for name, ts in READ.items() if _lies_in(path, name) for t in ts), 2)
    found((t for t in tests if imports(t) & modules), 2)
    near = {m for m in map(module_of, _sources()) if m and imports(_file_of(m)) & modules}
    found((t for t in tests if imports(t) & near), 3)
    return sorted(ranks, key=lambda t: (ranks[t], t))


def mirrors(test: str, path: str) -> bool:
    """Whether a test file is called as a source file is, and lies as deep, or not in a folder."""
    parts = Path(path).with_suffix("").parts
    if parts[0] not in ("edgecv", "benchmarks", "scripts") or not path.endswith(".py"):
        return False
    name = parts[-1] if parts[-1] != "__init__" else parts[-2]
    here, there = Path(test), parts[1:-1]
    folder = here.parent.parts[1:]
    return here.stem == f"test_{name.strip('_')}" and (not folder or set(folder) <= {*there, name})


def blocks_of(path: str) -> str:
    """The test that runs the code blocks of a page; "" where it has none that run."""
    if not path.endswith(".md") or not (path in READ or _lies_in(path, "docs")):
        return ""
    from tests.docs.blocks import blocks

    there = (ROOT / path).exists() and any(not b.skip for b in blocks(ROOT / path))
    return f"tests/test_docs_blocks.py::test_the_blocks_of_a_page_run[{path}]" if there else ""


def module_of(path: str) -> str:
    """edgecv/a/b.py: "edgecv.a.b"; "" for what is no module."""
    parts = Path(path).with_suffix("").parts
    if not path.endswith(".py") or parts[0] not in ("edgecv", "tests", "benchmarks", "scripts"):
        return ""
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: str) -> frozenset[str]:
    """Modules that a file names in its imports, in whichever function; of `from a import b` both
    a.b and a."""
    file = ROOT / path
    if not file.exists():
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def run(tests: Sequence[str], budget_s: float) -> int:
    """pytest's exit code of each file, the worst; what the time did not suffice for is named."""
    began, worst, left = time.monotonic(), 0, list(tests)
    while left and (rest := budget_s - (time.monotonic() - began)) > 0:
        test = left.pop(0)
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", test]
        try:
            code = subprocess.run(command, cwd=ROOT, timeout=rest, check=False).returncode
        except subprocess.TimeoutExpired:
            left.insert(0, f"{test} (begun)")
            break
        worst = max(worst, 0 if code == 5 else code)  # 5: nothing in it was collected
    if left:
        print(f"\nnot run within {budget_s:g} s: {', '.join(left)}\n`make test` runs them")
    return worst


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def _lies_in(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


@cache
def _sources() -> tuple[str, ...]:
    return tuple(p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "edgecv").rglob("*.py")))


def _file_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}.py" if (ROOT / f"{path}.py").exists() else f"{path}/__init__.py"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", help="commit to compare with (default: the merge base with main)")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds (115)")
    parser.add_argument("--list", action="store_true", help="name the test files, run nothing")
    parser.add_argument("files", nargs="*", help="instead of what git says")
    options = parser.parse_args(words)
    paths = options.files or changed(options.base or merge_base())
    tests = touched(paths)
    if options.list:
        print("\n".join(tests))
        return 0
    print(f"{len(paths)} files changed, {len(tests)} test files are near" if tests else
          f"{len(paths)} files changed, no test file is near")  # fmt: skip
    return run(tests, options.budget)


if __name__ == "__main__":
    raise SystemExit(main())
