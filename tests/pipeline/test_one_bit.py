"""A recipe with one-bit layers, by the command: what ran as xnor, where, what it answers."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from edgecv.binary import build
from edgecv.runtime import open_bundle
from edgecv.runtime.archive import read_bundle
from tests import networks as nets

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C compiler")

RECIPE = """
model: {zoo: resnet8, width: 8}
data: {train: npz:small.npz, test: npz:small.npz, size: 16, crop_pct: 1.0}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - train: {name: dense, epochs: 2, lr: 0.01, flip: false}
  - binarize: {name: bits, epochs: 2, lr: 0.01, flip: false, ship: true}
  - quantize: {name: bits-int8, min_sqnr_db: 0, min_agreement: 0}
targets: [cpu, openvino, c]
"""


@pytest.fixture(scope="module")
def run(edgecv: Callable, kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    del kernels
    folder = tmp_path_factory.mktemp("one-bit")
    images = nets.images(120, 0)
    np.savez(
        folder / "small.npz", x_train=images.pixels, y_train=images.labels,
        x_test=images.pixels[:60], y_test=images.labels[:60],
    )  # fmt: skip
    (folder / "bits.yaml").write_text(RECIPE)
    done = edgecv("run", "bits.yaml", "--out", folder / "out", cwd=folder)
    assert done.code == 0, done.err
    return folder / "out"


def test_what_ran_is_counted_from_the_executed_graph(run: Path) -> None:
    rows = json.loads((run / "results.json").read_text())["results"]
    ran = {(r["step"], r["target"]): r["executed"] for r in rows}
    assert ran["bits", "cpu"] == {"binary": 6, "fp32": 4}
    assert ran["bits-int8", "cpu"] == {"binary": 6, "int8": 4}
    if platform.machine() in ("x86_64", "AMD64"):  # where channels are multiples of 16
        assert ran["bits", "openvino"] == {"binary": 3, "fp32": 7}
        assert ran["bits-int8", "openvino"]["binary"] == 3
    assert {r["status"] for r in rows} == {"ok"}


def test_every_engine_answers_alike(run: Path) -> None:
    images = nets.images(60, 0).pixels
    answers = []
    for on in ("cpu", "openvino"):
        bundle = open_bundle(run / f"bundles/bits.{on}.edgecv")
        answers.append([bundle(image)[0].index for image in images])
    assert np.mean(np.array(answers[0]) == np.array(answers[1])) >= 0.95


def test_a_bundle_says_what_made_it_and_holds_bits(run: Path) -> None:
    manifest = read_bundle(run / "bundles/bits.cpu.edgecv").manifest
    assert manifest["tools"]["binary kernels"]
    dense = read_bundle(run / "bundles/dense.cpu.edgecv").manifest
    assert manifest["size_bytes"] < 0.7 * dense["size_bytes"]


def test_a_bundle_of_source_code_wants_to_be_trusted(
    edgecv: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECV_TRUST_SOURCE", raising=False)
    bundle = run / "bundles/bits-int8.c.edgecv"
    assert read_bundle(bundle).manifest["executed"] == {"binary": 6, "int8": 4}
    done = edgecv("verify", bundle)
    assert done.code == 2, done.err
    assert "source code" in done.err
    assert "EDGECV_TRUST_SOURCE=1" in done.err
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")
    done = edgecv("verify", bundle)
    assert done.code == 0, done.err


def test_why_and_parity_open_it(edgecv: Callable, run: Path) -> None:
    bundle = run / "bundles/bits-int8.cpu.edgecv"
    told = json.loads(edgecv("why", bundle, "--json", "--budget", "2s").out)
    assert told["executed"]["binary"] == 6
    assert edgecv("verify", bundle).code == 0
    done = edgecv("parity", bundle, "--json")
    assert done.code in (0, 1), done.err
    assert json.loads(done.out)["rungs"]


def test_without_kernels_it_answers_the_same_and_says_that_it_is_slow(
    edgecv: Callable, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECV_KERNELS", str(tmp_path / "none.so"))
    done = edgecv("verify", run / "bundles/bits.cpu.edgecv")
    assert done.code == 0, done.err
    assert "run in floats, slowly" in done.err
