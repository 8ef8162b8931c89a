"""An engine's own kernels beside the same integers node by node: told, or refused."""

from __future__ import annotations

import pytest

from edgecv.bundle_parity import lost
from edgecv.errors import ParityError
from edgecv.runtime.fidelity import compare


def at(sqnr_db: float) -> object:
    import numpy as np

    rng = np.random.default_rng(0)
    signal = rng.normal(size=(16, 5))
    noise = rng.normal(size=(16, 5))
    for _ in range(50):  # scaled until the measure says what is wanted
        found = compare(signal, signal + noise)
        noise *= 10 ** ((found.sqnr_db - sqnr_db) / 20)
    assert found.sqnr_db == pytest.approx(sqnr_db, abs=0.1)
    return found


@pytest.mark.parametrize(("graph", "bundle"), [(24, 23), (41, 36), (60, 40), (30, 24.5)])
def test_other_rounding_is_not_told(graph: float, bundle: float) -> None:
    assert list(lost("net", at(graph), at(bundle))) == []


@pytest.mark.parametrize(("graph", "bundle"), [(23.9, 17.5), (30, 21)])
def test_more_noise_is_told_with_both_figures(graph: float, bundle: float) -> None:
    (said,) = lost("net", at(graph), at(bundle))
    assert f"{bundle:.1f} dB from float" in said
    assert f"node by node {graph:.1f} dB" in said


@pytest.mark.parametrize(("graph", "bundle"), [(41, 17), (22, 14), (34, 20)])
def test_kernels_that_are_wrong_are_refused(graph: float, bundle: float) -> None:
    with pytest.raises(ParityError, match="the engine's kernels answer"):
        list(lost("net", at(graph), at(bundle)))
