"""Code that a recipe or a command names: found in the working folder, or beside the recipe.

    module: mynet:make   imports ./mynet.py, and what lies beside it where mynet.py asks for it

Nothing else is imported from there. The folders are on no search path, so that a `json.py` or an
`onnx.py` that happens to lie in a folder of downloads is not run when a library imports that name:

    a name that was named      these folders first, then what is installed
    what named code imports    what is installed first, then these folders
    anything else              what is installed
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

VARIABLE = "EDGECV_RECIPE_FOLDERS"  # tells child processes
# Names of the frames that lie between an import and the finders.
_MACHINERY = ("importlib", "_frozen_importlib", __name__)


class _Finder(MetaPathFinder):
    """named: top-level names that may come from the folders; ours: those that did."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.ours: set[str] = set()
        told = os.environ.get(VARIABLE, "")
        self.beside = [Path(p) for p in told.split(os.pathsep) if p]

    def folders(self) -> list[Path]:
        found = list(self.beside)
        with suppress(OSError):  # the working folder was removed
            found.insert(0, Path.cwd())
        return found

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or "." in fullname:  # inside a package: its own folder says
            return None
        if fullname not in self.named and (
            _importer() not in self.ours or self._elsewhere(fullname, target)
        ):
            return None
        spec = PathFinder.find_spec(fullname, [str(f) for f in self.folders()])
        if spec is not None:
            self.ours.add(fullname)
        return spec

    def _elsewhere(self, fullname: str, target: ModuleType | None) -> bool:
        """Whether it is built in or installed."""
        others = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        return any(f.find_spec(fullname, None, target) for f in others)


def _importer() -> str:
    """The top-level name of the module whose code is importing."""
    frame = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(_MACHINERY):
            return name.partition(".")[0]
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""


def _finder() -> _Finder:
    """The one finder of this process."""
    for found in sys.meta_path:
        if isinstance(found, _Finder):
            return found
    made = _Finder()
    sys.meta_path.insert(0, made)
    return made


def beside(folder: Path) -> None:
    """Also look in a recipe's folder for what is named."""
    known = _finder().beside
    if folder.resolve() not in known:
        known.append(folder.resolve())


def recipes() -> list[Path]:
    """The folders of the recipes that were read."""
    return _finder().beside


def folders() -> list[Path]:
    """Where named code is looked for, in order."""
    return _finder().folders()


def allow(module: str) -> None:
    """`module` was named by the user: from now on it may be imported from the folders."""
    top = module.partition(".")[0]
    if top not in sys.stdlib_module_names and top != "edgecv":
        _finder().named.add(top)
