"""A recipe of a network without classes, from arrays to bundles: judged by fidelity per output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.runtime import open_bundle

RNG = np.random.default_rng(0)
RECIPE = """\
model: two.onnx
data: {images: samples.npz, resize: none, mean: 0.5, std: 0.25}
bench: {rounds: 3, burst_ms: 1, budget_s: 0.2}
stages:
  - quantize: {name: small}
targets: [cpu]
"""


def write_network(path: Path) -> None:
    """Image (1, 3, 16, 16) and four numbers in; a map and a row out."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *shape: int) -> object:
        values = RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["depth"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Concat", ["f", "state"], ["j"], axis=1),
        helper.make_node("Gemm", ["j", "w3"], ["pose"], transB=1),
    ]
    sides = (("image", [1, 3, 16, 16]), ("state", [1, 4])), (
        ("depth", [1, 1, 16, 16]), ("pose", [1, 6]))  # fmt: skip
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side]
             for side in sides]  # fmt: skip
    weights = [weight("w1", 8, 3, 3, 3), weight("w2", 1, 8, 1, 1), weight("w3", 6, 12)]
    graph = helper.make_graph(nodes, "two", *infos, weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


@dataclass(frozen=True)
class Finished:
    """out: the run's folder; done: the command; data: its results.json."""

    out: Path
    done: Any
    data: dict[str, Any]


@pytest.fixture(scope="module")
def ran(edgecv: Callable, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("unlabelled")
    write_network(folder / "two.onnx")
    pixels = RNG.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    state = RNG.normal(size=(60, 4)).astype(np.float32)
    np.savez(folder / "samples.npz", image=pixels, state=state)
    (folder / "depth.yaml").write_text(RECIPE)
    done = edgecv("run", "depth.yaml", "--out", "out", cwd=folder)
    assert done.code == 0, done.err
    out = folder / "out"
    return Finished(out, done, json.loads((out / "results.json").read_text()))


def row(ran: Finished, step: str) -> dict[str, Any]:
    (found,) = (r for r in ran.data["results"] if r["step"] == step)
    return dict(found)


def test_every_output_is_judged_on_samples_that_calibrated_nothing(ran: Finished) -> None:
    small = row(ran, "small")
    assert small["metric"] is None
    assert "made_up" not in small
    found = small["parity"]["float"]
    assert found["samples"] == 20  # a third of sixty
    assert set(found["outputs"]) == {"depth", "pose"}
    assert found["sqnr_db"] == min(o["sqnr_db"] for o in found["outputs"].values())
    assert 20 < found["sqnr_db"] < 60 < row(ran, "model")["parity"]["float"]["sqnr_db"]
    assert small["latency_ratio"] > 0
    assert small["engine_bytes"] > 0


def test_the_figure_is_the_one_that_the_bundle_gives(ran: Finished) -> None:
    """A third of the samples, normalised by hand, through both bundles."""
    held = np.load(ran.out.parent / "samples.npz")
    bundles = [open_bundle(ran.out / row(ran, step)["bundle"]) for step in ("model", "small")]
    answers: list[list[np.ndarray]] = [[], []]
    for i in range(1, 60, 3):
        image = (held["image"][i : i + 1].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25
        feed = {"image": image.astype(np.float32), "state": held["state"][i : i + 1]}
        for bundle, rows in zip(bundles, answers, strict=True):
            rows.append(bundle.run(feed)["depth"].ravel())
    before, after = (np.stack(rows).astype(np.float64) for rows in answers)
    signal = ((before - before.mean(0)) ** 2).sum()
    sqnr = 10 * np.log10(signal / ((before - after) ** 2).sum())
    found = row(ran, "small")["parity"]["float"]["outputs"]["depth"]["sqnr_db"]
    assert found == pytest.approx(sqnr, abs=0.01)


def test_the_table_tells_the_distance_and_no_accuracy(ran: Finished) -> None:
    found = row(ran, "small")["parity"]["float"]
    assert "from float" in ran.done.out
    assert "top-1  vs fp32" not in ran.done.out
    (line,) = (x for x in ran.done.out.splitlines() if x.startswith("cpu") and " small " in x)
    assert f"{found['sqnr_db']:.1f} dB" in line
    said = f"pose {found['outputs']['pose']['sqnr_db']:.1f} dB"
    assert any(x.startswith("small on cpu") and said in x for x in ran.done.out.splitlines())


def test_the_report_tells_it_too(ran: Finished, edgecv: Callable) -> None:
    pytest.importorskip("jinja2")
    done = edgecv("report", ran.out)
    assert done.code == 0, done.err
    found = row(ran, "small")["parity"]["float"]
    assert f"{found['sqnr_db']:.1f} dB from float" in done.out
    page = (ran.out / "report.html").read_text()
    assert "top-1" not in page
    for section in ("trade", "changed"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page
    assert f"<small>pose {found['outputs']['pose']['sqnr_db']:.1f} dB</small>" in page


def test_the_gate_judges_fidelity(ran: Finished, edgecv: Callable) -> None:
    """float against int8 is a loss; the baseline file keeps the figure that it is judged by."""
    bundles = {step: ran.out / row(ran, step)["bundle"] for step in ("model", "small")}
    off = [x for o in ("slowdown", "accuracy-drop", "memory-growth", "size-growth")
           for x in (f"--max-{o}", "none")]  # fmt: skip
    same = edgecv("gate", bundles["small"], bundles["small"], *off)
    assert same.code == 0, same.out
    done = edgecv("gate", bundles["model"], bundles["small"], *off, "--json")
    (check,) = json.loads(done.out)["pairs"][0]["checks"]
    assert (done.code, check["name"], check["verdict"]) == (1, "fidelity", "regression")
    assert check["candidate"] == row(ran, "small")["parity"]["float"]["sqnr_db"]
    wider = edgecv("gate", bundles["model"], bundles["small"], *off, "--max-sqnr-drop", "90")
    assert wider.code == 0
    wrong = edgecv("gate", bundles["model"], bundles["small"], "--max-sqnr-drop", "5%")
    assert (wrong.code, "no number of decibels" in wrong.err) == (2, True)


def test_the_bundles_verify_and_answer_by_name(ran: Finished, edgecv: Callable) -> None:
    path = ran.out / row(ran, "small")["bundle"]
    done = edgecv("verify", path)
    assert done.code == 0, done.err
    assert open_bundle(path).labels == ()
