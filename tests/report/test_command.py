"""`edgecv report`, and the report that `edgecv run` leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.installation import cure


def test_a_run_leaves_its_report(finished) -> None:
    assert (finished.out / "report.html").stat().st_size > 10_000
    assert finished.done.out.splitlines()[-1] == str(finished.out / "report.html")


def test_the_terminal_tells_the_same(edgecv: Callable, page, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = edgecv("report", page.run, "--out", out)
    assert done.code == 0, done.err
    assert str(out) in done.out.splitlines()[-1]
    assert out.read_bytes() == page.path.read_bytes()
    for target in page.data["targets"]:
        assert target["verdict"]["text"] in done.out
    for said in ("answers, image by image", "saliency r", "parity", "float → int8"):
        assert said in done.out


def test_json_is_data(edgecv: Callable, bare: Path) -> None:
    done = edgecv("report", bare, "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert data["report"] == str(bare / "report.html")
    assert {"targets", "pairs", "parity", "nodes", "minds", "missing"} <= set(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "holds no results.json"), ("{", "is not JSON"), ('{"schema": 9}', "newer than 2")],
)
def test_bad_input_is_one_line(
    edgecv: Callable, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    done = edgecv("report", tmp_path)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_out_that_is_a_folder(edgecv: Callable, bare: Path) -> None:
    done = edgecv("report", bare, "--out", bare)
    assert done.code == 2
    assert "is a folder" in done.err


@pytest.mark.parametrize("module", ["jinja2", "vl_convert"])
def test_a_missing_extra_is_named(
    edgecv: Callable, bare: Path, site: Callable, module: str
) -> None:
    done = edgecv("report", bare, path=site(f"import sys\nsys.modules[{module!r}] = None\n"))
    assert done.code == 3
    assert f"({cure('report', module)})" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_report_needs_none_of_the_heavy_packages(
    edgecv: Callable, bare: Path, site: Callable
) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "pydantic", "rich")
    code = "import sys\n" + "".join(f"sys.modules[{m!r}] = None\n" for m in heavy)
    done = edgecv("report", bare, path=site(code))
    assert done.code == 0, done.err


def test_a_run_is_not_lost_over_its_report(
    edgecv: Callable, finished, copied: Path, site: Callable
) -> None:
    (copied / "report.html").unlink()
    path = site("import sys\nsys.modules['vl_convert'] = None\n")
    done = edgecv("run", "tiny.yaml", "--out", copied, cwd=finished.folder, path=path)
    assert done.code == 0, done.err
    (line,) = (x for x in done.err.splitlines() if "report" in x)
    assert line.startswith("no report:")
    assert f"({cure('report', '')})" in line
    assert not (copied / "report.html").exists()
    assert (copied / "results.json").exists()


def test_an_engine_that_dies_costs_its_pictures_only(
    edgecv: Callable, page, tmp_path: Path, site: Callable
) -> None:
    """The tflite process is killed where it would begin; the ONNX graphs' pictures are there."""
    run = Path(shutil.copytree(page.run, tmp_path / "run"))
    path = site(
        "import os, sys\n"
        "class Fatal:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ai_edge_litert': os.abort()\n"
        "sys.meta_path.insert(0, Fatal())\n"
    )
    done = edgecv("report", run, "--json", path=path)
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert {m["target"] for m in data["minds"]} == {"cpu", "openvino"}
    (line,) = (x for x in data["missing"] if x["part"] == "images")
    assert "SIGABRT" in line["reason"]
