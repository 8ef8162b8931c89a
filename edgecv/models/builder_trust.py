"""A Model folder names the function that builds its network: code, run when the folder is opened.

A network of the zoo is built without a question. Any other builder wants the user's word: a recipe
that names it (`module: mynet:make`), `--trust`, or EDGECV_TRUST_SOURCE=1. Also then only what can
be a network's builder is called: a function or class that is not Python's own, not edgecv's, and,
where the folder alone names it, lies in a file of the user's or says that it returns a Module.
"""

from __future__ import annotations

import inspect
import sys
import sysconfig
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import edgecv
from edgecv.errors import ModelError, TrustError
from edgecv.source_trust import VARIABLE, told

_NAMED: ContextVar[frozenset[str]] = ContextVar("edgecv_named_builders", default=frozenset())
_HINT = "a function of your own file that returns a torch.nn.Module"


@contextmanager
def named(builders: Iterable[str]) -> Iterator[None]:
    """Trust these builders meanwhile: the user's recipe names them."""
    before = _NAMED.set(_NAMED.get() | frozenset(builders))
    try:
        yield
    finally:
        _NAMED.reset(before)


def is_named(builder: str) -> bool:
    """Whether it needs no word: the zoo's, or named by the recipe that is running."""
    return builder.startswith("zoo:") or builder in _NAMED.get()


def check(folder: Path, builder: str) -> None:
    """Raises TrustError where a Model folder's builder is code that nobody vouched for, ModelError
    where it is none of a network; nothing of it was imported."""
    if is_named(builder):
        return
    check_name(builder)
    if not told():
        what = f"its network is built by code, {builder}, which opening imports and runs"
        hint = f"if you trust who made it: --trust, {VARIABLE}=1, or name it in a recipe (module:)"
        raise TrustError(str(folder), what, hint)


def check_name(builder: str) -> None:
    """Raises ModelError for a function of Python itself or of edgecv, by its name alone."""
    top = builder.partition(":")[0].partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ModelError(builder, f"{top} is a part of Python and builds no network", _HINT)
    if top == "edgecv" and not builder.startswith("edgecv.models.zoo"):
        raise ModelError(builder, "is edgecv's own code and builds no network", _HINT)


def check_function(builder: str, function: Any) -> None:
    """Raises ModelError, before it is called, for what cannot be a network's builder."""
    check_name(builder)
    torch = sys.modules.get("torch")
    module_class = torch.nn.Module if torch else object
    made = inspect.unwrap(getattr(function, "func", function))  # functools.partial
    if inspect.isclass(made):
        if not issubclass(made, module_class):
            raise ModelError(builder, f"is a class, {made.__name__}, and no torch.nn.Module", _HINT)
        return
    code = getattr(made, "__code__", None) or getattr(type(made).__call__, "__code__", None)
    file = code.co_filename if code else ""
    installed = "site-packages" in file or "dist-packages" in file
    own = Path(edgecv.__file__).parent
    if not file or file.startswith("<frozen") or (not installed and _within(file, _standard())):
        raise ModelError(builder, "is a function of Python itself", _HINT)
    if _within(file, [own]) and not _within(file, [own / "models" / "zoo"]):
        raise ModelError(builder, "is a function of edgecv's own", _HINT)
    returned = _returned(made)
    is_network = inspect.isclass(returned) and issubclass(returned, module_class)
    if inspect.isclass(returned) and not is_network and not issubclass(module_class, returned):
        raise ModelError(builder, f"says that it returns {returned.__name__}", _HINT)
    if not is_network and not is_named(builder) and installed:
        what = f"is a function of the installed {made.__module__}, which may do anything"
        raise ModelError(
            builder, what, "name it in a recipe (module:), or wrap it in your own file"
        )


def _returned(function: Any) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # hints may name what is imported for type checkers alone
        return None


def _within(file: str, folders: Iterable[str | Path]) -> bool:
    return any(Path(file).is_relative_to(folder) for folder in folders)


def _standard() -> list[str]:
    """Folders of Python's own library."""
    return [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
