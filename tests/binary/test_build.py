"""The C sources alone: no warnings, nothing undefined, the same answers on other processors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.binary import build

CHECK = Path(__file__).with_name("c") / "check.c"
CROSS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64", "neon"),
    "arm": ("arm-linux-gnueabihf-gcc", "qemu-arm", "portable"),
    "riscv64": ("riscv64-linux-gnu-gcc", "qemu-riscv64", "portable"),
}


# The same intrinsics from loops (SIMDe: apt install libsimde-dev), for processors without them.
SIMDE = Path("/usr/include/simde/x86/avx512.h")
SIMULATED = ["-mavx2", "-mpopcnt", "-DSIMDE_ENABLE_NATIVE_ALIASES", "-include", str(SIMDE),
             "-D__builtin_cpu_supports(x)=1", "-w"]  # fmt: skip


def compiled(
    cc: str, out: Path, family: str, flags: tuple[str, ...] = (), simulated: bool = False
) -> Path:
    """The check program, with every warning an error. simulated: AVX-512 by SIMDe."""
    base = [cc, *build.FLAGS, *flags, "-Werror", "-I", str(build.SOURCES)]
    objects = []
    for unit, own in build.units(family).items():
        if simulated and unit == "avx512":
            own = SIMULATED
        objects.append(str(out / f"{unit}.o"))
        source = str(build.SOURCES / f"{unit}.c")
        subprocess.run([*base, *own, "-c", source, "-o", objects[-1]], check=True)
    program = out / "check"
    subprocess.run([*base, str(CHECK), *objects, "-o", str(program)], check=True)
    return program


def equal(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "layers are equal on" in done.stdout
    return done.stdout


@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_compilers_have_nothing_to_say(cc: str, tmp_path: Path) -> None:
    if not shutil.which(cc):
        pytest.skip(f"no {cc}")
    said = equal([str(compiled(cc, tmp_path, build.machine())), "60", "1"])
    assert "portable" in said


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover", "-g", "-O1")
    equal([str(compiled("gcc", tmp_path, build.machine(), flags)), "40", "2"])


@pytest.mark.skipif(
    build.machine() != "x86_64" or not SIMDE.is_file() or not shutil.which("gcc"),
    reason="no SIMDe: apt install libsimde-dev",
)
def test_avx512_simulated_agrees(tmp_path: Path) -> None:
    program = compiled("gcc", tmp_path, "x86_64", simulated=True)
    assert "avx512" in equal([str(program), "40", "4"])


@pytest.mark.parametrize("family", CROSS)
def test_other_processors_agree(family: str, tmp_path: Path) -> None:
    cc, emulator, wanted = CROSS[family]
    if not shutil.which(cc) or not shutil.which(emulator):
        pytest.skip(f"no {cc} or {emulator}")
    said = equal([emulator, str(compiled(cc, tmp_path, family, ("-static",))), "20", "3"])
    assert wanted in said


def test_the_command_builds_and_says_where(tmp_path: Path) -> None:
    if build.compiler() is None:
        pytest.skip("no C compiler")
    out = tmp_path / build.NAME
    command = [sys.executable, "-m", "edgecv.binary.build", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(out)
    assert out.is_file()


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgecv.binary.build", "--out", str(tmp_path / "x")]
    none = {**os.environ, "PATH": str(tmp_path), "CC": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=none)
    assert done.returncode == 2
    assert "install gcc or clang" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build.build(tmp_path / build.NAME, "false")
    assert not [*tmp_path.iterdir()]
