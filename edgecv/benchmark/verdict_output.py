"""A gate's verdicts as a table, as JUnit XML and as Markdown for a job's summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from edgecv.benchmark.gate import SAME, SKIPPED, Check, Judged
from edgecv.benchmark.sequential_test import INCONCLUSIVE, PASS, REGRESSION
from edgecv.errors import StoreError
from edgecv.files import disk_errors, write_atomic
from edgecv.text_table import table

HEAD = (
    "bundle",
    "check",
    "baseline",
    "candidate",
    "change",
    "sure of",
    "limit",
    "floor",
    "verdict",
)
POINTS = "points"  # of a task's metric
MARKS = {PASS: "✅", REGRESSION: "❌", INCONCLUSIVE: "❔", SKIPPED: "➖"}


def rows(judged: Sequence[Judged]) -> list[list[str]]:
    """A row of HEAD for every check."""
    return [[pair.name, *_cells(check)] for pair in judged for check in pair.checks]


def _cells(c: Check) -> list[str]:
    unit = POINTS if c.name == "accuracy" else c.unit  # whatever the task calls its metric
    falls = unit in (POINTS, "dB")  # what is limited is how far
    bounds = ""
    if c.bounds and c.change is not None:
        bounds = f"{_change(c.bounds[0], unit)} to {_change(c.bounds[1], unit)}"
    return [
        f"{c.name} ({c.unit})" if unit == POINTS and c.unit != c.name else c.name,
        _value(c.baseline, unit),
        _value(c.candidate, unit),
        "" if c.change is None else _change(c.change, unit),
        bounds,
        "" if c.limit is None else _limit(-c.limit if falls else c.limit, unit),
        "" if c.floor is None else f"{c.floor:.1%}",
        c.verdict,
    ]


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == POINTS:
        return f"{100 * value:.2f}"
    if unit == "dB":
        return f"{value:.1f} dB"
    return f"{value:,.0f} B" if unit == "bytes" else f"{value:.3f} {unit}"


def _change(value: float, unit: str) -> str:
    if unit == "dB":
        return f"{value if abs(value) >= 0.05 else 0.0:+.1f} dB"
    value = 100 * value + 0.0  # no negative zero
    if unit == POINTS:
        return f"{value if abs(value) >= 0.005 else 0.0:+.2f} pt"
    return f"{value if abs(value) >= 0.05 else 0.0:+.1f}%"


def _limit(value: float, unit: str) -> str:
    """As it was given: 0.05% is no 0.1%."""
    if unit == "dB":
        return f"{value:+.4g} dB"
    return f"{100 * value:+.4g}" + (" pt" if unit == POINTS else "%")


def details(judged: Sequence[Judged]) -> list[str]:
    """A sentence for everything that a reader should know beside the table; what holds of several
    bundles is said once, of all of them."""
    said: dict[str, list[str]] = {}
    for pair in judged:
        for check in pair.checks:
            if check.reason and check.verdict != PASS:
                hint = f" ({check.hint})" if check.hint else ""
                line = f"{check.name} {check.verdict}: {check.reason}{hint}"
                said.setdefault(line, []).append(pair.name)
        for note in pair.notes:
            said.setdefault(note, []).append(pair.name)
    return [f"{', '.join(dict.fromkeys(names))}: {line}" for line, names in said.items()]


def footnotes(judged: Sequence[Judged]) -> list[str]:
    """What the columns mean."""
    checks = [c for pair in judged for c in pair.checks]
    found = []
    if any(c.floor is not None for c in checks):
        floor = "the baseline against itself, or what two runs' errors add up to"
        found.append(f"floor: noise, {floor}")
    if any("calibration" in (pair.measured or {}) for pair in judged):
        change = "over the calibration workload's, then and now, and not of the milliseconds"
        found.append(f"latency with a stored baseline: the change is of the latency {change}")
    if any(c.name == "fidelity" and c.verdict == PASS and c.reason for c in checks):
        found.append(f"fidelity: {SAME}")  # of other verdicts `details` says it
    return found


def show(judged: Sequence[Judged], verdict: str) -> None:
    """The table on a terminal."""
    table(HEAD, rows(judged), right=range(2, 8))
    print()
    for line in details(judged):
        print(line)
    print(*footnotes(judged), verdict, sep="\n")


def markdown(judged: Sequence[Judged], verdict: str) -> str:
    """For $GITHUB_STEP_SUMMARY, or a merge request's comment."""
    lines = [f"### {MARKS[verdict]} edgecv gate: {verdict}", ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---|---|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows(judged):
        *cells, last = (cell.replace("|", "\\|").replace("<", "&lt;") for cell in row)
        lines.append("| " + " | ".join([*cells, f"{MARKS[row[-1]]} {last}"]) + " |")
    # A reason may be an engine's own message, of several lines.
    notes = [f"- {' '.join(line.split()).replace('<', '&lt;')}" for line in details(judged)]
    return "\n".join([*lines, "", *notes, *(f"- {n}" for n in footnotes(judged))]) + "\n"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises StoreError for whatever keeps a file from being written."""
    try:
        with disk_errors(path.parent):
            yield
    except (FileNotFoundError, IsADirectoryError) as e:
        what = f"cannot be written: {e.strerror}"
        raise StoreError(str(path), what, "name a file in a folder that is there") from None


def append(path: Path, text: str) -> None:
    """Add text to a file. Raises StoreError."""
    with _writing(path), path.open("a", encoding="utf-8") as f:
        f.write(text)


def write_junit(path: Path, judged: Sequence[Judged]) -> None:
    """JUnit XML: a regression is a failure; what is inconclusive is skipped, and its message says
    so. An error would count as failed where a report is read without the exit code.

    Raises StoreError.
    """
    checks = [(pair, check) for pair in judged for check in pair.checks]
    count = {v: sum(c.verdict == v for _, c in checks) for v in MARKS}
    suite = ElementTree.Element(
        "testsuite", name="edgecv gate", tests=str(len(checks)), failures=str(count[REGRESSION]),
        errors="0", skipped=str(count[SKIPPED] + count[INCONCLUSIVE]),
    )  # fmt: skip
    for pair, check in checks:
        spent = (pair.measured or {}).get("seconds", 0) if check.name == "latency" else 0
        case = ElementTree.SubElement(
            suite, "testcase", classname=pair.name, name=check.name, time=f"{spent:.2f}"
        )
        figures = " ".join(filter(None, _cells(check)[1:4]))
        said = INCONCLUSIVE if check.verdict == INCONCLUSIVE else ""
        words = "; ".join(filter(None, [said, figures, check.reason, check.hint]))
        message = "".join(c if c.isprintable() else " " for c in words)  # XML knows no escapes
        kind = {REGRESSION: "failure", INCONCLUSIVE: "skipped", SKIPPED: "skipped"}.get(
            check.verdict
        )
        if kind:
            ElementTree.SubElement(case, kind, message=message)
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode")
    with _writing(path):
        write_atomic(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
