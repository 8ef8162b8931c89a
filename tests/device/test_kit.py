"""The kit is all that a device needs: imported from the zip alone, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

import edgecv
from edgecv.device import kit

HEAVY = ("torch", "pydantic", "rich", "yaml", "PIL", "onnx", "safetensors", "scipy", "jinja2")
HEAD = f"""
import sys
for name in {HEAVY!r}: sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import edgecv
assert edgecv.__file__.startswith(sys.argv[1]), edgecv.__file__
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kit") / "kit.zip"
    path.write_bytes(kit.build("edgecv.benchmark.measure"))
    return path


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-I", "-c", HEAD + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_of_a_device_imports_from_the_kit_alone(built: Path) -> None:
    code = """
from importlib import import_module
for name in sys.argv[2:]: import_module(name)
stray = [m.__name__ for m in list(sys.modules.values())
         if m and m.__name__.startswith("edgecv") and not m.__file__.startswith(sys.argv[1])]
print(stray)
"""
    modules = kit.always()
    assert {"edgecv.runtime.bundle", "edgecv.benchmark.measure", "edgecv.backends.tflite.run"} <= {
        *modules
    }
    assert python(code, built, *modules).strip() == "[]"


def test_what_those_modules_import_late_is_in_the_kit(built: Path) -> None:
    names = set(ZipFile(built).namelist())
    assert {"edgecv/errors.py", "edgecv/child.py", "edgecv/files.py"} <= names
    for name in names:  # no host's room came along
        assert name.split("/")[1] in (
            *("__init__.py", "errors.py", "child.py", "files.py", "text_table.py"),
            *("lifeline.py", "user_code.py", "source_trust.py", "portions.py", "installation.py"),
            *("runtime", "benchmark", "backends", "binary", "graphs", "tasks"),
        ), name


def test_a_bundle_is_read_from_the_kit(built: Path, make_bundle: Callable[..., Path]) -> None:
    pytest.importorskip("onnxruntime")
    code = "from edgecv.runtime import verify; print(verify(sys.argv[2]).ok)"
    assert python(code, built, make_bundle()).strip() == "True"


def test_the_kit_is_small_and_the_same_every_time() -> None:
    first = kit.build("edgecv.benchmark.measure")
    kit.build.cache_clear()
    assert kit.build("edgecv.benchmark.measure") == first
    assert len(first) < 1 << 20


def test_an_installed_package_makes_the_same_kit(tmp_path: Path) -> None:
    """As a wheel lays it out: in site-packages, with profiles and byte code beside the sources."""
    site = tmp_path / "site-packages"
    shutil.copytree(Path(edgecv.__file__).parent, site / "edgecv")
    (site / "edgecv" / "_targets").mkdir()
    code = """
from edgecv.device import kit
sys.stdout.flush()
sys.stdout.buffer.write(kit.build("edgecv.benchmark.measure"))
"""
    command = [sys.executable, "-I", "-c", HEAD + code, str(site)]
    done = subprocess.run(command, capture_output=True, cwd="/", check=True)
    theirs, ours = (
        ZipFile(BytesIO(b)) for b in (done.stdout, kit.build("edgecv.benchmark.measure"))
    )
    assert theirs.namelist() == ours.namelist()
    assert all(theirs.read(n) == ours.read(n) for n in ours.namelist())


def test_a_job_of_another_package_comes_along_with_its_parents() -> None:
    names = kit.members("tests.device.jobs")
    assert {"tests/__init__.py", "tests/device/__init__.py", "tests/device/jobs.py"} <= {*names}
    assert not any(n.startswith("numpy") for n in names)
    assert find_spec("tests").origin is None, "a folder without __init__.py, which a zip needs"


def test_what_is_for_type_checkers_alone_stays_here(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / "__init__.py").write_text("")
    (tmp_path / "apart" / "job.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from apart import types\n"
        "def work():\n    from apart.late import x\n"
    )
    (tmp_path / "apart" / "types.py").write_text("")
    (tmp_path / "apart" / "late.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = [n for n in kit.members("apart.job") if n.startswith("apart")]
    assert sorted(names) == ["apart/__init__.py", "apart/job.py", "apart/late.py"]
