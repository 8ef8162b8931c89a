"""What people and CI systems see of a gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgecv.benchmark import verdict_output
from edgecv.benchmark.gate import Check, Judged
from edgecv.errors import StoreError

NAME = 'a<b>|"c"&d'
PAIR = Judged(
    NAME,
    (
        Check("latency", "regression", 1.0, 1.2, "ms", 0.2, (0.1, 0.3), 0.05, 0.01),
        Check("accuracy", "inconclusive", 0.9, 0.88, "top-1", -0.02, (-0.03, -0.01), 0.005,
              reason="3 < 5", hint="more | images"),
        Check("size", "pass", 1000, 1010, "bytes", 0.01, limit=0.02),
        Check("memory", "skipped", reason="not measured"),
    ),
    {"seconds": 2.5},
    ("the machine was busy",),
)  # fmt: skip


def test_rows() -> None:
    latency, accuracy, size, memory = verdict_output.rows([PAIR])
    assert latency == [
        NAME, "latency", "1.000 ms", "1.200 ms", "+20.0%", "+10.0% to +30.0%", "+5%", "1.0%",
        "regression",
    ]  # fmt: skip
    assert accuracy[2:7] == ["90.00", "88.00", "-2.00 pt", "-3.00 pt to -1.00 pt", "-0.5 pt"]
    boxes = replace(PAIR.checks[1], unit="mAP")
    assert accuracy[1] == "accuracy (top-1)"
    (other,) = verdict_output.rows([Judged(NAME, (boxes,))])
    assert (other[1], other[2:]) == ("accuracy (mAP)", accuracy[2:])
    assert size[2:5] == ["1,000 B", "1,010 B", "+1.0%"]
    assert memory[2:8] == [""] * 6
    lost = Check("fidelity", "regression", 30.0, 27.96, "dB", -2.04, limit=1.0)
    ((_, *fidelity),) = verdict_output.rows([Judged("a", (lost,))])
    assert fidelity[1:7] == ["30.0 dB", "28.0 dB", "-2.0 dB", "", "-1 dB", ""]


def test_markdown_has_a_row_for_every_check_and_nothing_breaks_out() -> None:
    text = verdict_output.markdown([PAIR], "regression")
    assert text.startswith("### ❌ edgecv gate: regression")
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + len(PAIR.checks)
    assert {line.replace("\\|", "").count("|") for line in table} == {len(verdict_output.HEAD) + 1}
    assert "<b>" not in text
    assert "the machine was busy" in text


def test_what_counts_as_the_same_is_said_once() -> None:
    said = "above 60 dB counts as the same"
    reason = f"judged as -32.2 dB: {said}"
    found = {
        v: verdict_output.markdown([Judged("net", (Check("fidelity", v, reason=why),))], v)
        for v, why in (("pass", reason), ("regression", reason))
    }
    assert found["pass"].endswith(f"- fidelity: {said}\n")
    assert found["regression"].endswith(f"- net: fidelity regression: {reason}\n")
    assert said not in verdict_output.markdown(
        [Judged("net", (Check("fidelity", "pass"),))], "pass"
    )


def test_an_engines_message_of_several_lines_is_one_item_of_the_list() -> None:
    check = Check("latency", "inconclusive", reason="engine:\n  # no\n- such node")
    text = verdict_output.markdown([Judged("net", (check,))], "inconclusive")
    assert text.splitlines()[-1] == "- net: latency inconclusive: engine: # no - such node"


def test_junit(tmp_path: Path) -> None:
    path = tmp_path / "gate.xml"
    verdict_output.write_junit(path, [PAIR])
    suite = ElementTree.parse(path).getroot()
    counts = {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "2"}
    cases = {case.get("name"): case for case in suite}
    assert {case.get("classname") for case in cases.values()} == {NAME}
    assert [cases[n][0].tag for n in ("latency", "accuracy", "memory")] == [
        "failure", "skipped", "skipped",
    ]  # fmt: skip
    assert len(cases["size"]) == 0
    message = cases["accuracy"][0].get("message", "")
    assert message.startswith("inconclusive; ")
    assert "more | images" in message
    assert "inconclusive" not in cases["memory"][0].get("message", "")
    assert cases["latency"].get("time") == "2.50"


def test_a_summary_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    verdict_output.append(path, "a\n")
    verdict_output.append(path, "b\n")
    assert path.read_text() == "a\nb\n"


def test_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    verdict_output.show([PAIR], "regression")
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == "regression"
    for part in (NAME, "3 < 5 (more | images)", "memory skipped: not measured", "floor"):
        assert part in shown


def test_what_an_engine_printed_in_colour_is_still_xml(tmp_path: Path) -> None:
    path = tmp_path / "gate.xml"
    said = Check("latency", "inconclusive", reason="died: \x1b[31mred\x1b[0m \x00")
    verdict_output.write_junit(path, [Judged("net", (said,))])
    assert "red" in ElementTree.parse(path).getroot()[0][0].get("message", "")


@pytest.mark.parametrize("place", ["no/such/file", "."])
def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(StoreError):
        verdict_output.append(tmp_path / place, "text")
    with pytest.raises(StoreError):
        verdict_output.write_junit(tmp_path / place, [PAIR])


def test_what_holds_of_several_bundles_is_said_once() -> None:
    check = Check("latency", "inconclusive", reason="a busy machine", hint="wait")
    pairs = [Judged(name, (check,), notes=("numpy 1 before, 2 now",)) for name in ("a", "b")]
    assert verdict_output.details(pairs) == [
        "a, b: latency inconclusive: a busy machine (wait)",
        "a, b: numpy 1 before, 2 now",
    ]
