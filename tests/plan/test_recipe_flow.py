"""What cannot stand on what an earlier step changed is refused when the recipe is read."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from edgecv.errors import RecipeError, StageError
from edgecv.models import edits
from edgecv.models.model import Model
from edgecv.plan import recipe

HEAD = """\
model: MODEL
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28}
targets: [cpu]
stages:
"""
STEPS = {
    "keep_channels": "prune: {NAME}",
    "connections": "sparsify: {NAME}",
    "factorize": "lowrank: {NAME, method: svd}",
    "structured": "lowrank: {NAME, method: toeplitz}",
    "replace": "restructure: {NAME}",
    "binarize": "binarize: {NAME}",
    "quantizers": "qat: {NAME}",
}
# (earlier, later) -> what is said of the earlier step, and the way out
REFUSED = {
    **{("quantizers", op): ("learned ranges of the layers as they are", "put it before that step")
       for op in STEPS},
    ("quantizers", "quantizers"): ("learned ranges already", "let both read the float step"),
    ("binarize", "binarize"): ("gave layers one bit already", "let both read the float step"),
    ("binarize", "quantizers"): ("gave layers one bit", "quantize"),
    ("structured", "quantizers"): ("left layers that multiply by FFT", "quantize after training"),
}  # fmt: skip
NAMED = {  # the same layer, named by both
    "connections": "sparsify: {NAME, density: {fc: 0.5}}",
    "factorize": "lowrank: {NAME, method: svd, layers: [fc]}",
    "structured": "lowrank: {NAME, method: toeplitz, layers: [fc]}",
    "replace": "restructure: {NAME, layers: [fc]}",
    "binarize": "binarize: {NAME, layers: [fc]}",
}


@pytest.fixture
def plan(tmp_path: Path):
    """plan(first, second) -> Recipe of two steps, "one" and "two"."""

    def planned(*steps: str, model: str = "{zoo: resnet8}") -> recipe.Recipe:
        path = tmp_path / "my.yaml"
        names = ("one", "two", "three")
        lines = [s.replace("NAME", f"name: {n}") for s, n in zip(steps, names, strict=False)]
        text = HEAD.replace("MODEL", model) + "".join(f"  - {line}\n" for line in lines)
        path.write_text(text)
        return recipe.load(path)

    return planned


def test_every_kind_of_edit_is_planned_by_a_stage(plan) -> None:
    assert set(STEPS) == set(edits.kinds())
    for op, step in STEPS.items():
        (only,) = plan(step).steps
        assert only.stage.planned("one")["op"] == op


@pytest.mark.parametrize(("first", "second"), product(STEPS, STEPS))
def test_two_changes_stand_or_are_refused_with_a_way_out(plan, first: str, second: str) -> None:
    if (first, second) not in REFUSED:
        assert len(plan(STEPS[first], STEPS[second]).steps) == 2
        return
    said, hint = REFUSED[first, second]
    with pytest.raises(RecipeError, match=f"cannot follow step 'one', which {said}") as e:
        plan(STEPS[first], STEPS[second])
    assert "my.yaml:6" in e.value.where
    assert hint in e.value.hint


@pytest.mark.parametrize(("first", "second"), product(NAMED, NAMED))
def test_a_layer_that_is_gone_cannot_be_named(plan, first: str, second: str) -> None:
    gone = {"structured": "made layer 'fc' structured", "binarize": "gave layer"}
    if first not in gone or (first, second) in REFUSED:
        return
    with pytest.raises(RecipeError, match=f"step 'one', which {gone[first]}.*name other layers"):
        plan(NAMED[first], NAMED[second])
    other = NAMED[second].replace("fc", "stem")
    assert len(plan(NAMED[first], other).steps) == 2


def test_steps_between_do_not_hide_it_and_branches_do_not_meet(plan) -> None:
    with pytest.raises(RecipeError, match="'one', which learned ranges"):
        plan(STEPS["quantizers"], "train: {NAME}", STEPS["keep_channels"])
    plan(STEPS["quantizers"], "prune: {NAME, from: model}")


def test_a_model_folder_brings_its_edits_and_a_student_none(plan, tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    learned = {"op": "quantizers", "step": "q", "quantizers": {}, "calls": [], "method": "lsq"}
    data = {"schema": 1, "builder": "zoo:resnet8", "args": {}, "edits": [learned], "input": {}}
    (folder / "model.json").write_text(json.dumps(data | {"labels": None, "facts": {}}))
    folder_model = f"{{folder: '{folder}'}}"
    assert Model.read(folder).edits == (learned,)
    with pytest.raises(RecipeError, match="cannot follow step 'q', which learned ranges"):
        plan(STEPS["keep_channels"], model=folder_model)
    student = "distill: {NAME, teacher: model, student: {zoo: resnet8}}"
    plan(student, STEPS["keep_channels"], model=folder_model)


def test_a_model_takes_no_edit_that_cannot_stand() -> None:
    pytest.importorskip("torch")
    bits = {"op": "binarize", "step": "bits", "layers": {"a": {}, "b": {}}}
    model = Model("zoo:resnet8").with_edit(bits)
    with pytest.raises(StageError, match="low: cannot follow step 'bits', which gave layer 'b'"):
        model.with_edit({"op": "factorize", "step": "low", "layers": {"b": {}, "c": {}}})
    low = {"op": "factorize", "step": "low", "layers": {"c": {}}}
    assert model.with_edit(low).edits == (bits, low)
