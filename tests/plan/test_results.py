"""results.json: the keys other people's scripts rely on, and no figure that was not measured."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
from edgecv.benchmark.machine import machine
from edgecv.errors import EngineError, MissingExtraError, ParityError
from edgecv.plan import recipe, results
from edgecv.plan.graph import Expansion
from edgecv.plan.pipeline import Outcome
from edgecv.text_table import reason

TEXT = """
model: {zoo: resnet8, width: 16}
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28}
stages:
  - train: {name: dense}
  - quantize: {name: small}
targets: [cpu, edgetpu, rpi5]
"""
KEYS = {
    "step", "target", "engine", "precision", "bundle", "metric", "latency_ms", "latency_ratio",
    "cpu_time_ratio", "size_bytes", "status", "reason",
}  # fmt: skip
FACTS = {
    "size_bytes": 1000,
    "engine_bytes": 600,
    "engine": "onnxruntime",
    "compiled": True,
    "notes": [],
    "against": "the file against torch",
    "reason": "",
    "metric": {"name": "top1", "value": 0.9, "samples": 100},
    "executed": {"int8": 9},
    "parity": None,
}


@pytest.fixture(scope="module")
def expansion(tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    path = tmp_path_factory.mktemp("results") / "my.yaml"
    path.write_text(TEXT)
    return Expansion(recipe.load(path))


@pytest.fixture
def outcome(expansion: Expansion, tmp_path: Path) -> Outcome:
    """A run whose nodes left the facts that packing and measuring leave."""
    made = Outcome(expansion)
    for i, node in enumerate(expansion.nodes.values()):
        if node.kind not in ("bundle", "measure"):
            continue
        folder = made.folders[node.id] = tmp_path / str(i)
        folder.mkdir()
        facts = copy.deepcopy(FACTS) | {"bundle": f"{node.step}.{node.target.name}.edgecv"}
        facts["metric"]["value"] = 0.95 if node.precision == "fp32" else 0.9
        if node.kind == "measure":
            facts = {
                "bundles": [measured(expansion.nodes[n]) for n in node.inputs.values()],
                "threads": 1,
                "machine": machine(),
                "calibration": {"version": 1, "numpy": "2.4.6", "latency_ms": 0.6},
            }
        (folder / "facts.json").write_text(json.dumps(facts))
    return made


def measured(node) -> dict:
    return {
        "bundle": f"{node.step}.{node.target.name}.edgecv",
        "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "mean": 1.5},
        "latency_ratio": 0.5,
        "latency_ratio_interval": [0.4, 0.6],
        "cpu_time_ratio": 0.45,
        "cpu_time_ratio_interval": [0.4, 0.5],
        "cpu_ms": 1.0,
        "throughput": 1000.0,
        "calibrated": {"log_ratio": -0.5, "error": 0.002},
        "import_ms": 20.0,
        "load_ms": 10.0,
        "first_call_ms": 3.0,
        "memory_mb": {"before": 30.0, "steady": 60.0, "peak": 64.0},
        "energy_mj": None,
        "busy": False,
    }


def change(outcome: Outcome, node: str, **facts) -> None:
    path = outcome.folders[node] / "facts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def row(outcome: Outcome, step: str, target: str) -> dict:
    rows = results.collect(outcome)["results"]
    (found,) = (r for r in rows if (r["step"], r["target"]) == (step, target))
    return found


def test_the_keys_that_scripts_rely_on(outcome: Outcome) -> None:
    data = results.collect(outcome)
    assert {"schema", "recipe", "machine", "results"} <= set(data)
    assert data["schema"] == 2
    assert data["machine"] == machine()
    assert data["recipe"]["name"] == "my"
    assert len(data["results"]) == 5  # the int8 for three targets, the fp32 reference for two
    assert all(set(r) >= KEYS for r in data["results"])
    json.dumps(data)


def test_a_row_of_what_was_measured(outcome: Outcome) -> None:
    found = row(outcome, "small", "cpu")
    assert {k: found[k] for k in KEYS} == {
        "step": "small", "target": "cpu", "engine": "onnxruntime", "precision": "int8",
        "bundle": "bundles/small.cpu.edgecv",
        "metric": {"name": "top1", "value": 0.9, "samples": 100, "reference": 0.95},
        "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "mean": 1.5}, "latency_ratio": 0.5,
        "cpu_time_ratio": 0.45, "size_bytes": 1000, "status": "ok", "reason": "",
    }  # fmt: skip


def test_a_busy_machine_is_noted(outcome: Outcome, expansion: Expansion) -> None:
    busy = [{**measured(expansion.nodes["bundle:small@cpu"]), "busy": True}]
    change(outcome, "measure:cpu", bundles=busy)
    found = row(outcome, "small", "cpu")
    assert (found["status"], found["reason"]) == ("ok", "machine was busy while measuring")


def test_int8_that_is_slower_is_told_with_a_command_that_runs_as_it_is_pasted(
    outcome: Outcome, expansion: Expansion, tmp_path: Path
) -> None:
    slow = measured(expansion.nodes["bundle:small@cpu"]) | {
        "latency_ratio": 1.1, "latency_ratio_interval": [1.05, 1.15], "busy": True,
    }  # fmt: skip
    change(outcome, "measure:cpu", bundles=[slow])
    found = row(outcome, "small", "cpu")
    said = "machine was busy while measuring; int8 is slower than fp32"
    assert found["reason"] == said
    run = tmp_path / "my run"
    command = f"edgecv why '{run}/bundles/small.cpu.edgecv'"
    assert reason(found, run) == f"{said}: `{command}` says why"
    assert reason({**found, "bundle": None}, run) == said
    older = f"{said}: `edgecv why small.cpu.edgecv` says why; its shape from scratch: top-1 90.00"
    assert reason({**found, "reason": older}, run) == (
        f"{said}: `{command}` says why; its shape from scratch: top-1 90.00"
    )
    assert reason(row(outcome, "dense", "cpu"), run) == "latency not measured"


def no_figures(found: dict) -> bool:
    return all(found[k] is None for k in ("latency_ms", "latency_ratio", "cpu_time_ratio"))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MissingExtraError("cpu", "onnxruntime is not installed", "edgecv[ort]"), "unavailable"),
        (EngineError("cpu", "died"), "failed"),
        (ParityError("cpu", "differs"), "failed"),
    ],
)
def test_a_failure_is_a_row_without_figures(outcome: Outcome, error, status: str) -> None:
    outcome.failures["bundle:small@cpu"] = error
    found = row(outcome, "small", "cpu")
    assert (found["status"], found["reason"]) == (status, str(error))
    assert no_figures(found)
    assert found["bundle"] is found["metric"] is found["size_bytes"] is None
    assert row(outcome, "dense", "cpu")["status"] == "ok"


def test_what_cannot_run_here_says_why(outcome: Outcome) -> None:
    reason = "no CUDA device"
    change(outcome, "bundle:small@cpu", reason=reason, metric=None, executed={})
    found = row(outcome, "small", "cpu")
    assert (found["status"], found["reason"], found["metric"]) == ("unavailable", reason, None)
    assert no_figures(found)
    assert found["size_bytes"] == 1000, "the file is there all the same"


def test_another_board_has_no_latency_of_this_machine(outcome: Outcome) -> None:
    found = row(outcome, "small", "rpi5")
    assert found["status"] == "unavailable"
    assert "this machine is not the device" in found["reason"]
    assert no_figures(found)
    assert found["metric"]["value"] == 0.9


def test_a_measurement_that_failed_is_told(outcome: Outcome) -> None:
    outcome.failures["measure:cpu"] = EngineError("measure:cpu", "died of SIGSEGV")
    del outcome.folders["measure:cpu"]
    found = row(outcome, "small", "cpu")
    assert (found["status"], found["reason"]) == ("failed", "measure:cpu: died of SIGSEGV")
    assert no_figures(found)


def test_a_bundle_that_was_not_measured_has_no_latency(outcome: Outcome) -> None:
    change(outcome, "measure:cpu", bundles=[])
    assert no_figures(row(outcome, "small", "cpu"))
    assert row(outcome, "small", "cpu")["status"] == "unavailable"


def test_the_reference_is_of_the_same_engine_or_of_another(outcome: Outcome) -> None:
    change(outcome, "bundle:dense@rpi5", metric={**FACTS["metric"], "value": 0.8})
    assert row(outcome, "small", "cpu")["metric"]["reference"] == 0.95
    assert row(outcome, "small", "rpi5")["metric"]["reference"] == 0.8
    assert row(outcome, "small", "edgetpu")["metric"]["reference"] == 0.95, "it offers no fp32"
    for target in ("cpu", "rpi5"):
        outcome.failures[f"bundle:dense@{target}"] = EngineError("x", "died")
    assert row(outcome, "small", "cpu")["metric"]["reference"] is None


def test_writing_is_atomic_and_reads_back(outcome: Outcome, tmp_path: Path) -> None:
    data = results.collect(outcome)
    out = tmp_path / "out"
    out.mkdir()
    path = results.write(data, out)
    assert json.loads(path.read_text()) == data
    assert [p.name for p in out.iterdir()] == ["results.json"]


def test_the_digest_is_of_what_was_built(outcome: Outcome) -> None:
    one = results.collect(outcome)["recipe"]["digest"]
    assert one == results.collect(outcome)["recipe"]["digest"]
    other = SimpleNamespace(**vars(outcome.expansion))
    assert len(one) == 32
    assert other.recipe.name == "my"


def test_what_was_made_from_what(outcome: Outcome) -> None:
    folder = outcome.folders["bundle:small@cpu"]
    (folder / "key.json").write_text('{"key": {}, "files": {}, "seconds": 1.5}')
    outcome.reused.append("bundle:small@cpu")
    nodes = {n["id"]: n for n in results.collect(outcome)["nodes"]}
    assert list(nodes) == list(outcome.expansion.nodes)
    found = nodes["bundle:small@cpu"]
    assert (found["kind"], found["step"], found["target"]) == ("bundle", "small", "cpu")
    assert (found["action"], found["seconds"], found["digest"]) == ("reused", 1.5, folder.name)
    assert found["inputs"]["graph"] == "small@cpu"
    assert nodes["small@cpu"]["kind"] == "quantize"
    assert nodes["measure:cpu"]["seconds"] is None, "a store of an older edgecv does not say"
    assert nodes["dense"]["action"] == "failed", "nothing lies there"


def test_a_row_names_its_reference(outcome: Outcome) -> None:
    assert row(outcome, "small", "cpu")["reference"] == "dense"
    outcome.failures["bundle:small@cpu"] = EngineError("x", "died")
    assert row(outcome, "small", "cpu")["reference"] == "dense"


def test_the_recipe_and_the_versions_are_kept(outcome: Outcome) -> None:
    source = {"file": "my.yaml", "text": TEXT, "only": ["cpu"]}
    data = results.collect(outcome, source)
    assert source.items() <= data["recipe"].items()
    assert data["recipe"]["name"] == "my"
    assert data["versions"]["numpy"] == np.__version__
