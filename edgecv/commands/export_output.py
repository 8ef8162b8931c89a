"""What `edgecv export` prints: files, fidelity, accuracy, a row for each target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgecv import tasks
from edgecv.errors import EdgecvError
from edgecv.text_table import table

if TYPE_CHECKING:
    from edgecv.measuring.facts import BundleFacts
    from edgecv.quick_export import Exported


def exit_code_of(found: Exported | EdgecvError) -> int:
    """What one target's outcome would end the command with."""
    if isinstance(found, EdgecvError):
        return found.exit_code
    return 1 if found.verdict and not found.verdict["met"] else 0


def json_of(found: Exported | EdgecvError) -> dict[str, Any]:
    """One target's outcome for --json."""
    from edgecv.api.export import data_of

    if isinstance(found, EdgecvError):
        return {"error": str(found), "exit_code": found.exit_code}
    return data_of(found)


def print_one(made: Exported) -> None:
    """The files of one target, and what is known of them."""
    facts = made.facts
    print(f"{made.bundle}  {facts.size_bytes:,} bytes")
    for path in made.files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    ran = ", ".join(f"{n} layers in {p}" for p, n in sorted(facts.executed.items()))
    print(f"ran: {ran}" if ran else f"not run here: {facts.reason}")
    for line in fidelity_lines(facts):
        print(line)
    if metric := facts.metric:
        print(metric_line(metric, _judged(facts)))


def _judged(facts: BundleFacts) -> Mapping[str, Any] | None:
    """How sure the drop of what a search chose is, where it was judged on labels."""
    search = facts.search or {}
    chosen = search["tried"][search["chosen"]] if search else {}
    found: Mapping[str, Any] | None = chosen.get("judged")
    return found


def metric_line(metric: Mapping[str, Any], judged: Mapping[str, Any] | None = None) -> str:
    """Accuracy in a line, with what stands beside it. judged: its drop, and how sure that is"""
    from edgecv.report import words

    said = f"{tasks.called(metric['name'])} {100 * metric['value']:.2f}"
    more, name = metric.get("more") or {}, metric["name"]
    known = words.figures(key for key, value in more.items() if value is not None)
    beside = [f"{words.figure(key)} {words.beside(more[key], name, key)}" for key in known]
    rest = f" ({', '.join(beside)})" if beside else ""
    drop = lost(metric)
    if judged:
        low, high = judged["bounds"]
        rest += f", {judged['drop']:.2f} points ({low:.2f} to {high:.2f}) below fp32"
    elif drop is not None:
        way = "below" if drop >= 0 else "above"
        rest += f", {abs(drop):.2f} points {way} fp32's {100 * metric['reference']:.2f}"
    return f"{said}{rest} on {metric['samples']:,} images"


def lost(metric: Mapping[str, Any] | None) -> float | None:
    """Points of accuracy below fp32's; None where fp32's is not known."""
    if metric is None or metric.get("reference") is None:
        return None
    return 100.0 * float(metric["reference"] - metric["value"])


def print_table(found: Mapping[str, Exported | EdgecvError]) -> None:
    """A row for each target; why one got no bundle below."""
    made = [one.facts.metric for one in found.values() if not isinstance(one, EdgecvError)]
    points = next((tasks.called(m["name"]) for m in made if m), "top-1")
    head = ("target", "bundle", "bytes", "layers that ran", "dB from float", points, "fp32",
            "vs fp32")  # fmt: skip
    rows = []
    for name, one in found.items():
        if isinstance(one, EdgecvError):
            rows.append((name, "none", *[""] * (len(head) - 2)))
            continue
        facts = one.facts
        against = facts.parity["float"] or facts.parity["graph"]
        ran = ", ".join(f"{n} {precision}" for precision, n in sorted(facts.executed.items()))
        drop = lost(facts.metric)
        rows.append((
            name, one.bundle.name, f"{facts.size_bytes:,}", ran or "not run here",
            f"{against['sqnr_db']:.1f}" if against else "",
            f"{100 * facts.metric['value']:.2f}" if facts.metric else "",
            f"{100 * facts.metric['reference']:.2f}" if facts.metric and drop is not None else "",
            f"{-drop:+.2f}" if drop is not None else "",
        ))  # fmt: skip
    # accuracy where it was measured on labels, fp32's where that is another's
    kept = 8 if any(row[7] for row in rows) else 6 if any(row[5] for row in rows) else 5
    table(head[:kept], [row[:kept] for row in rows], right=(2, 4, 5, 6, 7)[: kept - 3])
    for name, one in found.items():
        if not isinstance(one, EdgecvError) and _has_parts(one.facts):
            for line in fidelity_lines(one.facts):
                print(f"{name}: {line}")
    for name, one in found.items():
        if isinstance(one, EdgecvError):
            print(f"no bundle for {name}: {one}")


def _has_parts(facts: BundleFacts) -> bool:
    """Whether the column's figure is the worst of several outputs' or groups'."""
    return bool((facts.parity["float"] or facts.parity["graph"] or {}).get("outputs"))


def notes(made: Mapping[str, Exported], several: bool) -> Iterator[str]:
    """What was found on the way, once each; with its targets where not all of several share it."""
    of: dict[str, list[str]] = {}
    for name, one in made.items():
        said = (*one.facts.notes, *one.facts.warnings)
        reason = one.facts.reason if several else ""  # of one target it stands above
        if reason and not any(note in reason for note in said):
            said += (reason,)
        for note in dict.fromkeys(said):
            of.setdefault(note, []).append(name)
    for note, names in of.items():
        whose = "" if len(names) == len(made) else f" ({', '.join(names)})"
        yield f"note{whose}: {note}"


def fidelity_lines(facts: BundleFacts) -> Iterator[str]:
    """What will run against float; where it did not run here, what is known of its graph."""
    from edgecv.report.words import fidelity

    parity, made_up, classifies = facts.parity, facts.made_up, facts.task == "classification"
    if ran := parity["float"]:
        yield f"against float: {fidelity(ran, made_up, classifies)}"
    elif ran := parity["compiled"]:
        file = "the file's own integers" if facts.executed.get("int8") else "the file"
        yield f"the engine against {file}, node by node: {fidelity(ran, made_up, classifies)}"
    elif graph := parity["graph"]:
        yield f"the graph, not the engine, against float: {fidelity(graph, made_up, classifies)}"
    if asked := facts.fidelity:
        points = f"{100 * asked['value']:.1f} of 100 {tasks.called(asked['metric'])}"
        yield f"the graph, with float's answers for the truth: {points}, without labels"
