"""`edgecv gate`: judge a candidate against a baseline; also in CI's own formats."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from edgecv.api.running import Runner
from edgecv.commands.bench import add_device
from edgecv.commands.common import Bar, add_quiet, is_quiet, runner, seconds
from edgecv.errors import RecipeError
from edgecv.files import check_file
from edgecv.terminal import print_json


def register(command: Any) -> None:
    gate = command(
        "gate",
        run_gate,
        "Judge a candidate against a baseline: 0 pass, 1 regression, 4 inconclusive.",
    )
    gate.add_argument(
        "baseline", type=Path, help="bundle, results.json, run folder or baseline file"
    )
    gate.add_argument("candidate", type=Path, help="the same")
    gate.add_argument(
        "--max-slowdown", default="5%", metavar="P%", help="default 5%%; none: not judged"
    )
    gate.add_argument(
        "--max-accuracy-drop",
        default="0.5",
        metavar="POINTS",
        help="of the task's metric (top-1, mAP, mIoU), default 0.5; none: not judged",
    )
    gate.add_argument(
        "--max-sqnr-drop",
        default="1",
        metavar="DB",
        help="of the worst output against float, without labels, default 1; above 60 dB counts as "
        "the same; none: not judged",
    )
    gate.add_argument("--max-size-growth", default="2%", metavar="P%", help="default 2%%")
    gate.add_argument("--max-memory-growth", default="10%", metavar="P%", help="default 10%%")
    gate.add_argument(
        "--budget",
        type=seconds,
        default=30.0,
        metavar="30s",
        help="time to measure one pair for at the most (30s)",
    )
    gate.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")
    gate.add_argument("--seed", type=int, default=0, help="of the order of turns")
    add_device(gate)
    add_quiet(gate)
    gate.add_argument(
        "--update",
        action="store_true",
        help="write the candidate's figures to BASELINE, a .json to keep",
    )
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    gate.add_argument(
        "--summary",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="append Markdown to FILE (default: $GITHUB_STEP_SUMMARY)",
    )


def run_gate(options: argparse.Namespace) -> int:
    from edgecv.api import gate as judging
    from edgecv.benchmark import baseline, gate

    limits = gate.Limits(
        _percent("--max-slowdown", options.max_slowdown),
        _percent("--max-accuracy-drop", options.max_accuracy_drop),
        _percent("--max-size-growth", options.max_size_growth),
        _percent("--max-memory-growth", options.max_memory_growth),
        _decibels("--max-sqnr-drop", options.max_sqnr_drop),
    )
    settings = judging.options(limits, options.threads, options.budget, options.seed)
    summary = _summary_path(options.summary)
    kept = options.baseline if options.update else None
    if options.junit:
        check_file(options.junit, "--junit")
    if summary:
        check_file(summary, "--summary", appends=True)
    if kept:
        check_file(kept, "gate --update")
    away = options.device is not None
    with Bar("gate", quiet=is_quiet(options)) as bar:
        run = _told(runner(options, bar), bar, options.budget)
        if options.update:
            return _update(options, settings, baseline.load(options.candidate, away), run)
        judged = judging.judge(options.baseline, options.candidate, settings, run, away)
    from edgecv.benchmark import verdict_output

    data = judging.data_of(judged)
    verdict = data["verdict"]
    if options.json:
        print_json(data)
    else:
        verdict_output.show(judged, verdict)
    if options.junit:
        verdict_output.write_junit(options.junit, judged)
    if summary:
        verdict_output.append(summary, verdict_output.markdown(judged, verdict))
    return gate.EXIT_CODES[verdict]


def _told(run: Runner, bar: Bar, budget: float) -> Runner:
    """The same, and what is measured is said: minutes pass with several bundles."""

    def measured(module: str, job: dict[str, Any], where: str) -> dict[str, Any]:
        most = f", {budget:g} s at the most" if "budget_s" in job else ", its memory again"
        with bar.step(f"{where}{most}"):
            return run(module, job, where)

    return measured


def _update(options: argparse.Namespace, settings: Any, candidates: Any, run: Any) -> int:
    from edgecv.benchmark import gate
    from edgecv.text_table import table

    if options.baseline.suffix != ".json":
        hint = "edgecv gate baseline.json model.edgecv --update"
        raise RecipeError(str(options.baseline), "is no name of a baseline file", hint)
    # A run knows all its bundles; a bundle by itself says nothing of the others.
    whole = options.candidate.suffix != ".edgecv"
    lines = gate.update(options.baseline, candidates, settings, run, whole)
    # What a busy machine measured would mislead every gate to come.
    dropped = any(measured and why for _, measured, why in lines)
    code = gate.EXIT_CODES[gate.INCONCLUSIVE if dropped else gate.PASS]
    if options.json:
        print_json(
            {
                "baseline": str(options.baseline),
                "bundles": [{"name": n, "measured": m, "reason": w} for n, m, w in lines],
            }
        )
        return code
    rows = []
    for name, measured, why in lines:
        if measured is None:
            rows.append([name, "", "", why])
            continue
        p50, error = measured["candidate"]["latency_ms"]["p50"], measured["calibrated"]["error"]
        rows.append([name, f"{p50:.3f}", f"±{2 * error:.1%}", f"not kept: {why}" if why else ""])
    table(["bundle", "p50 ms", "against calibration", ""], rows, right=(1, 2))
    print(f"{options.baseline} written")
    if dropped:
        print(_rest(options.baseline, [why for _, measured, why in lines if measured]))
    return code


def _rest(path: Path, reasons: list[str]) -> str:
    """What to do about figures that were not kept. reasons: of each that was measured, or ""."""
    kept = f"{reasons.count('')} of {len(reasons)} latencies measured were kept in {path}"
    again = "the same command again adds to them"
    shared = "recipes/ci/github-actions-two-builds.yml, which needs no baseline"
    return f"{kept}; {again}. Where others always have a part of the processor: {shared}"


def _percent(option: str, text: str) -> float | None:
    """ "5%" and "5" are 0.05; "none" is None."""
    if text.lower() == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%?", text.strip())
    if not match:
        raise RecipeError(option, f"{text!r} is no percentage", "5%, 0.5 or none")
    return float(match[1]) / 100.0


def _decibels(option: str, text: str) -> float | None:
    """ "1" and "1 dB" are 1.0; "none" is None."""
    if text.lower() == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(dB)?", text.strip(), re.IGNORECASE)
    if not match:
        raise RecipeError(option, f"{text!r} is no number of decibels", "1, 0.5 or none")
    return float(match[1])


def _summary_path(given: Path | None) -> Path | None:
    if given is None or str(given) != "-":
        return given
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        print("note: --summary without a file, and no $GITHUB_STEP_SUMMARY", file=sys.stderr)
        return None
    return Path(path)
