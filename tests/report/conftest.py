"""The finished run's report, made once, and runs of hand to gather from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _library in ("jinja2", "vl_convert", "PIL"):
    pytest.importorskip(_library)


@dataclass(frozen=True)
class Page:
    """A report, its data and its text."""

    run: Path
    path: Path
    data: dict[str, Any]

    @property
    def text(self) -> str:
        return self.path.read_text()


def make_page(run: Path, path: Path) -> Page:
    from edgecv import report

    data = report.collect(run)
    return Page(run, report.write(run, path, data=data), data)


CHANGED = 5  # images on which every compressed bundle of `page` answers otherwise


def change_minds(run: Path) -> None:
    """Turn a few answers of the compressed bundles into the next class's.

    The project's images are easy: its networks agree on all of them.
    """
    data = json.loads((run / "results.json").read_text())
    for node in data["nodes"]:
        path = run / "store" / "done" / node["digest"] / "predictions.npy"
        if node["kind"] == "bundle" and node["step"] != "dense" and path.exists():
            answers = np.load(path, allow_pickle=False)
            answers[:: -(-len(answers) // CHANGED)] += 1
            np.save(path, answers % 3, allow_pickle=False)


@pytest.fixture(scope="session")
def page(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of the finished run, with a few changed minds."""
    folder = tmp_path_factory.mktemp("report")
    run = Path(shutil.copytree(finished.out, folder / "run"))
    change_minds(run)
    return make_page(run, folder / "report.html")


EVIL = '<script>document.title="owned"</script>'
STEP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def hostile(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The same with a class, a step, a reason and a processor of names that are HTML."""
    run = Path(shutil.copytree(page.run, tmp_path_factory.mktemp("hostile") / "out"))
    data = json.loads((run / "results.json").read_text().replace('"small-int8"', json.dumps(STEP)))
    data["results"][0]["reason"] = f"{EVIL}\"'&"
    data["machine"]["cpu"] = EVIL
    data["recipe"]["text"] = f"# {EVIL}"
    (run / "results.json").write_text(json.dumps(data))
    (test,) = (n for n in data["nodes"] if n["id"] == "data:test")
    classes = json.dumps([EVIL, "bee", 'c"at&<b>'])
    (run / "store" / "done" / test["digest"] / "classes.json").write_text(classes)
    return make_page(run, run / "evil.html")


@pytest.fixture
def bare(page: Page, tmp_path: Path) -> Path:
    """A folder that holds the run's results.json and nothing else."""
    (tmp_path / "bare").mkdir()
    shutil.copyfile(page.run / "results.json", tmp_path / "bare" / "results.json")
    return tmp_path / "bare"
