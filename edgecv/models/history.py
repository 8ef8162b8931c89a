"""What became of a network, step by step, in words: for `inspect`, the end of a run, the report."""

from __future__ import annotations

import json
from typing import Any

from edgecv import tasks
from edgecv.errors import ModelError
from edgecv.models.edits import describe
from edgecv.models.model import Model

TEACHERS = {"self": "what it was", "model": "the network at the start"}


def of(model: Model) -> list[str]:
    """One line each for how it was built, for every edit, and for what every step measured.

    Raises ModelError: what model.json holds is not what steps write.
    """
    try:
        return _lines(model)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ArithmeticError):
        what = "is damaged: among edits and facts is what no step writes"
        raise ModelError("model.json", what, "save the Model again") from None


def _lines(model: Model) -> list[str]:
    arguments = ", ".join(f"{k}={v!r}" for k, v in model.args.items())
    found = [f"built by {model.builder}({arguments})"]
    left = list(model.edits)
    for step, facts in model.facts.items():
        found += [describe(edit) for edit in left if edit["step"] == step]
        left = [edit for edit in left if edit["step"] != step]
        if step == "subnormal_weights":
            found.append(f"{sum(facts.values())} subnormal weights set to zero")
        else:
            found.append(f"{step}: {summary(facts)}")
    return found + [describe(edit) for edit in left]


def summary(facts: dict[str, Any]) -> str:
    """A step's measurements on one line."""
    parts, metric = [], facts.get("metric", "top1")
    called = tasks.called(metric).replace("-", "")
    last = facts["rounds"][-1] if facts.get("rounds") else {}
    if "rounds" in facts and "method" in facts:
        on = f" on {last['target']} in {facts.get('precision', 'fp32')}" if "target" in last else ""
        parts.append(f"pruned by {facts['method']}{on}")
    if "macs" in facts:
        parts.append(f"{facts['macs_before']:,} → {facts['macs']:,} MACs")
    if f"{metric}_before_finetuning" in facts:
        parts.append(f"{called} {facts[f'{metric}_before_finetuning']:.4f} before fine-tuning")
    if last.get("got"):
        words = [f"{k} {v:g}, got {last['got'][k]:.3g}" for k, v in last["asked"].items()]
        parts.append(f"asked for {', '.join(words)}{_of(last.get('shares'))}")
    if "times_fewer" in facts:
        small = facts["bytes_values_and_bitmask"]
        parts.append(f"{facts['times_fewer']:g} times fewer connections, {small:,} bytes packed")
    if facts.get("epochs") and facts.get("loss"):
        epochs = f"{facts['epochs']} epoch{'s' if facts['epochs'] > 1 else ''}"
        teacher = facts.get("teacher", "none")
        taught = "" if teacher == "none" else f" taught by {TEACHERS.get(teacher, teacher)}"
        parts.append(f"{epochs}{taught}, loss {facts['loss'][-1]:.3f}")
    if metric in facts:
        parts.append(f"{called} {facts[metric]:.4f}")
    if "scratch" in facts:
        parts.append(f"its shape from scratch {facts['scratch'][metric]:.4f}")
    return ", ".join(parts) or json.dumps(facts)


def _of(shares: dict[str, float] | None) -> str:
    """Of what a ratio is the share, and what went of the whole network; "" of other measures."""
    if not shares:
        return ""
    every, macs = percent(shares["channels"]), percent(shares["macs"])
    return f" of the channels that can be pruned ({every} of all channels, {macs} of the MACs)"


def percent(share: float) -> str:
    """Few are not none, and all but a few not all: 0.0002 "0.02%", 0.9996 "99.96%", 0.94 "94%"."""
    near = min(share, 1 - share)
    return f"{100 * share:.0f}%" if near >= 0.01 or near <= 0 else f"{100 * share:.2f}%"
