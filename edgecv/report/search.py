"""What a search tried, as rows: the settings, what they kept, and which were taken or refused."""

from __future__ import annotations

from typing import Any

from edgecv.report import shape, words

Data = dict[str, Any]
TRIED = {
    "options": dict, "sqnr_db": shape.NUMBER, "agreement": shape.NUMBER, "figures?": dict,
    "met?": bool, "fidelity?": shape.NUMBER,
    "judged?": {"drop": shape.NUMBER, "bounds": shape.PAIR, "images": int},
}  # fmt: skip
SHAPE = {
    "limits": shape.Every(dict, shape.NUMBER), "met": bool, "chosen": int,
    "tried": shape.Every(list, TRIED),
    "refused": shape.Every(list, {"options": dict, "reason": str}),
}  # fmt: skip


def searches(rows: list[Data]) -> list[Data]:
    """{"target", "step", "limits", "met", "head", "lines"} of every row whose step searched."""
    found = []
    for row in rows:
        search = row.get("search")
        if search and not shape.wrong(search, SHAPE):
            names, asked = list(search["limits"]), any("fidelity" in t for t in search["tried"])
            lines = [
                _line(t, i == search["chosen"], names, asked) for i, t in enumerate(search["tried"])
            ]
            lines += [_refused(r, names, asked) for r in search["refused"]]
            beside = ["fidelity %"] if asked else []
            found.append({
                "target": row["target"], "step": row["step"], "limits": search["limits"],
                "met": search["met"], "lines": lines,
                "head": ["settings", "SQNR", "agreement %", *beside,
                         *(n.replace("_", " ") for n in names)],
            })  # fmt: skip
    return found


def setting(options: Data) -> str:
    """The knobs in words; layers in float are counted."""
    known = {k: v for k, v in options.items() if k != "keep_float"}
    parts = [str(v) for v in known.values() if isinstance(v, str)]
    parts += [k.replace("_", " ") for k, v in known.items() if v is True]
    parts += [f"{k.replace('_', ' ')} {v}" for k, v in known.items() if type(v) in (int, float)]
    kept = options.get("keep_float") or []
    parts += [words.plural(len(kept), "float layer")] if kept else []
    return ", ".join(parts)


def _line(tried: Data, chosen: bool, names: list[str], asked: bool) -> Data:
    """asked: whether the task's own fidelity to float is among the cells"""
    figures = tried.get("figures") or {}
    cells = [words.decibel(tried["sqnr_db"]), words.percent(tried["agreement"], 1)]
    cells += [words.percent(tried.get("fidelity"), 1)] if asked else []
    for name in names:
        shown = "" if figures.get(name) is None else f"{figures[name]:.3g}"
        if name == "accuracy_drop" and shown and (judged := tried.get("judged")):
            low, high = judged["bounds"]
            shown += f" ({low:.2g} to {high:.2g})"
        cells.append(shown)
    kept = ", ".join(map(str, tried["options"].get("keep_float") or ()))
    return {"setting": setting(tried["options"]), "cells": cells, "chosen": chosen, "kept": kept}


def _refused(refused: Data, names: list[str], asked: bool) -> Data:
    cells = ["refused", "", *([""] if asked else []), *("" for _ in names)]
    text = f"{setting(refused['options'])}: {refused['reason']}"
    return {"setting": text, "cells": cells, "chosen": False, "kept": ""}
