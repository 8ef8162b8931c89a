"""`edgecv parity`: a bundle beside what it was made from, step by step."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv.commands.bench import add_device
from edgecv.commands.common import Bar, add_trust, existing, place
from edgecv.terminal import print_json

SHOWN = 8


def register(command: Any) -> None:
    made = command(
        "parity",
        run_parity,
        "Compare a bundle with what it was made from, step by step, and name the first that "
        "differs: exit code 0 agrees, 1 differs.",
    )
    made.add_argument("bundle", type=existing, metavar="BUNDLE", help=".edgecv file")
    made.add_argument(
        "--against", type=existing, metavar="REFERENCE",
        help="a Model folder, an .onnx or .tflite file, or another bundle "
        "(default: what the run made the bundle from)",
    )  # fmt: skip
    made.add_argument(
        "--images", type=existing, metavar="DIR",
        help="image files; sub-folders named as labels give top-1 (default: the run's test data, "
        "else the bundle's golden inputs)",
    )  # fmt: skip
    made.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="images to compare (default: all up to 128)",
    )
    add_device(made)  # fmt: skip
    add_trust(made)


def run_parity(options: argparse.Namespace) -> int:
    from edgecv.api.parity import compared

    with Bar("parity", quiet=options.json) as bar:
        data = compared(
            options.bundle, options.against, options.images, options.samples, place(options), bar
        )
    if options.json:
        print_json(data)
    else:
        show(data)
    return 0 if data["agrees"] else 1


def show(data: dict[str, Any]) -> None:
    """The ladder, the first finding, the layers that lose most and top-1 of each form."""
    from edgecv.report import words
    from edgecv.text_table import table

    rows = []
    for rung in data["rungs"]:
        p = rung["parity"]
        rows.append([
            rung["step"], f"{rung['from']} → {rung['to']}", f"{p['sqnr_db']:.1f}",
            f"{rung['limit']['min_sqnr_db']:.0f}", f"{p['cosine']:.5f}",
            _share(p["top1_agreement"]), _shared(rung), "ok" if rung["agrees"] else "DIFFERS",
        ])  # fmt: skip
    counted = next((r["shared"]["of"] for r in data["rungs"] if r.get("shared")), "")
    head = ["step", "compared", "SQNR dB", "at least", "cosine", "top-1 agreement",
            f"same {counted}", ""]  # fmt: skip
    classifies = data["task"] == "classification"
    agreement = classifies or any(_by_agreement(rung) for rung in data["rungs"])
    shown = [
        i for i in range(len(head)) if (i, agreement) != (5, False) and (i, counted) != (6, "")
    ]
    table(
        [head[i] for i in shown], [[row[i] for i in shown] for row in rows],
        right=range(2, len(shown) - 1),
    )  # fmt: skip
    if whole := data["whole"]:
        said = words.fidelity(whole["parity"], False, classifies)
        if share := _shared(whole):
            said += f", same {counted} {share}"
        print(f"\n{whole['from']} → {whole['to']}: {said}")
    print()
    _layers(data["layers"])
    if data["accuracy"]:
        said = ", ".join(
            f"{a['role']} {100 * a['top1']:.2f}% ({a['form']})"
            for a in data["accuracy"]
            if a["role"]
        )
        print(f"top-1 on {data['samples']} images: {said}")
    for note in data["notes"]:
        print(f"note: {note}")
    wrong = [r for r in data["rungs"] if not r["agrees"]]
    for i, rung in enumerate(wrong):
        finding = rung["finding"] or {"cause": "beyond its tolerance"}
        print(f"{'first ' if not i else ''}differs at {rung['step']}: {finding['cause']}")
    if not wrong:
        print(f"agrees with {data['against']} on {data['samples']} images ({data['images']})")


def _layers(rows: list[dict[str, Any]]) -> None:
    from edgecv.text_table import table

    if not rows:
        return
    worst = sorted(rows, key=lambda r: r["sqnr_db"] if r["own_db"] is None else r["own_db"])
    cells = [
        [r["layer"], r["kind"], f"{r['sqnr_db']:.1f}", _db(r["own_db"]), f"{r['drop_db']:.1f}",
         f"{100 * r['saturated']:.2f}", "" if r["used"] is None else f"{r['used']:.2f}"]
        for r in worst[:SHOWN]
    ]  # fmt: skip
    head = ["layer", "kind", "SQNR dB", "own", "drop", "beyond range %", "range used"]
    table(head, cells, right=range(2, 7))
    if len(rows) > SHOWN:
        print(f"({len(rows) - SHOWN} more with --json)")
    print()


def _by_agreement(rung: dict[str, Any]) -> bool:
    """Whether equal best entries, or whole numbers, are what a rung is judged wrong by."""
    found, least = rung["parity"]["top1_agreement"], rung["limit"]["min_agreement"]
    whole = rung["parity"].get("indices", False)
    return whole or (found is not None and not rung["agrees"] and found < least)


def _shared(compared: dict[str, Any]) -> str:
    """The share of a task's answers that both forms give; of few also their number."""
    found = compared.get("shared")
    if not found:
        return ""
    both, either = found["both"], found["either"]
    if not either:
        return "none"
    return f"{both / either:.3f}" + (f" ({both:,} of {either:,})" if either < 100_000 else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
