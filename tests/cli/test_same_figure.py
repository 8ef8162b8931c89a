"""A bundle has one figure: `export`, `parity`, the report and results.json say the same of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.binary import build
from edgecv.cli import main

for library in ("torch", "onnxruntime", "openvino", "ai_edge_litert", "ai_edge_quantizer"):
    pytest.importorskip(library)

BUNDLES = (
    ("dense", "cpu"), ("small-int8", "cpu"), ("dense", "openvino"), ("small-int8", "openvino"),
    ("small-int8", "tflite"), ("small-int8", "c"),
)  # fmt: skip
MODELS = {"dense": "dense", "small-int8": "small"}  # step -> the network that it was made of
PRECISIONS = {"dense": "fp32", "small-int8": "int8"}


@pytest.fixture(scope="module")
def run(finished: object, edgecv: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's run and beside it the same recipe for the C target too: only that is made."""
    if build.compiler() is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("figures") / "project"
    shutil.copytree(finished.folder, folder)  # type: ignore[attr-defined]
    recipe = folder / "tiny.yaml"
    listed = re.sub("targets: .*", "targets: [cpu, openvino, tflite, c]", recipe.read_text())
    recipe.write_text(listed)
    done = edgecv("run", "tiny.yaml", "--out", "out", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command works in the project's folder, and has the user's word for its builder."""
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(str(run))
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    return run


def printed(text: str) -> tuple[float, int]:
    """SQNR in dB and the images that it is of, as a person reads them."""
    found = re.search(r"against float: SQNR (-?[\d.]+) dB.* on (\d+) images", text)
    assert found, text
    return float(found[1]), int(found[2])


def shown(html: str, step: str, target: str) -> tuple[float, int]:
    """The same of the report: the last cell of a bundle's row that holds a figure."""
    section = html[html.index('id="parity"') :]
    row = re.search(rf'<th scope="row">{step}<small>{target}</small></th>(.*?)</tr>', section, re.S)
    assert row, (step, target)
    cells = re.sub(r"</?span>", "", row[1])
    figure, images = re.findall(r">(-?[\d.]+) dB<small>[^<]*?(\d+) images", cells)[-1]
    return float(figure), int(images)


def test_a_bundle_s_figure_is_the_same_wherever_it_is_said(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((inside / "out" / "results.json").read_text())["results"]
    kept = {(r["step"], r["target"]): r for r in rows}
    html = (inside / "out" / "report.html").read_text()
    for step, target in BUNDLES:
        row = kept[step, target]
        found, images = row["parity"]["float"]["sqnr_db"], row["parity"]["float"]["samples"]
        assert images == 36  # all that are there
        assert main(["parity", f"out/{row['bundle']}", "--json"]) == 0
        whole = json.loads(capsys.readouterr().out)["whole"]["parity"]
        assert (f"{whole['sqnr_db']:.1f}", whole["samples"]) == (f"{found:.1f}", images)
        figure, count = shown(html, step, target)
        assert (figure, count) == (round(found, 1 if found < 100 else 0), images)
        code = main([
            "export", f"out/models/{MODELS[step]}", "--target", target, "--precision",
            PRECISIONS[step], "--calibration", "images/train", "--evaluate",
            "imagefolder:images/test", "--out", "exported",
        ])  # fmt: skip
        said = capsys.readouterr()
        assert code == 0, said.err
        assert printed(said.out) == (round(found, 1), images)
