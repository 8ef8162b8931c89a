"""`edgecv verify`, `edgecv inspect`: commands about bundles. Work on a device."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.commands.common import existing
from edgecv.errors import EdgecvError, RecipeError
from edgecv.terminal import print_json, printable

if TYPE_CHECKING:
    from edgecv.runtime.archive import Contents
    from edgecv.runtime.parts import Part


def register(command: Any) -> None:
    verify = command("verify", run_verify, "Replay a bundle's golden inputs and compare.")
    verify.add_argument("bundles", nargs="+", type=existing, help=".edgecv files")
    verify.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")
    inspect = command("inspect", run_inspect, "Show what a bundle or a Model folder is.")
    inspect.add_argument("path", type=existing, help=".edgecv file or Model folder")


def run_verify(options: argparse.Namespace) -> int:
    """Every bundle is tried; the exit code is the gravest: 1 differs, 2 damaged, 3 no engine, 4."""
    from edgecv.report.words import plural
    from edgecv.runtime.archive import read_bundle
    from edgecv.runtime.verify import verify

    if options.threads < 1:
        raise RecipeError("--threads", f"is {options.threads}", "at least 1")
    reports, codes = [], set()
    for path in options.bundles:
        try:
            if not read_bundle(path).golden_inputs:
                what = "whole, but made where its engine does not run, so without golden outputs"
                print(printable(f"{path.name}: inconclusive: {what}"), file=sys.stderr)
                codes.add(4)
                continue
            reports.append(verify(path, options.threads))
        except EdgecvError as e:
            if len(options.bundles) == 1:
                raise
            print(printable(f"error: {e}"), file=sys.stderr)
            codes.add(e.exit_code)
    if options.json:
        print_json([r.to_json() for r in reports])
    for r in () if options.json else reports:
        sqnr = "exact" if r.exact else f"SQNR {r.sqnr_db:.1f} dB"
        verdict = "ok" if r.ok else f"FAILED: {r.reason}"
        replayed = plural(r.samples, "golden input")
        print(f"{r.bundle}: {verdict} ({r.engine}, {r.precision}, {replayed}, {sqnr})")
        for name, part in r.outputs.items() if len(r.outputs) > 1 else ():
            print(printable(f"  {name}{_figures(part)}"))
    if not all(r.ok for r in reports):
        codes.add(1)
    return min(codes, default=0)


def _figures(part: Part | None) -> str:
    if part is None:
        return ": none of its values is kept"
    along = "" if part.axis is None else f" (axis {part.axis})"
    if part.sqnr_db is None:
        return f"{along}: exact"
    return f"{along}: SQNR {part.sqnr_db:.1f} dB, off by {part.max_abs_error:.3g} at most"


def run_inspect(options: argparse.Namespace) -> int:

    path: Path = options.path
    data = _model(path) if path.is_dir() else _bundle(path)
    if options.json:
        print_json(data)
        return 0
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], str):
            print(f"{key}:")
            for i, line in enumerate(value):
                print(f"  {i + 1}. {line}" if key == "history" else f"  {line}")
        elif key == "metric" and value and value.get("per_class"):
            for line in _of_classes(value):
                print(line)
        else:
            print(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    return 0


def _of_classes(metric: Mapping[str, Any]) -> Iterator[str]:
    """A metric in lines: its figure, and the classes that were judged, the worst first."""
    from edgecv.commands.exporting import metric_line

    judged = {k: v for k, v in metric["per_class"].items() if v is not None}
    yield f"metric: {metric_line(metric)}"
    yield f"of {len(judged)} of {len(metric['per_class'])} classes:"
    for name, value in sorted(judged.items(), key=lambda item: item[1]):
        yield f"  {name} {100 * value:.2f}"


def _bundle(path: Path) -> dict[str, Any]:
    from edgecv.runtime.archive import read_bundle

    return describe(read_bundle(path))


def describe(contents: Contents) -> dict[str, Any]:
    """What `inspect` shows of a bundle: its manifest, long lists in few words."""
    manifest = dict(contents.manifest)
    labels = manifest.pop("labels", None) or []
    shown = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
    members = [f"{digest[:12]} {name}" for name, digest in manifest.pop("members").items()]
    return {**manifest, "classes": f"{len(labels)}: {shown}" if labels else "no labels",
            "members": members}  # fmt: skip


def _model(path: Path) -> dict[str, Any]:
    from edgecv import history
    from edgecv.model import Model

    model = Model.read(path)
    return {
        "model": str(path),
        "builder": model.builder,
        "args": model.args,
        "input": model.input,
        "labels": ", ".join(model.labels or ()),
        "history": history.of(model),
        "edits": len(model.edits),
    }
