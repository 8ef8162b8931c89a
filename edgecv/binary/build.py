"""C sources → one shared library; by the standard library alone, because installing runs this.

    python -m edgecv.binary.build [--out FILE]      CC=... names another compiler

Every instruction set is a unit of its own with its own flags: what runs is chosen by the processor,
not by the machine that built it. Products are never contracted (`-ffp-contract=off`): a fused
multiply-add rounds otherwise than a multiplication and an addition do.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "c"
NAME = {"win32": "edgecv_xnor.dll", "darwin": "libedgecv_xnor.dylib"}.get(
    sys.platform, "libedgecv_xnor.so"
)
FLAGS = [
    "-std=c11",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
UNITS: dict[str, dict[str, list[str]]] = {
    "any": {"xnor": [], "portable": [], "lookup": [], "ort": []},
    "x86_64": {
        "avx2": ["-mavx2", "-mpopcnt"],
        "avx512": ["-mavx512f", "-mavx512vl", "-mavx512vpopcntdq"],
    },
    "aarch64": {"neon": []},
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def machine() -> str:
    """This processor's family, as UNITS has it."""
    found = platform.machine().lower()
    return MACHINES.get(found, found)


def compiler() -> str | None:
    """The C compiler: $CC, else cc, gcc or clang; None where there is none."""
    named = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [named] if named else ["cc", "gcc", "clang"])), None)


def units(family: str) -> dict[str, list[str]]:
    """Sources without their ending, and the flags that they need beside FLAGS."""
    return UNITS["any"] | UNITS.get(family, {})


def digest(sources: Path = SOURCES) -> str:
    """Of all sources and flags: the library says which it was built from."""
    found = hashlib.sha256(repr((FLAGS, UNITS)).encode())
    for path in sorted([*sources.glob("*.c"), *sources.glob("*.h")]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def build(out: Path, cc: str, family: str | None = None, sources: Path = SOURCES) -> Path:
    """Compile into `out`, which appears whole or not at all.

    Raises subprocess.CalledProcessError, with what the compiler said in .stderr.
    """
    family = family or machine()
    named = [f"-DXNOR_DIGEST={digest(sources)}"]
    with tempfile.TemporaryDirectory(dir=out.parent) as room:
        objects = []
        for unit, flags in units(family).items():
            made = Path(room) / f"{unit}.o"
            _run([cc, *FLAGS, *flags, *named, "-c", str(sources / f"{unit}.c"), "-o", str(made)])
            objects.append(str(made))
        whole = Path(room) / out.name
        _run([cc, "-shared", *objects, "-o", str(whole)])
        whole.replace(out)
    return out


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the binary kernels for this machine.")
    parser.add_argument("--out", type=Path, default=HERE / NAME)
    options = parser.parse_args()
    cc = compiler()
    if cc is None:
        print("no C compiler: install gcc or clang, or name one in CC", file=sys.stderr)
        return 2
    try:
        print(build(options.out, cc))
    except subprocess.CalledProcessError as e:
        print(f"{cc} failed: {e.stderr.strip()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
