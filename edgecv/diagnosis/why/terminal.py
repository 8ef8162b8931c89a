"""The report of `edgecv why` on a terminal: causes as a table, then each with its change."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from edgecv.diagnosis.why.findings import named
from edgecv.text_table import table

WIDTH = 96


def show(data: Mapping[str, Any]) -> None:
    """Print the JSON of `edgecv.diagnosis.why.explain`."""
    call = data["call_ms"]
    took = f"{call:.3f} ms a call, {data['threads']} thread(s)" if call else "not run here"
    ran = ", ".join(f"{n} layers in {p}" for p, n in sorted(data["executed"].items()))
    print(f"{data['bundle']}: {data['precision']} on {data['engine']}, {took}")
    if ran:
        print(f"ran: {ran}")
    for other in sorted({r["executed"] for r in data["layers"]} - {None, data["precision"]}):
        layers = [r["layer"] for r in data["layers"] if r["executed"] == other]
        print(f"asked for {data['precision']}, ran in {other}: {named(layers, 6)}")
    timed = any(t["time_ms"] is not None for t in data["top"])
    if data["not_run"] and data["call_ms"] is not None:
        print(f"no times by layer: {data['not_run']}")
    elif data["not_run"]:
        print(f"not run here: {data['not_run']}; what the file alone shows follows")
    if rival := data["against"]:
        print(
            f"against {rival['bundle']} ({rival['precision']} on {rival['engine']}): "
            f"{rival['latency_ratio']:.2f} times its {rival['call_ms']:.3f} ms"
        )
    found = data["findings"]
    print()
    if found:
        rows = [
            [str(i), _ms(f["ms"]), _share(f["ms"], call), f["kind"], named(f["where"])]
            for i, f in enumerate(found, 1)
        ]
        table(["", "ms", "of a call", "cause", "where"], rows, right=(1, 2))
        for i, f in enumerate(found, 1):
            print()
            _say(f"{i}. ", f["what"] + _spread(f))
            _say("   change: ", f["change"])
    elif data["call_ms"] is None:
        said = (
            "nothing found in the file" if data["readable"] else "the engine's file is not readable"
        )
        print(f"{said}; what its maker noted follows" if data["notes"] else said)
        for note in data["notes"]:
            _say("- ", note)
    elif timed:
        print("nothing found that costs time: the layers below are where it goes")
    else:
        print("where the time goes is not known; the layers that multiply:")
    for f in data["noted"]:
        print()
        _say("seen, ", f"{_no_cause(f)}: {f['kind']}: {f['what']}")
    if data["top"]:
        print()
        rows = [
            [t["layer"] or t["name"], t["op"], t["precision"], _ms(t["time_ms"]),
             "" if t["share"] is None else f"{100 * t['share']:.0f}%",
             f"{t['bound']}-bound" if t["bound"] else ""]
            for t in data["top"]
        ]  # fmt: skip
        table(
            ["where the time goes" if timed else "layer", "op", "precision", "ms", "share", ""],
            rows,
            right=(3, 4),
        )
    if data["budget_spent"]:
        print("\nthe budget was spent before everything was measured: --budget 60s")


def _no_cause(finding: Mapping[str, Any]) -> str:
    """Why a finding is no cause."""
    if finding["ms"] is None:
        return "cost not measured"
    if finding["bounds"] and finding["bounds"][1] < 0.0:
        return f"right as it is, mended it takes {-finding['ms']:.3f} ms more"
    return "costs next to nothing here"


def _say(lead: str, text: str) -> None:
    print(textwrap.fill(lead + text, WIDTH, subsequent_indent=" " * len(lead)))


def _spread(finding: Mapping[str, Any]) -> str:
    bounds = finding["bounds"]
    if not bounds:
        return f" (from {finding['how']})"
    return f" (from {finding['how']}: {bounds[0]:.3f} to {bounds[1]:.3f} ms, 95%)"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(value: float | None, call: float | None) -> str:
    return "" if value is None or not call else f"{100 * value / call:.0f}%"
