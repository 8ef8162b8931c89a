"""What is said of a recipe before anything trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from edgecv.errors import RecipeError, StageError
from edgecv.models import zoo
from edgecv.plan import pipeline, recipe
from edgecv.plan.makers import model

HEAD = """
model: {zoo: resnet8, width: 16}
data: {train: 'npz:set.npz', test: 'npz:set.npz', size: 8, crop_pct: 1.0}
targets: [cpu]
stages:
  - train: {name: dense, epochs: 2}
"""


@pytest.fixture
def load(tmp_path: Path):
    def made(*stages: str) -> recipe.Recipe:
        path = tmp_path / "my.yaml"
        path.write_text(HEAD + "".join(f"  - {stage}\n" for stage in stages))
        return recipe.load(path)

    return made


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            ["prune: {name: small, keep: [stagee1]}"],
            "small: no layer matches 'stagee1' (did you mean",
        ),
        (
            ["prune: {name: a}", "sparsify: {name: b, density: {stage9: 0.5}}"],
            "b: no layer matches",
        ),
        (["restructure: {name: c, layers: [nothing]}"], "c: no layer matches 'nothing'"),
        (["lowrank: {name: d, layers: ['*.conv9']}"], "d: no layer matches '*.conv9'"),
    ],
)
def test_names_are_looked_for_in_the_network_as_it_comes(load, stages, said: str) -> None:
    with pytest.raises(RecipeError) as e:
        model.check_layer_names(load(*stages), zoo.build("resnet8", width=16))
    assert said in str(e.value)


def test_names_that_come_to_be_later_are_not_looked_for(load) -> None:
    stages = ["restructure: {name: c, layers: [stage3]}", "prune: {keep: [stage3.0.conv1.0]}"]
    model.check_layer_names(load(*stages), zoo.build("resnet8", width=16))


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        (["prune: {name: a, latency_ratio: 0.5}", "quantize: {}"], ["a"]),
        (["lowrank: {name: a}", "quantize: {}"], ["a"]),
        (["prune: {name: a, latency_ratio: 0.5, precision: int8}", "quantize: {}"], []),
        (["prune: {name: a, latency_ratio: 0.5, ship: true}", "quantize: {}"], []),
        (["prune: {name: a, latency_ratio: 0.5}"], []),
        (["prune: {name: a, macs: 0.5}", "quantize: {}"], []),
        (["prune: {name: a, latency_ratio: 0.5}", "quantize: {precision: fp16}"], []),
    ],
)
def test_a_step_that_is_timed_as_it_will_not_ship_is_named(load, stages, named: list) -> None:
    assert list(model._timed_in_float(load(*stages))) == named


def test_a_layer_that_an_earlier_step_chose_by_itself_cannot_be_named(load, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(40) % 4)
    bits = "binarize: {name: bits, from: model, epochs: 1, two_step: false, teacher: none}"
    sparse = "sparsify: {name: sparse, density: {stage2.0.conv2: 0.5}}"
    said = r"sparse: cannot follow step 'bits', which gave layer 'stage2\.0\.conv2' one bit"
    with pytest.raises(StageError, match=said):
        pipeline.run(load(bits, sparse), tmp_path / "out", compare=False)
