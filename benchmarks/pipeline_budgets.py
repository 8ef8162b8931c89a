"""Time that the pipeline itself takes, before and after a change, interleaved, beside its budgets.

    python benchmarks/pipeline_budgets.py BEFORE AFTER PHOTOS --work DIR [--repeats 3] [--only NAME]

BEFORE and AFTER are checkouts, each with its own .venv. Each command runs as a user runs it, in a
process of its own, one side after the other, the order changing from round to round:

- `edgecv export efficientnet_lite0` to int8 with photographs: 30 s on cpu and on openvino, 60 s on
  tflite
- the same with `--accuracy-drop 0.2` on cpu: 3 minutes
- `edgecv run recipes/quickstart.yaml`: 90 s

`OMP_NUM_THREADS` is 1 on both sides: without it numpy's own threads spin before the change, which
doubles its CPU seconds and measures how busy the machine is.

Budgets are of two free cores. What other processes took meanwhile is read from /proc/stat: where
that is more than a fifth of a core, the time is told and not judged. CPU seconds are of the command
with all processes that it began; a neighbour that fills caches lengthens those too.

Bundles are compared member by member. `recipe_digest` in their manifest names the code that made
them, which is not the same on both sides; all else is to be.

Exit code 1 where bundles differ, or a budget that was judged is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import record

LITE0 = ("export", "efficientnet_lite0", "--arg", "pretrained=true", "--input-size", "224",
         "--mean", "127", "--std", "128")  # fmt: skip
QUIET = 0.2  # cores that others may take
OWN = ("recipe_digest",)  # of a manifest: what names the code


@dataclass(frozen=True)
class Case:
    """A command and its budget in seconds. bundles: where it puts them, below its --out"""

    name: str
    budget_s: float
    arguments: tuple[str, ...]
    photographs: bool = True
    bundles: str = "*.edgecv"


CASES = (
    Case("int8 cpu", 30, (*LITE0, "--target", "cpu")),
    Case("int8 openvino", 30, (*LITE0, "--target", "openvino")),
    Case("int8 tflite", 60, (*LITE0, "--target", "tflite")),
    Case("accuracy-drop cpu", 180, (*LITE0, "--target", "cpu", "--accuracy-drop", "0.2")),
    Case("quickstart", 90, ("run", "recipes/quickstart.yaml"), False, "bundles/*.edgecv"),
)


@dataclass(frozen=True)
class Run:
    """wall_s, cpu_s: of the command and its processes. others: cores that the rest took."""

    wall_s: float
    cpu_s: float
    others: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout with .venv")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("photographs", type=Path, help="a folder of photographs")
    parser.add_argument("--work", type=Path, required=True, help="what is made here is kept here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="commands whose name holds one of these, by ;")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    wanted = [w for w in options.only.split(";") if w]
    cases = [c for c in CASES if not wanted or any(w in c.name for w in wanted)]
    sides = {"before": options.before.absolute(), "after": options.after.absolute()}
    photographs, work = options.photographs.absolute(), options.work.absolute()
    load, kept = record.load_average(), work / "runs.json"
    runs: dict[str, dict[str, list[Any]]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for turn in range(options.repeats):
        for case in cases:
            for side in sorted(sides, reverse=turn % 2 == 0):
                made = once(case, sides[side], photographs, work / side / case.name)
                runs.setdefault(case.name, {}).setdefault(side, []).append(asdict(made))
                print(case.name, side, made, file=sys.stderr, flush=True)
                kept.write_text(json.dumps(runs))
    rows = [row_of(case, runs[case.name], work) for case in CASES if case.name in runs]
    data = {"circumstances": record.circumstances(1, 0, load), "rows": rows}
    record.write("pipeline_budgets", options.out, data, page(rows))
    return 1 if any(r["differ"] or r["met"] is False for r in rows) else 0


def once(case: Case, checkout: Path, photographs: Path, out: Path) -> Run:
    """Run it there, from nothing. Raises SystemExit where it fails."""
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [str(checkout / ".venv/bin/edgecv"), *case.arguments, "--out", str(out)]
    command += ["--calibration", str(photographs)] if case.photographs else []
    busy, began = _busy_s(), time.perf_counter()
    said = os.open(f"{out}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    here = Path.cwd()
    os.chdir(checkout)
    actions = [(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    named = os.environ | {"OMP_NUM_THREADS": "1"}
    process = os.posix_spawn(command[0], command, named, file_actions=actions)
    _, status, used = os.wait4(process, 0)  # with all that it waited for itself
    os.chdir(here)
    os.close(said)
    wall, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: a limit that was not met
        raise SystemExit(Path(f"{out}.txt").read_text()[-2000:])
    return Run(wall, cpu, max(0.0, _busy_s() - busy - cpu) / wall)


def _busy_s() -> float:
    """Seconds that all cores together have worked since the machine began."""
    numbers = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


def row_of(case: Case, runs: dict[str, list[dict[str, float]]], work: Path) -> dict[str, Any]:
    """Medians, each side's; the quietest run after is what the budget judges."""
    row: dict[str, Any] = {"name": case.name, "budget_s": case.budget_s}
    for side, made in runs.items():
        for key in ("wall_s", "cpu_s", "others"):
            row[f"{key}_{side}"] = statistics.median(run[key] for run in made)
    pairs = zip(runs["before"], runs["after"], strict=True)
    row["cpu_ratio"] = statistics.median(b["cpu_s"] / a["cpu_s"] for a, b in pairs)
    quietest = min(runs["after"], key=lambda run: run["others"])
    quiet = quietest["others"] <= QUIET
    row["met"] = quietest["wall_s"] <= case.budget_s if quiet else None
    row["rounds"] = len(runs["after"])
    before, after = (work / side / case.name for side in ("before", "after"))
    row["bundles"], row["differ"] = compared(before, after, case.bundles)
    return row


def compared(before: Path, after: Path, pattern: str) -> tuple[int, list[str]]:
    """(how many bundles there are, what differs: "name: member")"""
    names = sorted(p.name for folder in (before, after) for p in folder.glob(pattern))
    found, where = [], Path(pattern).parent
    for name in dict.fromkeys(names):
        one, other = (_members(folder / where / name) for folder in (before, after))
        differ = [m for m in sorted(one.keys() | other.keys()) if one.get(m) != other.get(m)]
        found += [f"{name}: {member}" for member in differ]
    return len(set(names)), found


def _members(bundle: Path) -> dict[str, Any]:
    if not bundle.is_file():
        return {}
    with zipfile.ZipFile(bundle) as file:
        held: dict[str, Any] = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(held["manifest.json"])
    return held | {"manifest.json": {k: v for k, v in manifest.items() if k not in OWN}}


def page(rows: list[dict[str, Any]]) -> list[str]:
    head = ["", "budget s", "before s", "after s", "CPU before s", "CPU after s",
            "CPU, after / before", "others, cores", "rounds", "bundles", "in budget"]  # fmt: skip
    lines = []
    for r in rows:
        same = f"{r['bundles']} the same" if not r["differ"] else f"{len(r['differ'])} differ"
        judged = "not judged: busy" if r["met"] is None else record.verdict(r["met"])
        lines.append([
            r["name"], f"{r['budget_s']:.0f}", f"{r['wall_s_before']:.0f}",
            f"{r['wall_s_after']:.0f}", f"{r['cpu_s_before']:.0f}", f"{r['cpu_s_after']:.0f}",
            f"{r['cpu_ratio']:.2f}", f"{r['others_before']:.1f}, {r['others_after']:.1f}",
            r["rounds"], same, judged,
        ])  # fmt: skip
    told = (__doc__ or "").split("\n\n")
    differ = [f"- {one}" for r in rows for one in r["differ"]]
    title = "# Time of the pipeline itself, before and after"
    return [title, "", *record.table(head, lines), "", *_paragraphs(told[2:-1]), *differ]


def _paragraphs(told: list[str]) -> list[str]:
    return [line for paragraph in told for line in (*paragraph.strip().split("\n"), "")]


if __name__ == "__main__":
    raise SystemExit(main())
