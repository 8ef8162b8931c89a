"""Constants in another order, images on their way in, distances: numbers that can be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecv.diagnosis.parity import tolerances
from edgecv.diagnosis.parity.constants import _compare
from edgecv.diagnosis.parity.distance import Energy, outputs
from edgecv.diagnosis.parity.images import of_folder, of_goldens
from edgecv.diagnosis.parity.inputs import alternatives
from edgecv.diagnosis.parity.layers import on_grid, placed
from edgecv.diagnosis.parity.report_rows import rung
from edgecv.errors import DataError
from edgecv.fidelity import Parity
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.spec import TensorSpec
from tests.diagnosis.parity.conftest import PREPROCESS, Made, pixels

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.transpose(0, 1, 3, 2), "height and width exchanged"),
        (lambda w: w[:, :, ::-1, ::-1], "rotated by 180°"),
        (lambda w: w[:, ::-1], "RGB and BGR"),
        (lambda w: w.transpose(0, 2, 3, 1).reshape(w.shape), "OHWI read as OIHW"),
    ],
)
def test_weights_in_another_order_are_recognised(change: Any, words: str) -> None:
    w = RNG.normal(size=(8, 3, 3, 3)).astype(np.float32)
    found = _compare("weight", w, np.ascontiguousarray(change(w)), 60.0, ())
    assert found is not None
    assert words in str(found)


def test_the_columns_of_a_dense_layer_follow_how_its_image_was_flattened() -> None:
    w = RNG.normal(size=(5, 4 * 3 * 2)).astype(np.float32)
    other = w.reshape(5, 4, 3, 2).transpose(0, 2, 3, 1).reshape(5, -1)
    found = _compare("weight", w, other, 60.0, (1, 4, 3, 2))
    assert "flattened as (H, W, C), not (C, H, W)" in str(found)


def test_equal_weights_do_not_differ_and_rounded_ones_are_equal_enough_for_int8() -> None:
    w = RNG.normal(size=(8, 3, 3, 3)).astype(np.float32)
    assert _compare("weight", w, w.copy(), 60.0, ()) is None
    step = np.abs(w).max() / 127
    rounded = (np.rint(w / step) * step).astype(np.float32)
    assert _compare("weight", w, rounded, 15.0, ()) is None
    assert _compare("weight", w, rounded, 60.0, ()) is not None
    w2 = w.copy()
    w2[3] *= 2
    found = _compare("weight", w, w2, 60.0, ())
    assert found is not None
    assert (found.channels, found.of) == (1, 8)


@settings(deadline=None)
@given(arrays(np.float32, (6, 5), elements=st.floats(-9, 9, width=32)), st.floats(0.01, 2))
def test_what_is_the_same_for_all_images_is_no_signal(x: np.ndarray, error: float) -> None:
    """A constant added to every image's answer changes neither signal nor noise."""
    noise = np.float32(error) * np.resize([1.0, -1.0], x.shape).astype(np.float32)
    near, far = outputs(x, x + noise), outputs(x + 64, x + 64 + noise)
    assert near.sqnr_db == pytest.approx(far.sqnr_db, abs=0.5) or near.sqnr_db < -20


def test_energy_on_paper() -> None:
    energy = Energy()
    for value in (1.0, 3.0, 1.0, 3.0):  # mean 2: signal 4, noise 4 * 0.01
        energy.add(np.array([value]), np.array([value + 0.1]))
    assert energy.sqnr_db == pytest.approx(20.0)
    assert energy.ref == 20
    few = Energy()
    few.add(np.array([2.0]), np.array([2.2]))
    assert few.sqnr_db == pytest.approx(20.0)  # too few for a mean: the whole signal
    few.add(np.array([np.nan]), np.array([1.0]))
    assert few.sqnr_db == -200


def test_a_single_change_of_the_image_undoes_itself() -> None:
    x = RNG.normal(size=(1, 3, 4, 5)).astype(np.float32)
    layouts = [a for a in alternatives(x.shape, PREPROCESS) if a.kind == "layout"]
    there, back = (a.change for a in layouts)
    assert not np.array_equal(there(x), x)
    assert np.array_equal(back(there(x)), x)
    (raw,) = (a for a in alternatives(x.shape, PREPROCESS) if "0..255" in a.name)
    shown = pixels(1)
    real = PREPROCESS.normalise(shown)
    assert np.allclose(raw.change(real), shown.transpose(0, 3, 1, 2), atol=1e-3)


def test_an_image_is_placed_in_the_engine_s_layout_and_grid() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4) / 10
    spec = TensorSpec("x", "int8", (1, 2, 4, 3), scale=0.1, zero_point=-3)
    found = placed(x, spec)
    assert found.dtype == np.int8
    assert np.array_equal(found, (np.arange(24).reshape(3, 2, 4) - 3).transpose(1, 2, 0)[None])
    assert on_grid(np.array([99.0]), spec)[0] == 127
    with pytest.raises(DataError, match=r"takes \(1, 2, 4, 3\)"):
        placed(x.transpose(0, 2, 1, 3), spec)


@pytest.mark.parametrize("name", ["fp32.cpu", "int8.tflite"])
def test_golden_inputs_become_pixels_again(name: str, made: Made) -> None:
    contents = read_bundle(made[name])
    found = of_goldens(contents)
    (given,) = contents.golden_inputs.values()
    again = np.stack([contents.preprocess.normalise(found.image(i))[0] for i in range(4)])
    step = 1 if given.dtype == np.int8 else 1e-3
    assert np.abs(again.astype(np.float64) - given).max() <= step


def test_a_folder_whose_names_are_labels_tells_the_truth(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image.fromarray(pixels(1)[0]).save(tmp_path / name / "1.png")
    found = of_folder(tmp_path, ["a", "x", "b"])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 2]
    assert of_folder(tmp_path, ["a"]).labels is None
    assert found.image(1).shape == (24, 24, 3)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        of_folder(tmp_path / "none", None)


def test_tolerances_know_what_was_done() -> None:
    assert tolerances.between("fp32", "fp32", False).min_sqnr_db == 50
    assert tolerances.between("fp32", "int8", False).min_sqnr_db == 10
    assert tolerances.between("int8", "int8", True).min_sqnr_db == 15
    assert tolerances.between("bf16", "bf16", True).min_sqnr_db == 20


def test_a_rung_without_a_best_class_has_no_agreement() -> None:
    parity = Parity(1.0, 0.0, 90.0, None, 4)
    made = rung("export", "a", "b", parity, tolerances.COMPILE["fp32"], None)
    assert made["parity"]["top1_agreement"] is None
    assert made["parity"]["sqnr_db"] == 90.0
