"""`edgecv gate` as CI calls it: real bundles on the real clock, exit codes, files it writes.

What a gate says of two networks depends on the clock only where the difference is gross: the slow
network here has some hundred times the work of the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from edgecv.cli import main
from edgecv.runtime.archive import write_bundle
from tests.benchmark.judged import answer
from tests.runtime.conftest import described, golden, network

QUICK = ("--budget", "4s", "--max-memory-growth", "none")
WIDE = ("--max-slowdown", "100%", *QUICK)


def bundle(path: Path, size: int = 8) -> Path:
    """A tiny real network on size x size pixels."""
    model, manifest = network(size), described(size)
    return write_bundle(path, manifest, {"model.onnx": model}, *golden(model, manifest))


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("fast") / "net.edgecv", 16)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("slow") / "net.edgecv", 200)


@pytest.fixture(scope="module")
def baseline(edgecv: Callable, fast: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "baseline.json"
    done = calm(edgecv, "gate", path, fast, "--update", *QUICK)
    assert done.code == 0, done.err
    assert "baseline.json written" in done.out
    return path


def calm(edgecv: Callable, *arguments: object) -> Any:
    """The command's answer, once the machine lets it have one: what is compared with another day
    is not judged while others have the processor."""
    for _ in range(4):
        done = edgecv(*arguments)
        if "others had the processor" not in done.out:
            return done
    pytest.skip("this machine is too busy")


def checks(done) -> dict[str, dict]:
    (pair,) = json.loads(done.out)["pairs"]
    return {check["name"]: check for check in pair["checks"]}


def test_a_bundle_passes_against_itself(edgecv: Callable, fast: Path) -> None:
    done = edgecv("gate", fast, fast, *WIDE)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1] == "pass"
    latency = next(line for line in done.out.splitlines() if " latency " in line)
    assert latency.endswith("pass")


def test_a_much_slower_bundle_is_a_regression(edgecv: Callable, fast: Path, slow: Path) -> None:
    done = edgecv("gate", fast, slow, "--json", *WIDE)
    assert done.code == 1, done.err
    found = checks(done)["latency"]
    assert found["verdict"] == "regression"
    assert found["change"] > 1
    assert found["bounds"][0] > 1
    assert found["floor"] < 1


def test_a_limit_below_the_noise_does_not_hide_a_much_slower_bundle(
    edgecv: Callable, fast: Path, slow: Path
) -> None:
    done = edgecv("gate", fast, slow, "--max-slowdown", "0.01%", "--json", *QUICK)
    assert done.code == 1, done.out
    found = checks(done)["latency"]
    assert found["verdict"] == "regression"
    assert found["bounds"][0] > found["floor"] > 0.0001
    assert (found["reason"], found["hint"]) == ("", "")


def test_a_limit_below_the_noise_is_refused_with_a_hint(edgecv: Callable, fast: Path) -> None:
    done = edgecv("gate", fast, fast, "--max-slowdown", "0.01%", "--json", *QUICK)
    assert done.code == 4, done.out
    found = checks(done)["latency"]
    assert found["verdict"] == "inconclusive"
    assert "noise floor" in found["reason"]
    assert "--max-slowdown" in found["hint"]


def test_a_stored_baseline(edgecv: Callable, baseline: Path, fast: Path, slow: Path) -> None:
    assert baseline.stat().st_size < 4096
    same = calm(edgecv, "gate", baseline, fast, "--json", *WIDE)
    assert same.code == 0, same.out
    assert checks(same)["latency"]["baseline"] > 0
    worse = calm(edgecv, "gate", baseline, slow, "--json", *WIDE)
    assert worse.code == 1, worse.out


def test_an_update_says_what_it_kept_and_what_adds_to_it(
    fast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Busy, calm and busy again: the clock's answers are given."""
    path, found = tmp_path / "baseline.json", answer()
    monkeypatch.setattr("edgecv.commands.gate.runner", lambda *_: lambda *_: found)

    def update(busy: bool) -> tuple[int, str]:
        found["candidate"]["busy"] = busy
        return main(["gate", str(path), str(fast), "--update"]), capsys.readouterr().out

    code, said = update(busy=True)
    assert (code, "not kept: others had the processor" in said, "stands" in said) == (
        4,
        True,
        False,
    )
    assert f"0 of 1 latencies measured were kept in {path}; the same command again adds" in said
    assert "github-actions-two-builds.yml" in said
    assert "no_latency" in path.read_text()
    code, said = update(busy=False)
    assert (code, said.endswith(f"{path} written\n")) == (0, True)
    kept = path.read_text()
    code, said = update(busy=True)
    digest = json.loads(kept)["bundles"]["net"]["digest"]
    assert code == 4
    assert f"; an older figure of digest {digest[:12]} stands" in said
    assert path.read_text() == kept


def test_a_baseline_of_another_machine_settles_nothing(
    edgecv: Callable, baseline: Path, fast: Path, tmp_path: Path
) -> None:
    data = json.loads(baseline.read_text())
    data["machines"][0]["machine"]["cpu"] = "Cortex-A76"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    done = edgecv("gate", other, fast, *WIDE)
    assert done.code == 4
    assert "Cortex-A76" in done.out
    assert "too unlike" in done.out
    # and --update adds this one beside it
    assert calm(edgecv, "gate", other, fast, "--update", *QUICK).code == 0
    assert len(json.loads(other.read_text())["machines"]) == 2
    assert calm(edgecv, "gate", other, fast, *WIDE).code == 0


def test_files_for_ci(edgecv: Callable, fast: Path, slow: Path, tmp_path: Path) -> None:
    junit, summary = tmp_path / "gate.xml", tmp_path / "summary.md"
    summary.write_text("# before\n")
    done = edgecv("gate", fast, slow, "--junit", junit, "--summary", summary, *WIDE)
    assert done.code == 1
    suite = ElementTree.parse(junit).getroot()
    assert int(suite.get("failures", "0")) >= 1
    assert suite.find("testcase[@name='latency']/failure") is not None
    text = summary.read_text()
    assert text.startswith("# before\n")
    assert "regression" in text
    assert "| net | latency |" in text


def test_the_summary_goes_where_github_says(
    edgecv: Callable, fast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    assert edgecv("gate", fast, fast, "--summary", *WIDE).code == 0
    assert "edgecv gate: pass" in (tmp_path / "step.md").read_text()


def test_a_run_against_itself(edgecv: Callable, finished) -> None:
    """Bundles that cannot run here are said to be, and are no failure."""
    done = edgecv("gate", finished.out, finished.out, "--max-slowdown", "500%", "--json", *QUICK)
    data = json.loads(done.out)
    assert done.code == 0, done.out
    pairs = {pair["name"]: pair for pair in data["pairs"]}
    assert {"small-int8.cpu", "dense.openvino", "small-int8.tflite"} <= pairs.keys()
    accuracy = next(c for c in pairs["small-int8.cpu"]["checks"] if c["name"] == "accuracy")
    assert (accuracy["verdict"], accuracy["change"]) == ("pass", 0)
    rtx = next(c for c in pairs["small-int8.tensorrt"]["checks"] if c["name"] == "latency")
    assert (rtx["verdict"], "not run here" in rtx["reason"]) == ("skipped", True)


def test_what_is_no_baseline_is_refused_and_left_alone(
    edgecv: Callable, fast: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "package.json"
    precious.write_text('{"name": "mine"}')
    for arguments in ((), ("--update",)):
        done = edgecv("gate", precious, fast, *arguments, *QUICK)
        assert done.code == 2
        assert "package.json: is no " in done.err
    assert precious.read_text() == '{"name": "mine"}'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.json", "{fast}"), "there is no baseline yet"),
        (("{fast}", "missing.edgecv"), "missing.edgecv: no such file"),
        (("{fast}", "{fast}", "--max-slowdown", "fast"), "'fast' is no percentage"),
        (("{fast}", "{fast}", "--max-slowdown=-5%"), "'-5%' is no percentage"),
        (("{fast}", "{fast}", "--budget", "soon"), "'soon' is not a time"),
        (("{fast}", "{fast}", "--threads", "0"), "--threads: is 0"),
        (("{fast}", "{fast}", "--junit", "nowhere/x.xml"), "its folder is not there"),
        (("{fast}", "{fast}", "--update"), "is no name of a baseline file"),
        (("nowhere/baseline.json", "{fast}", "--update", *QUICK), "its folder is not there"),
        (("{fast}", "{fast}", "--device", "rpi5"), "device"),
    ],
)
def test_bad_input_is_one_line(
    edgecv: Callable, fast: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = edgecv("gate", *(a.format(fast=fast) for a in arguments), cwd=tmp_path)
    assert done.code == 2, done.out
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize("quiet", [(), ("-q",), ("--json",)])
def test_what_is_measured_is_said_meanwhile(
    edgecv: Callable, fast: Path, tmp_path: Path, quiet: tuple[str, ...]
) -> None:
    done = edgecv("gate", tmp_path / "b.json", fast, "--update", *QUICK, *quiet)
    begun, *_, last = done.err.splitlines() or ["", ""]
    if quiet:
        assert done.err == ""
    else:
        assert begun.startswith("… net"), done.err
        assert last.startswith("✓ net"), done.err
    assert "net" in done.out


def test_without_a_baseline_it_says_how_to_make_one(
    tmp_path: Path, fast: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, made in (("kept.json", str(tmp_path / "kept.json")), ("kept", "baseline.json")):
        assert main(["gate", str(tmp_path / name), str(fast)]) == 2
        said = capsys.readouterr().err
        assert "there is no baseline yet" in said
        assert f"edgecv gate {made} {fast} --update" in said
