"""Imports point down the house: commands know stages, stages know methods, no method knows a stage.

Counted are imports that run, wherever they stand; what is under TYPE_CHECKING does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecv

ROOT = Path(edgecv.__file__).parent
FACTS = "backends/__init__.py"  # what engines say of themselves: anybody may ask
# From the roof down: a room, or a file that is in none, imports what stands below it.
ORDER = (
    "__main__.py", "cli.py", "commands", "console.py", "api", "quick_export", "plan",
    "stages", "methods",
    "predicting", "diagnosis", "report", "limits.py", "context.py",
    "bundling", "reading_graph.py", "fidelity.py", "models", "backends", "binary",
    "graphs", "examples.py", "measuring", "device", "target.py", "benchmark",
    "source_trust.py", "keys", "child.py", "files.py",
    "tasks", "data", "samples.py", "strict_yaml.py", "yaml_validation.py",
    "graph.py", "graph_files.py", "runtime", FACTS, "__init__.py", "portions.py",
    "behaviour.py", "outputs.py", "address.py",
    "cores.py", "errors.py", "installation.py", "interrupts.py", "lifeline.py",
    "logs.py", "memory.py", "one_thread.py", "pixel_units.py", "subnormals.py", "terminal.py",
    "text_table.py", "user_code.py",
)  # fmt: skip
# (who, room above it): why it imports that all the same.
UP = {
    ("backends/*/inside.py", "diagnosis"): "the engine's own part of a diagnosis",
    ("backends/tflite/fallbacks.py", "diagnosis"): "the engine's own part of a diagnosis",
    ("bundling/parity.py", "diagnosis"): "a bundle that is wrong names the layer that is",
    ("data/images.py", "models"): "names of classes that a network of the zoo was published with",
    ("diagnosis/parity/reference.py", "methods"): "opens a network that qat or lowrank changed",
    ("errors.py", FACTS): "a cure names the extra of an engine",
    (
        "models/importing/from_tflite.py",
        "methods",
    ): "what was read goes the way of .onnx files",
    ("runtime/outside.py", "graphs"): "reads how the outputs of an .onnx file are named",
    ("runtime/bundle.py", "tasks"): "a bundle answers what its task reads",
    ("runtime/manifest.py", "tasks"): "a manifest says how its task reads",
    ("tasks/paired.py", "benchmark"): "intervals of a difference",
}


def place(path: Path) -> str:
    """The name in ORDER of a file, from the package's root."""
    name = path.as_posix()
    return name if len(path.parts) == 1 or name == FACTS else path.parts[0]


def file_of(module: str) -> Path | None:
    base = Path(*module.split(".")[1:])
    tries = (
        (base / "__init__.py", base.with_suffix(".py")) if base.parts else (base / "__init__.py",)
    )
    return next((p for p in tries if (ROOT / p).is_file()), None)


def imported(node: ast.AST) -> Iterator[Path]:
    """Our files that code imports when it runs, from the package's root."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("edgecv"):
            for alias in child.names:
                found = file_of(f"{child.module}.{alias.name}") or file_of(str(child.module))
                yield from [found] if found else []
        elif isinstance(child, ast.Import):
            for alias in child.names:
                if alias.name.startswith("edgecv") and (found := file_of(alias.name)):
                    yield found
        yield from imported(child)


def arrows() -> Iterator[tuple[Path, str]]:
    """(file, the place above it that it imports)."""
    rank = {name: i for i, name in enumerate(ORDER)}
    for file in sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py")):
        own = place(file)
        for other in {place(p) for p in imported(ast.parse((ROOT / file).read_text()))}:
            if rank[other] < rank[own]:
                yield file, other


def test_every_room_has_its_place() -> None:
    found = {place(p.relative_to(ROOT)) for p in ROOT.rglob("*.py")}
    assert found == set(ORDER), "a new room or file takes its place in ORDER"
    assert len(ORDER) == len(set(ORDER))


def test_imports_point_down() -> None:
    seen = {(file, above): [who for who, room in UP if room == above and file.match(who)]
            for file, above in arrows()}  # fmt: skip
    stray = [f"{file} imports {above}" for (file, above), why in seen.items() if not why]
    assert not stray
    used = {(who, above) for (_, above), why in seen.items() for who in why}
    assert used == set(UP), "a reason that nothing needs"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from edgecv.stages.base import Stage", ["stages/base.py"]),
        ("from edgecv import limits, tasks", ["limits.py", "tasks/__init__.py"]),
        ("import edgecv.plan.recipe", ["plan/recipe.py"]),
        ("if TYPE_CHECKING:\n    from edgecv.plan import recipe", []),
        ("def f():\n    from edgecv.plan import recipe", ["plan/recipe.py"]),
        ("from edgecv import __version__", ["__init__.py"]),
        ("import numpy", []),
    ],
)
def test_an_import_is_seen(code: str, found: list[str]) -> None:
    assert [p.as_posix() for p in imported(ast.parse(code))] == found
