"""What became of a network, step by step, in words: for `inspect`, the end of a run, the report."""

from __future__ import annotations

import json
from typing import Any

from edgecv.edits import describe
from edgecv.model import Model


def of(model: Model) -> list[str]:
    """One line each for how it was built, for every edit, and for what every step measured."""
    arguments = ", ".join(f"{k}={v!r}" for k, v in model.args.items())
    found = [f"built by {model.builder}({arguments})"]
    edited = {edit["step"] for edit in model.edits}
    found += [f"{step}: {told(facts)}" for step, facts in model.facts.items() if step not in edited]
    for i, edit in enumerate(model.edits):
        found.append(describe(edit))
        more = any(later["step"] == edit["step"] for later in model.edits[i + 1 :])
        if edit["step"] in model.facts and not more:
            found.append(f"{edit['step']}: {told(model.facts[edit['step']])}")
    return found


def told(facts: dict[str, Any]) -> str:
    """A step's measurements on one line."""
    parts = []
    if "macs" in facts:
        parts.append(f"{facts['macs_before']:,} → {facts['macs']:,} MACs")
    if "top1_before_finetuning" in facts:
        parts.append(f"top1 {facts['top1_before_finetuning']:.4f} before fine-tuning")
    if "rounds" in facts and "reached" in facts["rounds"][-1]:
        asked, reached = facts["rounds"][-1]["asked"], facts["rounds"][-1]["reached"]
        words = ", ".join(f"{k} {v:g}" for k, v in asked.items())
        parts.append(f"asked for {words}, {reached:.3f} of the network before")
    if "times_fewer" in facts:
        small = facts["bytes_values_and_bitmask"]
        parts.append(f"{facts['times_fewer']:g} times fewer connections, {small:,} bytes packed")
    if facts.get("epochs") and facts.get("loss"):
        epochs = f"{facts['epochs']} epoch{'s' if facts['epochs'] > 1 else ''}"
        parts.append(f"{epochs}, loss {facts['loss'][-1]:.3f}")
    if "top1" in facts:
        parts.append(f"top1 {facts['top1']:.4f}")
    if "scratch" in facts:
        parts.append(f"its shape from scratch {facts['scratch']['top1']:.4f}")
    return ", ".join(parts) or json.dumps(facts)
