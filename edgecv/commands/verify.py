"""`edgecv verify`: replay what a bundle was proven on. Works on a device."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from edgecv.commands.common import existing
from edgecv.errors import EdgecvError, RecipeError
from edgecv.terminal import print_json, printable

if TYPE_CHECKING:
    from edgecv.runtime.parts import Part


def register(command: Any) -> None:
    verify = command("verify", run_verify, "Replay a bundle's golden inputs and compare.")
    verify.add_argument("bundles", nargs="+", type=existing, help=".edgecv files")
    verify.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")


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
