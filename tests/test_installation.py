"""What a message says to install, for each way that a copy of edgecv comes by."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv import installation

ROOT = Path(__file__).parents[1]
PYTHON = f"{sys.executable} -m pip"
CODE = "from edgecv.installation import cure; print(cure('tflite', 'ai_edge_litert'))"
METADATA = """\
Metadata-Version: 2.4
Name: edgecv
Version: 1.0
Requires-Dist: numpy>=2.0
Provides-Extra: report
Requires-Dist: jinja2>=3.1; extra == 'report'
Provides-Extra: tflite
Requires-Dist: ai-edge-litert>=2.3; extra == 'tflite'
"""


def copy(folder: Path) -> Path:
    """The modules that say it, alone: a package of edgecv in `folder`."""
    package = folder / "edgecv"
    package.mkdir(parents=True)
    for name in ("__init__.py", "installation.py"):
        shutil.copy(ROOT / "edgecv" / name, package)
    return folder


def install(folder: Path, origin: object = None) -> Path:
    """A copy, and what pip leaves beside it; origin: of direct_url.json."""
    beside = copy(folder) / "edgecv-1.0.dist-info"
    beside.mkdir()
    (beside / "METADATA").write_text(METADATA)
    if origin:
        (beside / "direct_url.json").write_text(json.dumps(origin))
    return folder


def said(folder: Path) -> str:
    """The cure that the copy in `folder` names, in a process without any other."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); {CODE}"
    command = [sys.executable, "-S", "-E", "-c", start]
    done = subprocess.run(
        command, cwd=folder, env={"PATH": "/nowhere"}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_checkout(tmp_path: Path) -> None:
    folder = copy(tmp_path / "my edge")
    (folder / "pyproject.toml").write_text('[project]\nname = "edgecv"\n')
    assert said(folder) == f"{PYTHON} install -e '{folder}[tflite]'"
    (folder / "constraints.txt").touch()
    pins = f"-c '{folder}/constraints.txt'"
    assert said(folder) == f"{PYTHON} install {pins} -e '{folder}[tflite]'"


def test_another_projects_folder_is_no_checkout(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    (folder / "pyproject.toml").write_text('[project]\nname = "shoes"\n')
    assert said(folder) == f"{PYTHON} install ai-edge-litert"


def test_a_wheel_that_is_still_there_and_one_that_is_not(tmp_path: Path) -> None:
    wheel = tmp_path / "edgecv-1.0-py3-none-any.whl"
    origin = {"url": wheel.as_uri(), "archive_info": {}}
    folder = install(tmp_path / "site", origin)
    assert said(folder) == f"{PYTHON} install 'ai-edge-litert>=2.3'"
    wheel.touch()
    assert said(folder) == f"{PYTHON} install 'edgecv[tflite] @ {wheel.as_uri()}'"


def test_no_address_is_kept(tmp_path: Path) -> None:
    assert said(install(tmp_path)) == f"{PYTHON} install 'ai-edge-litert>=2.3'"


def test_a_repository(tmp_path: Path) -> None:
    version = {"vcs": "git", "commit_id": "1f2e"}
    folder = install(tmp_path, {"url": "https://host/edgecv.git", "vcs_info": version})
    at = "git+https://host/edgecv.git@1f2e"
    assert said(folder) == f"{PYTHON} install 'edgecv[tflite] @ {at}'"


def test_the_entry_of_another_copy_is_not_this_ones(tmp_path: Path) -> None:
    other = install(tmp_path / "other")
    mine = copy(tmp_path / "mine")
    shutil.rmtree(other / "edgecv")
    shutil.move(other / "edgecv-1.0.dist-info", tmp_path / "elsewhere" / "edgecv-1.0.dist-info")
    start = f"import sys; sys.path[:0] = {[str(mine), str(tmp_path / 'elsewhere')]!r}; {CODE}"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", start], env={"PATH": "/nowhere"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == f"{PYTHON} install ai-edge-litert\n"


def test_the_command_is_taken_by_pip() -> None:
    """This checkout's own: pip finds the folder, the extra and the pins."""
    pytest.importorskip("hatchling")
    command = installation.cure("images", "pillow")
    offline = "--dry-run --no-index --no-deps --no-build-isolation"
    done = subprocess.run(
        f"{command} {offline}", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING: edgecv" not in done.stderr  # "does not provide the extra"


@pytest.mark.parametrize(
    ("module", "name"),
    [("PIL.Image", "pillow"), ("ai_edge_litert", "ai-edge-litert"), ("yaml", "pyyaml")],
)
def test_the_distribution_of_a_module(module: str, name: str) -> None:
    assert installation.distribution(module) == name
