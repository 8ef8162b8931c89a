"""The code that a result depends on: what its module imports, and all that those import.

    closure(roots) = roots ∪ { m : some module in it imports m, by statement or by name }

Read from the sources, nothing is imported. An import counts wherever it stands, also inside a
function; what is under `if TYPE_CHECKING` does not run. A string that is the dotted name of one of
our modules counts as an import: child processes are started by such names. An import of a name
made at run time, `import_module(f"edgecv.backends.{engine}.run")`, stands for every module that
fits, unless the caller says which (`choices`).

A module's digest is of its parsed code (`edgecv.keys.parsed`): comments, docstrings and the wording
of messages do not count. Files beside a module that asks where it lies (`__file__`) count as they
are.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from edgecv import portions
from edgecv.keys.parsed import Parsed, parse
from edgecv.keys.parsed_cache import ParsedCache, folder
from edgecv.keys.versions import of_libraries

NAME = "edgecv"
ROOT = Path(__file__).parent.parent
DATA = (".c", ".h", ".json", ".npz", ".css", ".j2")  # what beside a module is part of its code

Choices = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Closure:
    """What runs.

    modules:   name -> digest
    libraries: names that may be imported and are not ours; not every one need be a library's
    """

    modules: dict[str, str]
    libraries: tuple[str, ...]


class Package:
    """The sources of a package. root: its folder; kept: what was parsed of it before; others:
    folders that add to it (`edgecv.portions`)"""

    def __init__(
        self,
        root: Path,
        name: str = NAME,
        kept: ParsedCache | None = None,
        others: Sequence[Path] = (),
    ) -> None:
        self.root, self.name, self.kept = root, name, kept
        self.roots = (root, *others)
        self._parsed: dict[str, Parsed] = {}
        self._digests: dict[str, str] = {}
        self._paths: dict[str, Path | None] = {}

    def path(self, module: str) -> Path | None:
        """Where a module's source lies; None when the name is not a module's."""
        if module not in self._paths:
            self._paths[module] = self._find(module)
        return self._paths[module]

    def _find(self, module: str) -> Path | None:
        top, *rest = module.split(".")
        if top != self.name or not all(part.isidentifier() for part in rest):
            return None
        tries: list[Path] = []
        for root in self.roots if rest else (self.root,):
            base = root.joinpath(*rest)
            tries += (base / "__init__.py", base.with_name(f"{base.name}.py"))
        return next((path for path in tries[: None if rest else 1] if path.is_file()), None)

    @cached_property
    def modules(self) -> list[str]:
        """Every module, sorted."""
        found = {p.relative_to(r).with_suffix("") for r in self.roots for p in r.rglob("*.py")}
        return sorted(".".join((self.name, *p.parts)).removesuffix(".__init__") for p in found)

    def closure(self, roots: Iterable[str], choices: Choices | None = None) -> Closure:
        """Of the modules with these names, packages' own `__init__` included.

        choices: folder of modules, or the last part of a name ("for_*") -> what the * may stand for
        Raises LookupError: a root that is no module of ours.
        """
        queue, seen, libraries = list(roots), set[str](), set[str]()
        for root in queue:
            if self.path(root) is None:
                raise LookupError(root)
        while queue:
            module = queue.pop()
            if module in seen or self.path(module) is None:
                continue
            seen.add(module)
            queue.append(module.rpartition(".")[0])
            parsed = self.parsed(module)
            for name in sorted(parsed.imports | parsed.words):
                queue += [name, *self._exported(name)]
                if name in parsed.objects | parsed.words and self._is_package(name):
                    queue += self.parsed(name).exports.values()
            queue += [m for p in parsed.patterns for m in self._matching(p, choices or {})]
            libraries |= {name.partition(".")[0] for name in parsed.imports} | parsed.choices
        libraries -= {self.name, *sys.stdlib_module_names}
        digests = {m: self.digest(m) for m in sorted(seen)}
        if self.kept is not None:
            self.kept.save()
        return Closure({m: d for m, d in digests.items() if d}, tuple(sorted(libraries)))

    def parsed(self, module: str) -> Parsed:
        """A module's code. Raises OSError when it is not there, SyntaxError."""
        if module not in self._parsed:
            path = self.path(module)
            if path is None:
                raise FileNotFoundError(module)
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            self._parsed[module] = self._parse(path.read_bytes(), module, package)
        return self._parsed[module]

    def _parse(self, source: bytes, module: str, package: str) -> Parsed:
        if self.kept is None:
            return parse(source, module, package)
        found = self.kept.get(module, source)
        if found is None:
            found = parse(source, module, package)
            self.kept.put(module, source, found)
        return found

    def digest(self, module: str) -> str:
        """16 hex digits of a module's code and of the files that it brings; "" without code."""
        if module not in self._digests:
            parsed, path = self.parsed(module), self.path(module)
            sha = hashlib.sha256(parsed.code.encode())
            files = list(_beside(path)) if parsed.looks_around and path else []
            for file in files:
                sha.update(file.name.encode() + b"\0" + file.read_bytes())
            self._digests[module] = sha.hexdigest()[:16] if parsed.code or files else ""
        return self._digests[module]

    def forget(self, path: Path) -> None:
        """A file has changed: what was read of it, and of modules that it lies beside, is not true
        any more."""
        for module in [m for m in self._parsed if path.is_relative_to(self._folder(m))]:
            if self.path(module) == path:
                self._parsed.pop(module)
            self._digests.pop(module, None)

    def _folder(self, module: str) -> Path:
        path = self.path(module)
        return path.parent if path else self.root

    def _exported(self, name: str) -> Iterator[str]:
        """The module behind a name that a package only passes on."""
        package, _, last = name.rpartition(".")
        if self.path(name) is None and self._is_package(package):
            found = self.parsed(package).exports.get(last)
            yield from () if found is None else (found, *self._exported(f"{found}.{last}"))

    def _is_package(self, name: str) -> bool:
        path = self.path(name)
        return path is not None and path.name == "__init__.py"

    def _matching(self, pattern: str, choices: Choices) -> Iterator[str]:
        """Modules that a name made at run time may stand for."""
        folder, last = pattern.partition(".*")[0], pattern.rpartition(".")[2]
        known = choices.get(folder, choices.get(last))
        if known is not None:
            for choice in known:
                yield pattern.replace("*", choice, 1)
            return
        depth = pattern.count(".")
        for module in self.modules:
            if module.count(".") == depth and fnmatchcase(module, pattern):
                yield module


def _beside(path: Path) -> Iterator[Path]:
    """Files in a module's folder, and in those below it that are no packages, that are no code."""
    for child in sorted(path.parent.iterdir()):
        if child.suffix in DATA:
            yield child
        elif child.is_dir() and not (child / "__init__.py").exists():
            yield from sorted(f for f in child.rglob("*") if f.suffix in DATA)


@cache
def package() -> Package:
    """Our own sources, read once a process."""
    return Package(ROOT, kept=ParsedCache(folder()), others=portions.roots())


def code(
    modules: Iterable[str],
    engines: Iterable[str] = (),
    reads: Iterable[str] = (),
    graphs: Iterable[str] = (),
) -> dict[str, Any]:
    """What a key holds of the code that starts in these modules, and of libraries.

    engines: those that it compiles for or runs; reads: kinds of data source; graphs: the formats of
    graph that it makes, where it is not any
    """
    return dict(
        _code(tuple(modules), tuple(sorted(set(engines))), tuple(reads), tuple(sorted(set(graphs))))
    )


@cache
def _code(
    modules: tuple[str, ...],
    engines: tuple[str, ...],
    reads: tuple[str, ...],
    graphs: tuple[str, ...],
) -> dict[str, Any]:
    # Kinds of edit ("edgecv.methods.*.edit_*") count with the steps that made them, as inputs.
    choices: dict[str, tuple[str, ...]] = {NAME: (), f"{NAME}.stages": (), f"{NAME}.methods": ()}
    methods = f"{NAME}.methods"
    choices[f"{methods}.distillation.teacher_*"] = ()  # files that teach count with who reads them
    choices[f"{methods}.restructuring.for_*"] = ()  # counts where a step says it (`Stage.modules`)
    choices[f"{NAME}.models.importing.from_*"] = ()  # formats that are read for others, likewise
    choices |= {f"{NAME}.backends": engines, f"{NAME}.data": reads}
    # A task counts where it is among the modules; where none is, labels are classes.
    said = [m.removeprefix(f"{NAME}.tasks.") for m in modules if m.startswith(f"{NAME}.tasks.")]
    choices[f"{NAME}.tasks"] = tuple(said) or ("classification",)
    choices |= {"for_*": graphs} if graphs else {}
    found = package().closure(modules, choices)
    return {"code": found.modules, "versions": of_libraries(found.libraries)}


def maker(kind: str) -> dict[str, str]:
    """The code that makes a node of a kind of what its modules give (`edgecv.plan.makers`): its
    file, and those of that room that it imports. What makes other kinds does not count."""
    room, found = f"{NAME}.plan.makers.", dict[str, str]()
    queue = [f"{room}{kind}"]
    while queue:
        module = queue.pop()
        if module not in found and package().path(module) is not None:
            found[module] = package().digest(module)
            queue += [name for name in package().parsed(module).imports if name.startswith(room)]
    return found
