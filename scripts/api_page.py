"""docs/api.md: every signature and docstring of the public functions, as the code has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import edgecv

# Function of the API -> the types whose docstrings stand below its own.
TYPES = {"export": ("api.export.Bundle", "api.export_options.ExportOptions"),
         "run": ("api.run.Results", "api.run.Row"),
         "open_bundle": ("runtime.bundle.Bundle",), "predict": ("api.predict.Answer",),
         "bench": ("api.bench.Benchmark", "api.bench.Timing"), "gate": ("api.gate.Verdict",),
         "parity": ("api.parity.Parity", "api.parity.Rung"),
         "why": ("api.why.Diagnosis", "diagnosis.why.findings.Finding"),
         "compress": (), "finish": ()}  # fmt: skip


def table(name: str) -> str:
    """What stands between the marks of one function: its own text, then that of its types."""
    function = getattr(edgecv, name)
    lines = ["```text", _signature(name, function), "", _doc(function)]
    for place in TYPES[name]:
        module, _, called = place.rpartition(".")
        found = getattr(import_module(f"edgecv.{module}"), called)
        lines += ["", called, "", _doc(found)]
    return "\n".join([*lines, "```"])


def _signature(name: str, function: Any) -> str:
    """As it is written: annotations are strings."""
    given, shown = inspect.signature(function), []
    for p in given.parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        stars = "**" if p.kind is p.VAR_KEYWORD else ""
        default = "" if p.default is p.empty else f" = {p.default!r}"
        shown.append(f"{stars}{p.name}: {p.annotation}{default}")
    line = f"edgecv.{name}({', '.join(shown)}) -> {given.return_annotation}"
    listed = "".join(f"\n    {one}," for one in shown)
    return line if len(line) < 90 else f"edgecv.{name}({listed}\n) -> {given.return_annotation}"


def _doc(found: Any) -> str:
    return "\n".join(line and f"    {line}" for line in inspect.getdoc(found).splitlines())


TABLES: dict[str, Callable[[], str]] = {name: partial(table, name) for name in TYPES}
