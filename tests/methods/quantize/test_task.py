"""What int8 costs is asked of the task where it can be: a detector that finds bright squares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("pycocotools")
pytest.importorskip("onnxruntime")
from edgecv import target
from edgecv.bundling.inference import plain_answers
from edgecv.bundling.task_fidelity import LEAST_BOXES, LEAST_IMAGES, TaskFidelity
from edgecv.commands.export_output import fidelity_lines
from edgecv.context import Context
from edgecv.data.images import Images
from edgecv.errors import ParityError
from edgecv.fidelity import Parity, Tolerance
from edgecv.graph import Graph
from edgecv.measuring.facts import BundleFacts
from edgecv.methods.export.onnx import export_onnx
from edgecv.methods.quantize import quantizer
from edgecv.methods.quantize.candidate import Judged
from edgecv.methods.quantize.costly import Costly, why_float
from edgecv.methods.quantize.options import DEFAULT, Options, for_nncf, without
from edgecv.methods.quantize.quantizer import Quantizer
from edgecv.methods.quantize.roads import road
from edgecv.runtime.preprocess import Preprocess
from tests import networks as nets

SIDE, CELL, COLOURS = 32, 8, 3
TOLERANCE = Tolerance(6.0, 0.8)


class Squares(nn.Module):
    """YOLOX's raw head of one map (1, 5 + 3, 4, 4): a cell is an object of its brightest colour.

    outlier: of a's last channel, which b makes small again: 256 levels hold either that channel or
    the colours
    """

    def __init__(self, outlier: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 5 + COLOURS, 1)
        with torch.no_grad():
            for layer in (self.a, self.b, self.head):
                layer.weight *= 0.02
                layer.bias.zero_()
            for k in range(COLOURS):
                self.a.weight[k, k] = self.b.weight[k, k] = 1.0
                self.head.weight[4, k], self.head.weight[5 + k, k] = 12.0, 12.0
            self.head.bias[:2], self.head.bias[4:] = 0.5, -5.0  # boxes about the cells' middles
            self.a.weight[7] = 0.3 * outlier
            self.b.weight[:, 7] /= outlier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(nn.functional.avg_pool2d(x, CELL))


def pictures(count: int = 24, seed: int = 0) -> Images:
    """Dark noise with squares of one colour, more or less bright, in some of the cells."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for image in pixels:
        for place in rng.choice(16, 4, replace=False):
            y, x = CELL * (place // 4), CELL * (place % 4)
            image[y : y + CELL, x : x + CELL, rng.integers(COLOURS)] = rng.integers(90, 250)
    return Images(pixels, np.zeros(count, np.int64), ())


def context(out: Path, **options: object) -> Context:
    images = pictures()
    labels = ("red", "green", "blue")
    given = {
        "images": {"train": images, "test": images}.get, "labels": labels, "task": "detection",
        "preprocess": Preprocess((SIDE, SIDE), 3, (0.0,), (255.0,), resize="none"),
        "target": target.load("x86-avx512-vnni"), "decode": {"decoder": "yolox"}, **options,
    }  # fmt: skip
    return replace(nets.context(out), **given)


def exported(outlier: float, out: Path) -> Graph:
    graph = export_onnx(Squares(outlier).eval(), torch.zeros(1, 3, SIDE, SIDE), out)
    graph.save_facts()
    return graph


def made(source: Graph, here: Context, **how: bool) -> tuple[Graph, Parity]:
    return Quantizer(source, here, 16, **how).make(DEFAULT, here.out / "int8", TOLERANCE)


def test_float_is_faithful_to_itself_and_what_is_silent_is_not(tmp_path: Path) -> None:
    source, here = exported(1.0, tmp_path / "float"), context(tmp_path)
    (said,) = plain_answers(source, pictures().pixels, here.preprocess)
    asked = TaskFidelity.of(source, (said,), here)
    assert asked is not None
    assert asked.score((said,)) == pytest.approx(1.0)
    silent = said.copy()
    silent[:12, 4] = -20.0  # objectness of half the pictures
    assert 0.3 < asked.score((silent,)) < 0.7
    assert asked.to_json(asked.score((said,)))["good"]
    assert asked.on((silent[:12],)) is None  # float that finds nothing tells nothing


def test_a_few_pictures_or_boxes_are_no_evidence(tmp_path: Path) -> None:
    """What keeps the only box of a few pictures is not called faithful: SQNR's bounds hold."""
    source, here = exported(1.0, tmp_path / "float"), context(tmp_path)
    (said,) = plain_answers(source, pictures().pixels, here.preprocess)
    assert TaskFidelity.of(source, (said[: LEAST_IMAGES - 1],), here) is None
    sparse = said.copy()
    sparse[1:, 4] = -20.0  # objectness: only the first picture's boxes are left
    whole = TaskFidelity.of(source, (said,), here)
    assert whole is not None
    assert whole.enough
    alone = whole.on((sparse,))
    assert alone is not None
    assert 0 < len(alone.truth.boxes) < LEAST_BOXES
    assert not alone.enough
    assert TaskFidelity.of(source, (sparse,), here) is None


@pytest.mark.parametrize("task", [None, "classification", "none"])
def test_classes_are_not_asked(task: str | None, tmp_path: Path) -> None:
    source, here = exported(1.0, tmp_path / "float"), context(tmp_path, task=task, decode={})
    answers = plain_answers(source, pictures().pixels, here.preprocess)
    assert TaskFidelity.of(source, answers, here) is None


def test_a_detector_that_is_served_well_is_not_searched_by_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def far_off(*given: object) -> list[object]:
        asked.append(float(given[3]))  # type: ignore[arg-type]
        return []

    monkeypatch.setattr(quantizer, "far_off", far_off)
    source, here = exported(1.0, tmp_path / "float"), context(tmp_path)
    graph, _ = made(source, here)
    assert graph.facts["fidelity"]["good"]
    assert (graph.facts["options"]["keep_float"], asked) == ([], [])
    made(source, replace(here, task=None, decode={}))
    assert asked == [quantizer.COMPILE_INT8.min_sqnr_db + quantizer.SEEN_DB]


def test_layers_that_cost_the_task_stay_float_and_say_so(tmp_path: Path) -> None:
    source, here = exported(2000.0, tmp_path / "float"), context(tmp_path)
    told: list[tuple[int, int, str]] = []
    here = replace(here, progress=lambda *said: told.append(said))
    graph, _ = made(source, here)
    plain, _ = Quantizer(source, here, 16).make(DEFAULT, tmp_path / "plain", guarded=False)
    assert plain.facts["fidelity"]["value"] < 0.5
    assert graph.facts["fidelity"]["value"] > 0.85
    assert {"a", "b"} <= set(graph.facts["options"]["keep_float"])
    said = " ".join(graph.facts["warnings"])
    assert "of 100 mAP against float's own answers: it stays float" in said
    assert "dB" not in said
    assert told[-1][0] == told[-1][1]


def test_floats_that_do_not_serve_the_task_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`head` does no harm, whatever it is blamed for."""
    source, here = exported(2000.0, tmp_path / "float"), context(tmp_path)
    monkeypatch.setattr(quantizer, "costly", lambda *_: [Costly("head", 0.9, ("head",), "mAP")])
    making = Quantizer(source, here, 16)
    first = making._quantized(DEFAULT, tmp_path / "int8")
    graph, options, said, fine = making._asked_of_task(first, DEFAULT, tmp_path / "int8")
    assert (options.keep_float, fine) == ((), False)
    assert graph.facts["options"]["keep_float"] == []
    (doubt,) = said
    assert "only labelled images can tell" in doubt


def test_other_knobs_are_tried_where_the_defaults_do_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, here = exported(500.0, tmp_path / "float"), context(tmp_path)
    making, out = Quantizer(source, here, 16), tmp_path / "int8"
    assert making.asked is not None

    def scored(change: dict[str, object]) -> float:
        return making.asked.score(
            making._answers(making._quantized(replace(DEFAULT, **change), out))
        )

    first, *others = map(scored, ({}, *quantizer.OTHER_KNOBS))
    best = max(others)
    assert best > first
    monkeypatch.setattr(quantizer, "FAITHFUL", best)
    graph, _ = making.make(DEFAULT, out, TOLERANCE)
    change = quantizer.OTHER_KNOBS[others.index(best)]
    assert {k: graph.facts["options"][k] for k in change} == change
    assert making.asked.score(making._answers(graph)) == pytest.approx(best)
    said = " ".join(graph.facts["warnings"])
    assert f"{100 * best:.1f} of 100 mAP of float's own answers so, and {100 * first:.1f}" in said
    # what the user set stays
    kept = Quantizer(source, here, 16, fixed=frozenset({"calibration", "bias_correction"}))
    graph, _ = kept.make(replace(DEFAULT, calibration="mean"), out, TOLERANCE)
    assert graph.facts["options"]["calibration"] == "mean"
    assert graph.facts["options"]["bias_correction"]


def test_the_defaults_stay_where_no_knob_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, here = exported(500.0, tmp_path / "float"), context(tmp_path)
    monkeypatch.setattr(quantizer, "FAITHFUL", 1.5)
    making = Quantizer(source, here, 16)
    first = making._quantized(DEFAULT, tmp_path / "int8")
    before = first.path.read_bytes()
    graph, options, _, said = making._other_knobs(first, DEFAULT, tmp_path / "int8")
    assert (options, said) == (DEFAULT, [])  # two hundredths are not won
    assert graph.path.read_bytes() == before


def test_nncf_is_asked_for_what_it_has_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, here = exported(500.0, tmp_path / "float"), context(tmp_path)
    making, asked = Quantizer(source, here, 16), list[Options]()
    first = making._quantized(DEFAULT, tmp_path / "int8")
    monkeypatch.setattr(quantizer, "FAITHFUL", 1.5)
    monkeypatch.setattr(making, "_quantized", lambda options, _: asked.append(options) or first)
    making._other_knobs(first, for_nncf(DEFAULT, ()), tmp_path / "int8")
    assert [o.bias_correction for o in asked[:1]] == [False]
    assert not any(without(options) for options in asked)


def test_a_tolerance_of_the_users_own_holds(tmp_path: Path) -> None:
    source, here = exported(1.0, tmp_path / "float"), context(tmp_path)
    high = Tolerance(150.0, 0.0)
    Quantizer(source, here, 16).make(DEFAULT, tmp_path / "int8", high)
    with pytest.raises(ParityError, match="against at least 150"):
        Quantizer(source, here, 16, strict=True).make(DEFAULT, tmp_path / "strict", high)


def test_islands_are_where_the_task_loses(tmp_path: Path) -> None:
    source, here = exported(2000.0, tmp_path / "float"), context(tmp_path)
    making = Quantizer(source, here, 16)
    graph, _ = making.make(Options(), tmp_path / "int8", guarded=False)
    data = making._samples[:8]
    for found in (
        road("onnx").sensitivities(source, graph, data, "noise", making.asked),
        making.losses(graph, lambda *_: None),
    ):
        worst = max(found.activations, key=lambda t: found.activations[t])
        assert found.activations[worst] > 0.3
        assert {"a", "b"} <= set(found.touching[worst])
        assert max(found.weights.values()) < 0.1


def test_a_drop_is_told_with_how_sure_it_is() -> None:
    judged = Judged(0.5, (-0.4, 1.3), 64)
    assert judged.unsure(1.0)
    assert not judged.unsure(1.5)
    assert not judged.unsure(-1.0)
    said = judged.doubt(1.0)
    assert "64 images do not tell a drop of 1 points: it lies between -0.4 and 1.3" in said
    assert said.endswith("some 185 would")
    assert judged.to_json() == {"drop": 0.5, "bounds": [-0.4, 1.3], "images": 64}


def test_many_layers_are_told_in_few_sentences() -> None:
    found = [Costly(f"layer{i}", 0.1 + 0.05 * i, (f"layer{i}",), "mAP") for i in range(9)]
    assert len(why_float(found[:4])) == 4
    said = why_float(found)
    assert len(said) == 4
    assert said[0].startswith("layer 'layer8' in int8 alone loses 50.0 of 100 mAP")
    assert said[3].startswith("6 more layers stay float, each alone loses 10.0 to 35.0 of 100 mAP")


def test_the_command_tells_what_the_task_keeps() -> None:
    parity = {"graph": None, "compiled": None, "float": None}
    facts = BundleFacts("b.edgecv", 1, 1, "onnxruntime", True, (), "", None, {}, parity)
    assert list(fidelity_lines(facts)) == []
    kept = {"metric": "map50_95", "value": 0.9266, "good": True}
    (said,) = fidelity_lines(replace(facts, fidelity=kept))
    assert said.endswith("float's answers for the truth: 92.7 of 100 mAP, without labels")
