"""What is handed out: the sdist, the wheel that is made of it, and the wheel in an empty place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from edgecv import __version__
from edgecv.binary import build

ROOT = Path(__file__).parents[1]
Shell = Callable[..., subprocess.CompletedProcess[str]]
LINUX = sys.platform == "linux" and sysconfig.get_config_var("SOABI").endswith("gnu")


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as z:
        return set(z.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as z:
        return Parser().parsestr(z.read(f"edgecv-{__version__}.dist-info/METADATA").decode())


def test_the_wheel_has_the_package_its_data_and_no_images(wheel: Path) -> None:
    there = names(wheel)
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "edgecv").rglob("*.py")}
    sample = "edgecv/data/fashion_mnist_sample/"
    assert sources <= there
    assert not [n for n in there if n.startswith(sample)]
    assert {
        "edgecv/py.typed",
        "edgecv/_targets/cpu.yaml",
        "edgecv/_recipes/quickstart.yaml",
    } <= there
    assert {"edgecv/_recipes/ci/gitlab-ci.yml", "edgecv/report/page.html.j2"} <= there
    assert f"edgecv-{__version__}.dist-info/licenses/LICENSE" in there
    assert not [n for n in there if n.startswith(("tests/", "docs/", "benchmarks/"))]
    assert wheel.stat().st_size < 2_000_000


def test_the_sdist_has_the_images_and_all_that_building_and_testing_needs(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as tar:
        there = {n.partition("/")[2] for n in tar.getnames()}
    needed = {"LICENSE", "hatch_build.py", "constraints.txt", "Makefile", "tests/conftest.py"}
    assert {
        *needed,
        "edgecv/data/fashion_mnist_sample/train.npz",
        "recipes/ci/gitlab-ci.yml",
    } <= there
    assert not [n for n in there if n.endswith((".so", ".pyc")) or n.startswith((".venv", "runs/"))]


@pytest.mark.skipif(build.compiler() is None, reason="no C compiler")
def test_the_kernels_are_in_the_wheel_and_its_tag_is_what_they_ask_for(
    wheel: Path, tmp_path: Path
) -> None:
    kernels = f"edgecv/binary/{build.NAME}"
    assert kernels in names(wheel)
    python, abi, platform = wheel.stem.split("-")[2:]
    assert (python, abi) == ("py3", "none")  # by ctypes: any Python
    if not LINUX or shutil.which("objdump") is None:
        pytest.skip("no objdump of binutils, or no glibc")
    with zipfile.ZipFile(wheel) as z:
        found = z.extract(kernels, tmp_path)
    said = subprocess.run(["objdump", "-p", found], capture_output=True, text=True, check=True)
    asked = [(int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", said.stdout)]
    tag = re.fullmatch(r"manylinux_(\d+)_(\d+)_\w+", platform)
    assert tag, platform
    assert max(asked) <= (int(tag[1]), int(tag[2]))
    assert re.findall(r"NEEDED\s+(\S+)", said.stdout) == ["libc.so.6"]


def test_without_a_compiler_the_wheel_is_for_any_machine(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    for name in ("edgecv", "targets", "recipes", "pyproject.toml", "hatch_build.py", "README.md"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "*.npz", "__pycache__")
            shutil.copytree(ROOT / name, tmp_path / "edgecv" / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / "edgecv" / name)
    words = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(
        [sys.executable, *words], cwd=tmp_path / "edgecv", env={**os.environ, "CC": "none"},
        check=True, capture_output=True,
    )  # fmt: skip
    (found,) = tmp_path.glob("*.whl")
    assert found.name == f"edgecv-{__version__}-py3-none-any.whl"
    assert f"edgecv/binary/{build.NAME}" not in names(found)


@pytest.mark.parametrize(
    ("library", "tag"),
    [
        (b"\0libc.so.6\0GLIBC_2.2.5\0GLIBC_2.14\0", "manylinux_2_17_"),
        (b"\0libc.so.6\0GLIBC_2.38\0GLIBC_2.4\0", "manylinux_2_38_"),
        (b"\0libc.so.6\0libgomp.so.1\0GLIBC_2.14\0", "linux_"),
        (b"\0libc.musl-x86_64.so.1\0memcpy\0", "linux_"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="tags of Linux")
def test_the_tag_of_a_library(library: bytes, tag: str) -> None:
    pytest.importorskip("hatchling")
    spec = util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.platform_tag(library).startswith(tag)


def test_every_extra_is_pinned_by_what_was_tested(wheel: Path) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    extras: dict[str, list[str]] = {}
    for line in metadata(wheel).get_all("Requires-Dist", []):
        needed = requirements.Requirement(line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        extras.setdefault(extra[1] if extra else "", []).append(needed.name)
        if needed.name != "edgecv":
            pin = pins[re.sub(r"[-_.]+", "-", needed.name).lower()]
            assert needed.specifier.contains(pin, prereleases=True), f"{line}: {pin} was tested"
    assert extras[""] == ["numpy"]
    assert set(metadata(wheel).get_all("Provides-Extra", [])) == {*extras} - {""}


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """shell(words...) in an environment of the wheel and numpy, outside the checkout."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    words = ["--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", *words, str(wheel)], check=True)
    there = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    for path in Path(np.__file__).parents[1].glob("numpy*"):
        (there / path.name).symlink_to(path)
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "EDGECV_DATA")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.parent / words[0]), *words[1:]]
        return subprocess.run(
            command, cwd=folder, env={**clean, "XDG_CACHE_HOME": str(folder)}, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_the_wheel_runs_with_numpy_alone(empty: Shell) -> None:
    code = "import edgecv, edgecv.runtime; print(edgecv.__version__, edgecv.__file__)"
    done = empty("python", "-c", code)
    assert done.returncode == 0, done.stderr
    version, place = done.stdout.split()
    assert version == __version__
    assert ROOT not in Path(place).parents
    assert empty("edgecv", "--version").stdout.split()[-1] == __version__


@pytest.mark.skipif(build.compiler() is None, reason="no C compiler")
def test_the_wheels_kernels_load(empty: Shell) -> None:
    code = "from edgecv.binary import library; print(library.library() is not None)"
    done = empty("python", "-c", code)
    assert done.stdout == "True\n", done.stderr


def test_the_sample_says_where_it_is(empty: Shell) -> None:
    code = (
        "from edgecv.data import fashion_mnist; fashion_mnist.items('fashion-mnist-sample', 'test')"
    )
    done = empty("python", "-c", code)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("edgecv.errors.DataError")]
    assert "its images are in edgecv's checkout and sdist, not in its wheel" in line
    assert "copy edgecv/data/fashion_mnist_sample from there to" in line


def test_the_changelog_has_this_version_as_its_newest() -> None:
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == __version__
    assert re.fullmatch(r" - \d{4}-\d\d-\d\d", headings[1][1])
