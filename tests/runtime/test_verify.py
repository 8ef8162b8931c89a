"""verify replays golden inputs on the real engine and says how far the answers are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import BundleError
from edgecv.runtime import verify
from edgecv.runtime.archive import write_bundle
from edgecv.runtime.fidelity import compare
from tests.runtime.conftest import described, golden, network

pytest.importorskip("onnxruntime")


def bundle_with(tmp_path: Path, change, integer: bool = False, **manifest) -> Path:
    """A bundle whose golden outputs went through `change`."""
    model, described_ = network(integer=integer), described(integer=integer, **manifest)
    inputs, outputs = golden(model, described_, samples=8)
    outputs = {k: change(v).astype(v.dtype) for k, v in outputs.items()}
    path = tmp_path / "b.edgecv"
    return write_bundle(path, described_, {"model.onnx": model}, inputs, outputs)


@pytest.mark.parametrize("integer", [False, True])
def test_the_machine_that_made_it_agrees_exactly(make_bundle, integer: bool) -> None:
    report = verify(make_bundle(integer=integer))
    assert report.ok
    assert report.exact
    assert (report.max_abs_error, report.sqnr_db, report.samples) == (0.0, None, 3)
    assert report.compared == report.agreed > 0
    assert report.engine == "onnxruntime"
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["ok"] is True


def test_rounding_of_another_cpu_passes(tmp_path: Path) -> None:
    report = verify(bundle_with(tmp_path, lambda y: y * (1 + 1e-6)))
    assert report.ok
    assert not report.exact
    assert report.sqnr_db is not None
    assert report.sqnr_db > 100


def test_sqnr_is_what_it_says(tmp_path: Path) -> None:
    seen = {}

    def change(y: np.ndarray) -> np.ndarray:
        seen["golden"], seen["real"] = y * np.float32(1.01), y
        return seen["golden"]

    report = verify(bundle_with(tmp_path, change))
    figure = compare(seen["golden"], seen["real"]).sqnr_db
    assert report.sqnr_db == pytest.approx(figure, abs=0.01)
    assert not report.ok
    assert "SQNR" in report.reason


def test_the_floor_is_the_precisions(tmp_path: Path) -> None:
    def noisy(y: np.ndarray) -> np.ndarray:
        return y * 1.01  # about 40 dB

    assert not verify(bundle_with(tmp_path, noisy, precision="fp32")).ok
    assert verify(bundle_with(tmp_path, noisy, precision="int8")).ok


def test_integers_are_compared_in_real_units(tmp_path: Path) -> None:
    report = verify(bundle_with(tmp_path, lambda q: q.astype(int) + 1, integer=True))
    assert report.max_abs_error == pytest.approx(1 / 32)


def test_another_answer_is_not_ok(tmp_path: Path) -> None:
    report = verify(bundle_with(tmp_path, lambda y: np.roll(y, 1, axis=1)))
    assert not report.ok
    assert report.agreed < report.compared


def test_another_best_class_alone_is_not_ok(tmp_path: Path) -> None:
    # one sample's winner and runner-up exchanged, drowned in the signal of the other outputs
    def change(y: np.ndarray) -> np.ndarray:
        y = y.copy()
        first, second = np.argsort(-y[0])[:2]
        y[0, [first, second]] = y[0, [second, first]]
        return y

    report = verify(bundle_with(tmp_path, change, precision="int8"))
    assert not report.ok
    assert report.agreed == report.compared - 1


def test_outputs_that_are_not_finite_are_not_ok(tmp_path: Path) -> None:
    report = verify(bundle_with(tmp_path, lambda y: y * np.nan))
    assert not report.ok
    assert report.to_json()["max_abs_error"] is None
    assert "finite" in report.reason


def test_without_golden_inputs_there_is_nothing_to_prove(tmp_path: Path) -> None:
    path = tmp_path / "b.edgecv"
    write_bundle(path, described(), {"model.onnx": network()}, {}, {})
    with pytest.raises(BundleError, match="no golden inputs"):
        verify(path)


def test_damage_is_a_bundle_error(make_bundle) -> None:
    path = make_bundle()
    data = bytearray(path.read_bytes())
    data[data.find(network()) + 50] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"model\.onnx"):
        verify(path)
