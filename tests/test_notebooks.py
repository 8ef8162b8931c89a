"""The notebooks run from the first cell to the last, and say what they promise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
for needed in ("torch", "onnxruntime", "PIL", "pycocotools"):
    pytest.importorskip(needed)

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"


def _run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What its cells print, one after the other. Raises CellExecutionError."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("TMPDIR", str(folder))
    book = nbformat.read(FOLDER / name, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return "\n".join(_printed(cell) for cell in book.cells if cell.cell_type == "code")


def _printed(cell: Any) -> str:
    return "".join(o.get("text", "") for o in cell.outputs if o.get("name") == "stdout")


def test_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _run("classifier.ipynb", tmp_path, monkeypatch)
    fp32, int8 = map(float, re.findall(r"fp32 ([\d.]+), half the MACs in int8 ([\d.]+)", said)[0])
    assert fp32 > 0.9
    assert int8 > fp32 - 0.06
    assert "'int8': " in said
    assert "of fp32's time" in said


def test_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _run("detector.ipynb", tmp_path, monkeypatch)
    fp32, int8 = (float(v) for v in re.findall(r"mAP ([\d.]+)", said))
    assert fp32 > 40
    assert int8 > fp32 - 8
    assert list(tmp_path.rglob("drawn/000.png"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.name)
def test_a_notebook_keeps_no_path_of_a_machine(path: Path) -> None:
    assert not re.search(r"/(tmp|home|root|work)/", path.read_text())
