"""The report on a terminal says what its JSON holds."""

from __future__ import annotations

from typing import Any

import pytest

from edgecv.diagnosis.why.findings import MENDED, STATIC, Finding
from edgecv.diagnosis.why.terminal import show

SLOW = Finding(
    "s8s8", "signed activations", ("a", "b"), 0.5, "use u8", MENDED, (0.45, 0.55)
).to_json()
SEEN = Finding("misaligned", "12 channels", ("c",), 0.0, "use 16").to_json()
UNKNOWN = Finding("transpose", "one transposition", ("d",), None, "drop it", STATIC).to_json()
ROW = {"layer": "a", "name": "n", "op": "Conv", "precision": "fp32", "time_ms": 0.4, "share": 0.4,
       "bound": "compute"}  # fmt: skip


def report(**options: Any) -> dict[str, Any]:
    return {
        "bundle": "net.cpu.edgecv", "engine": "onnxruntime", "precision": "int8", "threads": 1,
        "executed": {"int8": 1, "fp32": 1}, "call_ms": 1.0, "not_run": "", "against": None,
        "readable": True, "notes": [], "findings": [SLOW], "noted": [], "budget_spent": False,
        "layers": [{"layer": "a", "executed": "fp32"}, {"layer": "b", "executed": "int8"}],
        "top": [ROW], **options,
    }  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    show(report(**options))
    return capsys.readouterr().out


def test_a_cause_with_its_cost_its_place_and_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert "1.000 ms a call" in text
    assert "asked for int8, ran in fp32: a" in text
    assert "0.500" in text
    assert "50%" in text
    assert "0.450 to 0.550 ms" in text
    assert "change: use u8" in text
    assert "compute-bound" in text


def test_nothing_found_says_so_and_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, findings=[], noted=[SEEN, UNKNOWN])
    assert "nothing found that costs time" in text
    assert "costs next to nothing here: misaligned: 12 channels" in text
    assert "cost not measured: transpose" in text
    assert "where the time goes" in text
    better = {**SEEN, "ms": -0.05, "bounds": [-0.06, -0.04]}
    assert "right as it is, mended it takes 0.050 ms more" in shown(capsys, noted=[better])


def test_an_engine_without_a_profiler_is_not_called_sound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    top = [{**t, "time_ms": None, "share": None} for t in report()["top"]]
    text = shown(capsys, findings=[], noted=[], top=top, not_run="generated C has no profiler")
    assert "no times by layer: generated C has no profiler" in text
    assert "where the time goes is not known" in text
    assert "nothing found" not in text
    assert "not run here" not in text


def test_what_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    away = {"call_ms": None, "executed": {}, "layers": [], "top": [], "not_run": "no GPU"}
    text = shown(capsys, findings=[UNKNOWN], **away)
    assert "not run here: no GPU" in text
    assert "one transposition" in text
    text = shown(capsys, findings=[], readable=False, notes=["built for 8.9"], **away)
    assert "the engine's file is not readable" in text
    assert "- built for 8.9" in text


def test_the_rival_and_a_spent_budget(capsys: pytest.CaptureFixture[str]) -> None:
    rival = {"bundle": "f", "precision": "fp32", "engine": "openvino", "latency_ratio": 1.5,
             "call_ms": 0.667}  # fmt: skip
    text = shown(capsys, against=rival, budget_spent=True)
    assert "against f (fp32 on openvino): 1.50 times its 0.667 ms" in text
    assert "budget was spent" in text
