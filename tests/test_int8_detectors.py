"""The frame of `benchmarks/int8_detectors.py`: rows are kept as they come, a failure is a row."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("PIL")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import int8_detectors

    return int8_detectors


@pytest.fixture
def bench(frame: Any, tmp_path: Path) -> Any:
    options = argparse.Namespace(work=tmp_path, only="", again=False, limit=20.0)
    bench = frame.Bench(Path("yolox_nano.onnx"), options)
    (bench.room / "fp32.json").write_text('{"commit": "abc"}')
    return bench


def _parts(found: float) -> dict[str, np.ndarray]:
    """Two pictures with an object each; what was found of them is right in that share."""
    images = 2
    return {
        "images": np.array(images), "image": np.arange(images, dtype=np.int32),
        "index": np.zeros(images, np.int16), "score": np.ones(images, np.float32),
        "matched": np.array([1023, 1023 if found == 1 else 0], np.uint16),
        "ignored": np.zeros(images, np.uint16),
        "truth_image": np.arange(images, dtype=np.int32),
        "truth_index": np.zeros(images, np.int16), "truth_count": np.ones(images, np.int32),
    }  # fmt: skip


def test_every_row_has_a_name_of_its_own(frame: Any) -> None:
    keys = [way.key for way in frame.ways()]
    assert len(set(keys)) == len(keys)
    assert {"raw-nncf-mixed", "rewritten-ort-percentile", "edgecv-drop-openvino"} <= set(keys)


def test_a_limit_ends_what_a_process_has_started(frame: Any, tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    found = frame.attempt([sys.executable, "-c", script], 0.5, tmp_path / "log")
    assert found["error"] == "not done after 0.5 s"
    assert found["seconds"] < 10


def test_the_last_line_says_why_a_tool_failed(frame: Any, tmp_path: Path) -> None:
    found = frame.attempt([sys.executable, "-c", "raise SystemExit('no')"], 20, tmp_path / "log")
    assert found["error"] == "no"


def test_a_job_that_fails_is_a_sentence(frame: Any, tmp_path: Path) -> None:
    job = {"do": "raw", "network": str(tmp_path), "file": str(tmp_path / "none.onnx"),
           "engine": "onnxruntime", "out": str(tmp_path)}  # fmt: skip
    assert frame.work(job, 60, tmp_path / "log")["error"].startswith("FileNotFoundError")


def test_what_is_known_is_not_made_again(
    frame: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def work(job: dict[str, Any], *_: Any) -> dict[str, Any]:
        made.append(job["do"])
        return {"error": "it cannot", "seconds": 1.0, "cpu_seconds": 1.0}

    monkeypatch.setattr(frame, "work", work)
    bench.options.only = "raw-nncf-default"

    def run() -> None:
        for way in frame.ways():
            bench.run(way, False)

    run()
    run()
    assert made == ["quantize"]
    bench.options.again = True
    run()
    assert made == ["quantize", "quantize"]


def test_the_page_says_what_was_lost_and_what_failed(
    frame: Any, bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, seconds = frame.int8_page, {"seconds": 3.0, "cpu_seconds": 2.0}
    about = {"more": {}, "images": 2, "executed": {"int8": 3}, "size_bytes": 1_000_000}
    for key, value in ((page.REFERENCE, 1.0), ("raw-ort-minmax@onnxruntime", 0.5)):
        way, _, engine = key.partition("@")
        (bench.rows / f"{way}.json").write_text(json.dumps(seconds))
        (bench.rows / f"{key}.json").write_text(json.dumps({"metric": value, **about}))
        np.savez(bench.rows / f"{key}.npz", **_parts(value))
        folder = bench.rows / ("raw-fp32" if "fp32" in way else way) / engine
        folder.mkdir(parents=True)
        (folder / "model.onnx").touch()
    failed = {"error": "RuntimeError: out of luck", **seconds}
    (bench.rows / "raw-nncf-mixed.json").write_text(json.dumps(failed))
    page.write([bench], list(frame.ways()), tmp_path / "out", 0.0)
    capsys.readouterr()
    text = (tmp_path / "out" / "int8_detectors.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| ONNX Runtime, min-max"))
    assert "| 50.00 | 49.50 [0.00, 100.00] |" in row  # of 101 recalls, 51 are reached by one half
    assert "3 (2) | 1.00 | 3 int8 |" in row
    assert "- NNCF, preset mixed, raw (openvino): RuntimeError: out of luck" in text
