"""What an installation of each extra takes: seconds, packages, megabytes; wheels side by side.

    python benchmarks/install_extras.py before=WHEEL after=WHEEL [--only ort,compress]

Each wheel with each extra goes into an empty environment, in turn, with the versions of
constraints.txt and whatever package index pip is set to (so that seconds are this machine's and
this index's), and `edgecv --version` and `edgecv doctor` run there. Writes
results/install_extras.{json,md}.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import record

from edgecv.benchmark.machine import load_average

NOT_FOR_USERS = ("dev", "docs")
BARE = "(none)"


def extras() -> list[str]:
    project = tomllib.loads((record.ROOT / "pyproject.toml").read_text())["project"]
    return [BARE, *(e for e in project["optional-dependencies"] if e not in NOT_FOR_USERS)]


def installed(wheel: Path, extra: str) -> dict[str, Any]:
    """One installation."""
    with tempfile.TemporaryDirectory(prefix="edgecv-install-") as room:
        subprocess.run([sys.executable, "-m", "venv", room], check=True)
        python = f"{room}/bin/python"
        before = _site(room)
        what = str(wheel) if extra == BARE else f"{wheel}[{extra}]"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "-c", str(record.ROOT / "constraints.txt"), what]  # fmt: skip
        begin, cpu = time.perf_counter(), _children()
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        found: dict[str, Any] = {
            "seconds": round(time.perf_counter() - begin, 1),
            "cpu_seconds": round(_children() - cpu, 1),
            "mb": round((_site(room) - before) / 1e6, 1),
            "packages": len(list(Path(room).glob("lib/python*/site-packages/*.dist-info"))) - 1,
        }
        if done.returncode:
            return found | {"error": done.stderr.strip().splitlines()[-1][:300]}
        for words in (["--version"], ["doctor"]):
            ran = subprocess.run([f"{room}/bin/edgecv", *words], cwd=room, capture_output=True,
                                 text=True, check=False)  # fmt: skip
            if ran.returncode:
                return found | {"error": f"edgecv {words[0]}: {ran.stderr.strip()[-300:]}"}
        return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _site(room: str) -> int:
    return sum(p.stat().st_size for p in Path(room).glob("lib/**/*") if p.is_file())


def page(results: dict[str, Any]) -> list[str]:
    labels = list(results["wheels"])
    wheels = [(n, w["version"], w["mb"], w["files"]) for n, w in results["wheels"].items()]
    rows = []
    for extra, row in results["extras"].items():
        cells = [extra]
        for one in (row[label] for label in labels):
            seconds = f"{one['seconds']} ({one['cpu_seconds']})"
            cells += [seconds, one["mb"], one.get("error") or one["packages"]]
        rows.append(cells)
    head = [f"{label}: {what}" for label in labels for what in ("s (CPU)", "MB", "packages")]
    return [
        "# What an installation takes",
        "",
        "`python benchmarks/install_extras.py before=WHEEL after=WHEEL`: each extra in an empty "
        "environment, the wheels in turn. Seconds and megabytes hold everything that comes with "
        "it; nearly all of that is other people's packages, from an index near by.",
        "",
        *record.table(["wheel", "version", "MB", "files"], wheels),
        "",
        *record.table(["extra", *head], rows),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", nargs="+", help="NAME=WHEEL")
    parser.add_argument("--only", default="", help="extras, by ','")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    wheels = {n: Path(p).resolve() for n, p in (one.split("=", 1) for one in options.wheels)}
    only = [word for word in options.only.split(",") if word]
    load = load_average()
    results: dict[str, Any] = {"wheels": {}, "extras": {}}
    for name, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as held:
            count = len(held.namelist())
        version = re.split("-", wheel.name)[1]
        results["wheels"][name] = {"version": version, "files": count,
                                   "mb": round(wheel.stat().st_size / 1e6, 2)}  # fmt: skip
    for extra in only or extras():
        results["extras"][extra] = row = {}
        for name, wheel in wheels.items():
            row[name] = installed(wheel, extra)
            print(extra, name, row[name], file=sys.stderr, flush=True)
    results["circumstances"] = record.circumstances(1, 0, load)
    record.write("install_extras", options.out, results, page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
