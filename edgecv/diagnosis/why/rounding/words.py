"""What int8 costs on a terminal: a table of mechanisms, then each guilty one with its tensors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from edgecv.text_table import table

WIDTH = 96
CALLED = {
    "inside": "inside an activation", "joined": "joined quantities", "uneven": "uneven channels",
    "clipped": "clipped range", "outlier": "outlier sets range", "rounding": "other tensors",
}  # fmt: skip
TOLD = 3


def show(data: Mapping[str, Any], below: bool) -> None:
    """Print the JSON of `report.work`. below: other findings of `edgecv why` stand above it"""
    metric = data["metric"]
    head = ["what int8 costs", "tensors", "only these in int8", "all but these"]
    weights = data["weights"]
    rows = [["float network", "", _worth(data["float"], metric), ""],
            ["weights", str(weights["layers"]), _worth(weights, metric), ""]]  # fmt: skip
    rows += [
        [CALLED[g["kind"]], str(g["count"]), _worth(g["alone"], metric),
         _worth(g["without"], metric)]
        for g in data["groups"]
    ]  # fmt: skip
    rows.append(["all of it", "", _worth(data["all"], metric), ""])
    print("\n" if below else "", end="")
    table(head, rows, right=(1, 2, 3))
    what = metric or "dB from the float network's answers"
    print(f"{what}, {data['images']} images ({data['source']})")
    print(f"weights alone: {_cost(data, weights)}")
    guilty = [g for g in data["groups"] if g["guilty"]]
    for i, group in enumerate(guilty, 1):
        print()
        _say(f"{i}. ", f"{CALLED[group['kind']]}: {_tensors(group['count'])} alone cost "
                       f"{_cost(data, group['alone'])}")  # fmt: skip
        for one in told(data, group):
            _say("   ", f"{one['what']}; alone {_cost(data, one)}")
        _say("   change: ", group["change"])
    if not guilty:
        print("no mechanism alone costs much of it" if _lost(data) else "it costs next to nothing")
    for note in data["notes"]:
        _say("note: ", note)


def told(data: Mapping[str, Any], group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The worst tensors of a group; of one without a mechanism those that cost a point alone."""
    found = group["worst"][:TOLD]
    if group["kind"] != "rounding" or data["float"]["points"] is None:
        return list(found)
    real = data["float"]["points"]
    return [one for one in found if one["points"] is not None and real - one["points"] >= 1.0]


def _worth(found: Mapping[str, Any], metric: str) -> str:
    value = found["points"] if metric else found["db"]
    return "" if value is None else f"{value:.2f}" if metric else f"{value:.1f} dB"


def _cost(data: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if data["float"]["points"] is None or found["points"] is None:
        return f"{found['db']:.1f} dB"
    return f"{data['float']['points'] - found['points']:.1f} points ({found['db']:.1f} dB)"


def _lost(data: Mapping[str, Any]) -> bool:
    from edgecv.diagnosis.why.rounding.ablation import LEAST_DB, LEAST_POINTS

    if data["float"]["points"] is None:
        return bool(data["all"]["db"] < LEAST_DB)
    return bool(data["float"]["points"] - data["all"]["points"] >= LEAST_POINTS)


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _say(lead: str, text: str) -> None:
    print(textwrap.fill(lead + text, WIDTH, subsequent_indent=" " * len(lead),
                        break_on_hyphens=False))  # fmt: skip
