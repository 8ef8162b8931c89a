"""The judge, with answers of the clock made by hand; the clock itself: test_duel and the CLI's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.benchmark import baseline, gate
from edgecv.benchmark.gate import Check, Limits, Options
from edgecv.errors import EngineError, MissingExtraError, NoCudaDevice
from tests.benchmark.judged import HERE, answer, entry, timing

BUNDLE = Path("net.cpu.edgecv")


class Clock:
    """A runner that gives prepared answers and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.jobs = list(answers), []

    def __call__(self, module: str, job: dict[str, Any], where: str) -> dict[str, Any]:
        self.jobs.append((module, job, where))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found


def judged(before: Any, after: Any, clock: Clock | None = None, **limits: Any) -> dict[str, Check]:
    options = Options(replace(Limits(), **limits))
    (found,) = gate.judge([(before, after)], options, clock or Clock(answer()))
    return {check.name: check for check in found.checks}


# who with whom


def test_one_bundle_is_compared_with_one_whatever_they_are_called() -> None:
    a, b = entry("old"), entry("new")
    assert gate.pairs([a], [b]) == [(a, b)]


def test_several_are_compared_by_name() -> None:
    a, b, c, d = entry("a"), entry("b"), entry("b"), entry("c")
    assert gate.pairs([a, b], [c, d]) == [(a, None), (b, c), (None, d)]


def test_one_of_several() -> None:
    a, b, c = entry("a"), entry("b"), entry("b")
    assert gate.pairs([a, b], [c]) == [(b, c)]
    assert gate.pairs([a], [b, c]) == [(a, b), (a, c)]


def test_what_is_new_beside_the_only_bundle_of_the_baseline_is_no_other_form_of_it() -> None:
    a, b, c = entry("a"), entry("a"), entry("c")
    assert gate.pairs([a], [b, c]) == [(a, b), (None, c)]


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(NoCudaDevice("x", "no GPU"), "skipped"), (EngineError("x", "crashed"), "inconclusive")],
)
def test_a_pair_that_cannot_run_leaves_the_others_their_verdicts(
    error: Exception, verdict: str
) -> None:
    bad, good = entry("bad", bundle=BUNDLE), entry("good", bundle=BUNDLE)
    found = gate.judge([(bad, bad), (good, good)], Options(), Clock(error, answer()))
    assert [pair.checks[0].verdict for pair in found] == [verdict, "pass"]


def test_what_is_gone_is_not_passed_over_and_what_is_new_is_no_failure() -> None:
    gone, new = gate.judge([(entry("a"), None), (None, entry("b"))], Options(), Clock(answer()))
    assert (gone.verdict, new.checks[0].verdict) == ("inconclusive", "skipped")


def test_what_could_not_be_built_is_a_regression() -> None:
    broken = entry(problem="does not fuse", bundle=None)
    (found,) = gate.judge([(entry(), broken)], Options(), Clock(answer()))
    assert found.verdict == "regression"
    assert found.checks[0].reason == "does not fuse"


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (["pass", "skipped"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "regression", "pass"], "regression"),
        (["skipped"], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_the_gravest_verdict_is_the_whole(verdicts: list[str], whole: str) -> None:
    assert gate.overall(verdicts) == whole


# latency


def test_two_bundles_are_measured_now() -> None:
    clock = Clock(answer("regression", 1.2))
    check = judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), clock)["latency"]
    assert (check.verdict, check.baseline, check.candidate) == ("regression", 1.0, 1.2)
    assert check.change == pytest.approx(0.2)
    ((module, job, _),) = clock.jobs
    assert module == "edgecv.benchmark.sequential_test"
    assert (job["baseline"], job["candidate"]) == (str(BUNDLE), str(BUNDLE))
    assert job["limit"] == 0.05


def test_figures_of_this_kind_of_machine_stand_in_for_a_bundle() -> None:
    clock = Clock(answer())
    there = timing(9.0, machine={**HERE, "cpu": "Cortex-A76"}, latency_ms=70.0)
    before = entry(timings=(there, timing(0.3, 0.002, latency_ms=0.8)))
    check = judged(before, entry(bundle=BUNDLE), clock)["latency"]
    ((_, job, _),) = clock.jobs
    assert (job["baseline"], job["wanted"]) == (None, 0.002)
    assert (check.verdict, check.baseline) == ("regression", 0.8), "this machine's figures count"
    assert check.change == pytest.approx(np.exp(0.5 - 0.3) - 1)


def test_an_unlike_machine_settles_nothing() -> None:
    there = {**HERE, "cpu": "Cortex-A76"}
    before = entry(timings=(timing(machine=there),))
    check = judged(before, entry(bundle=BUNDLE))["latency"]
    assert check.verdict == "inconclusive"
    assert "Cortex-A76" in check.reason
    assert "This CPU" in check.reason
    assert "--update" in check.hint


def test_the_same_name_with_other_instructions_is_another_machine() -> None:
    there = {**HERE, "features": ["avx2", "avx512f"]}
    check = judged(entry(timings=(timing(machine=there),)), entry(bundle=BUNDLE))["latency"]
    assert (check.verdict, "avx512f" in check.reason) == ("inconclusive", True)


@pytest.mark.parametrize(("key", "value"), [("numpy", "2.3.9"), ("version", 0)])
def test_another_calibration_workload_settles_nothing(key: str, value: Any) -> None:
    calibration = {**timing().calibration, key: value}
    check = judged(entry(timings=(timing(calibration=calibration),)), entry(bundle=BUNDLE))
    assert check["latency"].verdict == "inconclusive"
    assert str(value) in check["latency"].reason


def test_a_patch_release_of_numpy_is_the_same_workload() -> None:
    calibration = {**timing().calibration, "numpy": "2.4.9"}
    check = judged(entry(timings=(timing(calibration=calibration),)), entry(bundle=BUNDLE))
    assert check["latency"].verdict == "pass"


def test_other_threads_are_other_figures() -> None:
    check = judged(entry(timings=(timing(threads=2),)), entry(bundle=BUNDLE))["latency"]
    assert (check.verdict, "1 thread" in check.reason) == ("inconclusive", True)


def test_two_sets_of_figures_are_compared_without_a_clock() -> None:
    before, after = entry(timings=(timing(0.5),)), entry(timings=(timing(0.7),))
    clock = Clock(AssertionError("nothing is measured"))
    check = judged(before, after, clock)["latency"]
    assert check.verdict == "regression"
    assert check.change == pytest.approx(np.exp(0.2) - 1)


def test_a_bundle_that_cannot_run_here_is_skipped_with_the_reason() -> None:
    after = entry(bundle=BUNDLE, runnable=False, problem="no NVIDIA driver")
    check = judged(entry(bundle=BUNDLE), after, Clock(AssertionError()))["latency"]
    assert (check.verdict, check.reason) == ("skipped", "not run here: no NVIDIA driver")
    gone = Clock(MissingExtraError("x", "openvino is not installed", "pip install"))
    check = judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), gone)["latency"]
    assert (check.verdict, check.reason) == ("skipped", "openvino is not installed")


def test_the_error_level_is_shared_by_all_that_are_measured() -> None:
    clock = Clock(answer())
    some = [(entry(bundle=BUNDLE), entry(bundle=BUNDLE))] * 4
    away = (entry(bundle=BUNDLE), entry(bundle=BUNDLE, runnable=False))
    gate.judge([*some, away], Options(), clock)
    assert {job["alpha"] for _, job, _ in clock.jobs} == {gate.ALPHA / 4}


def test_a_check_that_is_off_is_not_there() -> None:
    off = dict.fromkeys(("slowdown", "accuracy_drop", "size_growth", "memory_growth"))
    clock = Clock(AssertionError("nothing is measured"))
    assert judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), clock, **off) == {}


# accuracy


def flipped(lost: int, won: int = 0, **over: Any) -> baseline.Entry:
    """As entry(), with the first `lost` images wrong and `won` of the wrong ones right."""
    found = entry(**over)
    correct = found.correct.copy()
    correct[:lost] = False
    correct[len(correct) - won :] = True
    facts = {**found.facts, "metric": {**found.facts["metric"], "value": correct.mean()}}
    return replace(found, correct=correct, facts=facts)


def test_three_of_a_thousand_are_no_regression() -> None:
    assert judged(entry(), flipped(3))["accuracy"].verdict == "pass"
    check = judged(entry(), flipped(3), accuracy_drop=0.002)["accuracy"]
    assert check.verdict == "inconclusive"
    assert "3 images lost, 0 won" in check.reason
    assert "test images would tell" in check.hint


def test_a_drop_at_the_limit_is_within_it_however_sure() -> None:
    check = judged(entry(), flipped(8), accuracy_drop=0.008)["accuracy"]
    assert (check.verdict, check.change) == ("pass", -0.008)
    assert judged(entry(), flipped(8), accuracy_drop=0.007)["accuracy"].verdict == "regression"


def test_thirty_lost_and_none_won_are() -> None:
    check = judged(entry(), flipped(30))["accuracy"]
    assert (check.verdict, check.change) == ("regression", pytest.approx(-0.03))
    assert check.bounds[0] <= -0.03 <= check.bounds[1]


def test_as_many_won_as_lost_are_none() -> None:
    assert judged(entry(), flipped(30, 30))["accuracy"].verdict == "pass"
    assert judged(entry(), flipped(30, 23), accuracy_drop=0.005)["accuracy"].verdict == (
        "inconclusive"
    )


def test_other_test_images_do_not_compare() -> None:
    other = entry(facts={"metric": {"value": 0.5, "samples": 1000, "images": "another"}})
    check = judged(entry(), other)["accuracy"]
    assert (check.verdict, "different test images" in check.reason) == ("inconclusive", True)


def test_metrics_of_two_tasks_do_not_compare() -> None:
    found = {"name": "map50_95", "value": 0.9, "samples": 1000, "images": "set"}
    boxes = entry(correct=None, facts={"metric": found})
    check = judged(entry(), boxes)["accuracy"]
    assert (check.verdict, check.reason) == (
        "inconclusive", "one is judged by top-1 and the other by mAP",
    )  # fmt: skip
    check = judged(boxes, boxes)["accuracy"]  # known by figures alone
    assert (check.verdict, check.unit) == ("pass", "mAP")


def test_accuracy_without_predictions() -> None:
    before = entry(correct=None)
    assert judged(before, replace(flipped(3), correct=None))["accuracy"].verdict == "pass"
    assert judged(before, replace(flipped(30), correct=None))["accuracy"].verdict == "inconclusive"
    assert judged(before, entry(facts={"metric": None}))["accuracy"].verdict == "skipped"


def busy(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "candidate": {**found["candidate"], "busy": True}}


@pytest.mark.parametrize("log_ratio", [0.3, 0.5, 0.9])
def test_a_busy_machine_is_not_compared_with_another_day(log_ratio: float) -> None:
    before = entry(timings=(timing(log_ratio),))
    check = judged(before, entry(bundle=BUNDLE), Clock(busy(answer())))["latency"]
    assert check.verdict == "inconclusive"
    assert "others had the processor" in check.reason


def test_a_busy_machine_makes_no_baseline(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    ((_, measured, why),) = gate.update(
        path, [entry(bundle=BUNDLE)], Options(), Clock(busy(answer()))
    )
    assert measured
    assert "others had the processor" in why
    (kept,) = baseline.load(path)
    assert kept.timings == ()


def told(path: Path, one: Any, found: dict[str, Any]) -> str:
    """What an update says of one bundle."""
    ((_, _, why),) = gate.update(path, [one], Options(), Clock(found))
    return why


def test_a_busy_machine_leaves_the_older_figure_of_the_same_files(tmp_path: Path) -> None:
    path, one = tmp_path / "b.json", entry(bundle=BUNDLE)
    assert told(path, one, answer()) == ""
    before = path.read_bytes()
    assert told(path, one, busy(answer())).endswith("; an older figure of digest d1 stands")
    assert path.read_bytes() == before, "no latency is said to be there and not to be"
    (kept,) = baseline.load(path)
    assert (kept.timings, "no_latency" in kept.facts) == ((timing(0.5, 0.003),), False)
    assert judged(kept, one)["latency"].verdict == "pass"


@pytest.mark.parametrize("facts", [{"digest": "d2"}, {"tools": {"onnxruntime": "1.32"}}])
def test_the_older_figure_of_another_bundle_goes(tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / "b.json"
    gate.update(path, [entry(bundle=BUNDLE)], Options(), Clock(answer()))
    other = entry(bundle=BUNDLE, facts=facts)
    assert told(path, other, busy(answer())) == gate.BUSY
    (kept,) = baseline.load(path)
    assert (kept.timings, kept.facts["no_latency"]) == ((), gate.BUSY)


@pytest.mark.parametrize(
    ("over", "left"),
    [({"machine": {**HERE, "cpu": "Cortex-A76"}}, 1), ({"calibration": {"version": 0}}, 0)],
)
def test_figures_of_another_machine_or_workload_do_not_stand_for_these(
    tmp_path: Path, over: dict[str, Any], left: int
) -> None:
    path, one = tmp_path / "b.json", entry(bundle=BUNDLE)
    gate.update(path, [one], Options(), Clock(answer()))
    assert told(path, one, busy(answer(**over))) == gate.BUSY
    (kept,) = baseline.load(path)
    assert (len(kept.timings), "no_latency" in kept.facts) == (left, not left)


def test_an_update_with_another_workload_forgets_what_was_over_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    both = [entry("a", bundle=BUNDLE), entry("b", bundle=BUNDLE)]
    gate.update(path, both, Options(), Clock(answer()))
    gate.update(path, both[:1], Options(), Clock(answer(calibration={"version": 0})))
    assert {e.name: len(e.timings) for e in baseline.load(path)} == {"a": 1, "b": 0}


def test_figures_of_the_machine_that_runs_it_stand_where_nothing_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    gate.update(path, [entry(bundle=BUNDLE)], Options(), Clock(answer()))
    ((_, measured, why),) = gate.update(
        path, [entry(bundle=BUNDLE)], Options(), Clock(NoCudaDevice("x", "no GPU"))
    )
    assert measured is None
    assert why.startswith("no latency: ")
    assert why.endswith("an older figure of digest d1 stands")
    assert "no_latency" not in path.read_text()


# size, memory


@pytest.mark.parametrize(("size", "verdict"), [(1020, "pass"), (1021, "regression"), (900, "pass")])
def test_size_is_exact(size: int, verdict: str) -> None:
    assert judged(entry(), entry(facts={"size_bytes": size}))["size"].verdict == verdict


def with_peak(peak: float) -> dict[str, Any]:
    found = answer()
    return {**found, "candidate": {**found["candidate"], "memory_mb": {"peak": peak}}}


def test_memory_is_measured_again_before_it_is_a_regression() -> None:
    again = {"memory_mb": {"peak": 61.0}}
    clock = Clock(with_peak(80.0), again, again, again, again)
    check = judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), clock)["memory"]
    assert (check.verdict, check.candidate) == ("pass", 61.0), "the median of three"
    assert [module for module, *_ in clock.jobs[1:]] == ["edgecv.benchmark.startup"] * 4


def test_memory_that_stays_is_a_regression() -> None:
    stays = [{"memory_mb": {"peak": v}} for v in (60.0, 60.0, 81.0, 79.0)]
    check = judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), Clock(with_peak(80.0), *stays))
    assert (check["memory"].verdict, check["memory"].change) == (
        "regression", pytest.approx(1 / 3),
    )  # fmt: skip


def test_little_memory_more_is_measured_once() -> None:
    clock = Clock(with_peak(62.0))
    assert judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), clock)["memory"].verdict == "pass"
    assert len(clock.jobs) == 1


def test_memory_is_measured_where_no_clock_is_asked_for() -> None:
    peaks = [{"memory_mb": {"peak": v}} for v in (60.0, 62.0, 80.0, 82.0)]
    clock = Clock(*peaks, *peaks)
    check = judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), clock, slowdown=None)["memory"]
    assert (check.baseline, check.candidate, check.verdict) == (61.0, 81.0, "regression")
    assert {module for module, *_ in clock.jobs} == {"edgecv.benchmark.startup"}


def test_no_test_images_is_no_accuracy() -> None:
    none = replace(entry(), correct=np.zeros(0, bool))
    assert judged(none, none)["accuracy"].verdict == "skipped"


# notes, update


def test_what_else_changed_is_noted() -> None:
    after = entry(
        bundle=BUNDLE,
        facts={
            "precision": "fp32", "tools": {"onnxruntime": "1.32"}, "executed": {"fp32": 10},
        },
    )  # fmt: skip
    (found,) = gate.judge([(entry(bundle=BUNDLE), after)], Options(), Clock(answer()))
    text = "; ".join(found.notes)
    for part in ("int8 before, fp32 now", "onnxruntime 1.31.1 before, 1.32 now", "10 fp32 now"):
        assert part in text


def test_an_update_is_what_the_next_gate_reads(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    gate.update(path, [entry(bundle=BUNDLE)], Options(), Clock(answer()))
    (found,) = baseline.load(path)
    assert found.timings == (timing(0.5, 0.003),)
    assert np.array_equal(found.correct, entry().correct)


def test_an_update_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    gate.update(path, [entry(bundle=BUNDLE)], Options(), Clock(answer()))
    before = path.read_bytes()
    with pytest.raises(EngineError):
        gate.update(path, [entry("b", bundle=BUNDLE)], Options(), Clock(EngineError("x", "died")))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# figures and predictions that only look comparable


@pytest.mark.parametrize("images", [None, "set"])
def test_answers_to_other_numbers_of_images_are_no_pair(images: str | None) -> None:
    """A bundle need not name its test images, and a file that names them may be wrong."""
    metric = {"value": 0.9, "images": images}
    many, few = (
        entry(right=9 * n // 10, images=n, facts={"metric": {**metric, "samples": n}})
        for n in (1000, 500)
    )
    assert judged(many, few)["accuracy"].verdict == "inconclusive"


@pytest.mark.parametrize(("key", "value"), [("numpy", "1.26.4"), ("version", 0)])
def test_two_sets_of_figures_over_two_workloads_settle_nothing(key: str, value: Any) -> None:
    calibration = {**timing().calibration, key: value}
    after = entry(timings=(timing(calibration=calibration),))
    assert judged(entry(timings=(timing(),)), after)["latency"].verdict in (
        "inconclusive", "skipped",
    )  # fmt: skip


def test_the_error_level_is_shared_by_sets_of_figures_too() -> None:
    pair = entry(timings=(timing(0.5),)), entry(timings=(timing(0.563),))
    (one,) = gate.judge([pair], Options(), Clock(AssertionError()))
    assert one.checks[0].verdict == "regression"
    many = gate.judge([pair] * 20, Options(), Clock(AssertionError()))
    assert {found.checks[0].verdict for found in many} == {"inconclusive"}


def test_memory_at_the_limit_is_within_it() -> None:
    stays = [{"memory_mb": {"peak": v}} for v in (60.0, 60.0, 66.0, 66.0)]
    check = judged(entry(bundle=BUNDLE), entry(bundle=BUNDLE), Clock(with_peak(66.0), *stays))
    assert check["memory"].verdict == "pass"


# fidelity, of bundles without labels


def unlabelled(db: float | None) -> Any:
    kept = {} if db is None else {"sqnr_db": db}
    return entry(correct=None, bundle=BUNDLE, facts={"metric": None, **kept})


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (30.0, 29.1, "pass"),
        (30.0, 28.9, "regression"),
        (30.0, 41.0, "pass"),
        (128.0, 61.0, "pass"),  # roundings of float kernels
        (128.0, 58.0, "regression"),
        (30.0, None, "skipped"),
    ],
)
def test_without_labels_what_outputs_keep_of_float_is_judged(
    before: float, after: float | None, verdict: str
) -> None:
    found = judged(unlabelled(before), unlabelled(after))
    assert found["fidelity"].verdict == verdict
    assert found["accuracy"].verdict == "skipped"


@pytest.mark.parametrize(
    ("before", "after", "change", "reason"),
    [
        (30.0, 27.5, -2.5, ""),
        (128.5, 27.75, -100.75, "judged as -32.2 dB: above 60 dB counts as the same"),
        (128.5, 98.25, -30.25, "judged as +0.0 dB: above 60 dB counts as the same"),
    ],
)
def test_the_change_of_fidelity_is_that_of_its_columns(
    before: float, after: float, change: float, reason: str
) -> None:
    found = judged(unlabelled(before), unlabelled(after))["fidelity"]
    assert (found.change, found.reason) == (change, reason)


def test_fidelity_is_judged_as_asked_and_not_beside_an_accuracy() -> None:
    assert judged(unlabelled(30.0), unlabelled(25.0), sqnr_drop=6.0)["fidelity"].verdict == "pass"
    assert "fidelity" not in judged(unlabelled(30.0), unlabelled(25.0), sqnr_drop=None)
    labelled = entry(bundle=BUNDLE)
    assert "fidelity" not in judged(labelled, labelled)
