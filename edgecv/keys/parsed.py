"""One module's source, parsed: what it imports, and its code as bytes without its words.

The code is written node by node in a spelling of our own, the same under every Python. Left out:
comments, layout, docstrings, `if TYPE_CHECKING`, and what is only ever said: strings inside
`raise`, inside an error that is made, a verdict, a log call or a field's description, and strings
of local variables that are read nowhere else. So is a module's `__getattr__` (PEP 562): what it
loads is for those who ask the package, and none of its own modules does.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Calls whose strings are for people to read, and arguments that are.
SPEAKING = {"Verdict", "missing"}
LOGS = {"log", "logger", "logging", "warnings"}
DESCRIBING = {"description", "help", "title"}
_SKIPPED = {"ctx", "type_comment", "kind", "type_ignores"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Parsed:
    """A module.

    code:         SHA-256 of what it does; "" where that is nothing
    imports:      dotted names that its import statements may load
    objects:      of those, what it holds by name: a package's passed on names may be behind it
    words:        strings that could be a module's dotted name
    patterns:     names of modules made at run time, with * for what only the run knows
    choices:      strings in its constants, where it loads modules by a variable
    exports:      names that a package passes on from its modules and does not use -> that module
    looks_around: it reads files beside it
    """

    code: str
    imports: frozenset[str]
    objects: frozenset[str]
    words: frozenset[str]
    patterns: frozenset[str]
    choices: frozenset[str]
    exports: Mapping[str, str]
    looks_around: bool


def parse(source: bytes | str, module: str, package: str) -> Parsed:
    """package: what relative imports start from. Raises SyntaxError."""
    reader = _Reader(module, package)
    tree = ast.parse(source)
    exports = dict(_exports(tree, package)) if module == package else {}
    reader.write(tree, False, frozenset())
    return Parsed(
        "" if reader.code == _EMPTY else hashlib.sha256(reader.code).hexdigest(),
        frozenset(reader.imports - _passed_on(exports)), frozenset(reader.objects),
        frozenset(reader.words), frozenset(reader.patterns),
        frozenset(_constants(tree) if reader.opaque else ()), exports, reader.looks_around,
    )  # fmt: skip


class _Reader:
    """Walks a tree once: writes its code, and collects what it loads."""

    def __init__(self, module: str, package: str) -> None:
        self.module, self.package = module, package
        self.code = bytearray()
        self.imports, self.words, self.patterns = set[str](), set[str](), set[str]()
        self.objects = set[str]()
        self.opaque = self.looks_around = False

    def write(self, node: ast.AST, said: bool, only: frozenset[str]) -> None:
        """Append a node. said: its strings are words; only: local variables that hold words"""
        self._notice(node)
        said = said or _speaks(node)
        if isinstance(node, _FUNCTIONS):
            only = only | _only_said(node)
        elif isinstance(node, ast.Assign) and only and _assigns(node, only):
            said = True
        elif said and isinstance(node, ast.JoinedStr):  # what is filled in still counts
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self.write(part.value, said, only)
            return
        skipped = _docstring(node)
        code = self.code
        code += node.__class__.__name__.encode() + b"("
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in _SKIPPED:
                continue
            code += name.encode() + b"="
            inside = said or (name == "exc" and isinstance(node, ast.Raise))
            for item in value if isinstance(value, list) else (value,):
                if not isinstance(item, ast.AST):
                    if not (said and isinstance(item, str) and isinstance(node, ast.Constant)):
                        code += repr(item).encode() + b","
                elif _is_checking(item):
                    for other in item.orelse:  # type: ignore[attr-defined]
                        self.write(other, inside, only)
                elif item is not skipped and not _is_lazy(item):
                    self.write(item, inside, only)
        code += b")"

    def _notice(self, node: ast.AST) -> None:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and _is_dotted(node.value):
                self.words.add(node.value)
        elif isinstance(node, ast.Name):
            self.looks_around = self.looks_around or node.id == "__file__"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found = list(imported(node, self.package))
            self.imports |= set(found)
            self.objects |= set(found[isinstance(node, ast.ImportFrom) :])
            self.looks_around = self.looks_around or "importlib.resources" in found
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "find_spec"):
            pattern = _pattern(node.args[0], self.module) if node.args else None
            self.patterns |= {pattern} if pattern else set()
            self.opaque = self.opaque or pattern is None


def imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """Dotted names that an import statement may load."""
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
    yield base
    yield from (f"{base}.{a.name}" for a in node.names)


def _exports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """(name, module) of what `__all__` passes on from below the package and no code here uses."""
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    listed = {
        part.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for part in ast.walk(node.value)
        if isinstance(part, ast.Constant)
    }
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        names = {a.asname or a.name for a in node.names}
        if names <= listed - used:
            base = next(imported(node, package))
            yield from ((name, base) for name in names if base.startswith(f"{package}."))


def _passed_on(exports: Mapping[str, str]) -> set[str]:
    return {*exports.values(), *(f"{base}.{name}" for name, base in exports.items())}


def _is_dotted(text: str) -> bool:
    return "." in text and text.isascii() and all(p.isidentifier() for p in text.split("."))


def _constants(tree: ast.Module) -> Iterator[str]:
    """Strings in a module's constants (NAME = ...)."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(t, ast.Name) and t.id.isupper() for t in targets):
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def _is_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return bool(name == "TYPE_CHECKING")


def _is_lazy(node: ast.AST) -> bool:
    """Whether it is a module's `__getattr__`, which takes a name alone, and no class's."""
    named = isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
    return named and len(node.args.args) == 1  # type: ignore[attr-defined]


def _docstring(node: ast.AST) -> ast.AST | None:
    if isinstance(node, _DOCUMENTED) and node.body and isinstance(node.body[0], ast.Expr):
        value = node.body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return node.body[0]
    return None


def _called(node: ast.Call) -> str:
    """The last name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _pattern(node: ast.expr, module: str) -> str | None:
    """A name made at run time, with * for its open parts; None where all of it is open."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            own = isinstance(part.value, ast.Name) and part.value.id == "__name__"
            text += module if own else "*"
    return None if text.startswith("*") else text


def _speaks(node: ast.AST) -> bool:
    """Whether strings below this node are for people to read, and decide nothing."""
    if isinstance(node, ast.Call):
        name = _called(node)
        if name.endswith("Error") or name in SPEAKING:
            return True
        on = node.func.value if isinstance(node.func, ast.Attribute) else None
        return isinstance(on, ast.Name) and on.id in LOGS
    return isinstance(node, ast.keyword) and node.arg in DESCRIBING


def _assigns(node: ast.Assign, only: frozenset[str]) -> bool:
    return all(isinstance(t, ast.Name) and t.id in only for t in node.targets)


def _only_said(function: ast.AST) -> frozenset[str]:
    """Local variables that are read inside messages and nowhere else."""
    inside, outside = set[str](), set[str]()

    def visit(node: ast.AST, said: bool) -> None:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                (inside if said else outside).add(node.id)
            return
        said = said or _speaks(node)
        for child in ast.iter_child_nodes(node):
            visit(child, said or (isinstance(node, ast.Raise) and child is node.exc))

    if any(isinstance(n, ast.Raise) or _speaks(n) for n in ast.walk(function)):
        visit(function, False)
    return frozenset(inside - outside)


_EMPTY = b"Module(body=)"
