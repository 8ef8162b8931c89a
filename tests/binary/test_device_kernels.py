"""A device builds the kernels from its kit, once a job, in the job's own room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.binary import build
from edgecv.device import kit

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C compiler")
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from edgecv.binary import library
assert "kit.zip" in library.__file__
found = library.found()
print(found, *(library.sets() if found else []), library.library().xnor_digest().decode()
      if found else "")
"""


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("carried") / "kit.zip"
    path.write_bytes(kit.build("edgecv.benchmark.measure"))
    return path


def run(carried: Path, room: Path | None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGECV_")}
    environment |= {"EDGECV_ROOM": str(room)} if room else {}
    return subprocess.run(
        [sys.executable, "-c", CODE, str(carried)], env={**environment, **variables}, cwd="/",
        capture_output=True, text=True, check=True,
    )  # fmt: skip


def test_the_first_process_builds_and_the_next_finds_it(carried: Path, tmp_path: Path) -> None:
    path, *sets, digest = run(carried, tmp_path).stdout.split()
    assert Path(path) == tmp_path / "kernels" / build.NAME
    assert "portable" in sets
    assert digest == build.digest(), "the same sources as here"
    made = Path(path).stat().st_mtime_ns
    assert run(carried, tmp_path).stdout.split()[0] == path
    assert Path(path).stat().st_mtime_ns == made


def test_nothing_is_built_outside_a_room_or_without_a_compiler(
    carried: Path, tmp_path: Path
) -> None:
    assert run(carried, None).stdout.split() == ["None"]
    assert run(carried, tmp_path, CC="nowhere-cc").stdout.split() == ["None"]
    assert list(tmp_path.iterdir()) == []


def bad_compiler(folder: Path, script: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails_is_told_in_a_line(carried: Path, tmp_path: Path) -> None:
    bad = bad_compiler(tmp_path, "echo no such flag >&2; exit 1")
    done = run(carried, tmp_path, CC=bad)
    assert done.stdout.split() == ["None"]
    assert done.stderr.splitlines() == ["the binary kernels could not be built: no such flag"]
    done = run(carried, tmp_path, CC=bad)
    assert (done.stdout.split(), done.stderr) == (["None"], ""), "tried and said once a job"


def test_what_does_not_load_is_not_taken(carried: Path, tmp_path: Path) -> None:
    bad = bad_compiler(tmp_path, 'for last; do :; done; echo nonsense > "$last"')
    done = run(carried, tmp_path, CC=bad)
    assert done.stdout.split() == ["None"]
    assert "could not be built" in done.stderr
