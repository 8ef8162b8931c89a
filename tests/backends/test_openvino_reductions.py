"""Reductions whose channels are scaled behind them: OpenVINO's one kernel for both errs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from openvino import opset13 as ops  # noqa: E402

from edgecv.backends.openvino.fusion_faults import keep_apart  # noqa: E402
from edgecv.backends.openvino.plain import Plain  # noqa: E402
from edgecv.backends.openvino.run import Session  # noqa: E402
from edgecv.graphs.openvino import files  # noqa: E402
from edgecv.runtime.fidelity import Energy  # noqa: E402

RNG = np.random.default_rng(0)
TOKENS = [1, 36, 32]
BY_CHANNEL = RNG.uniform(0.2, 5, (1, 32)).astype(np.float32)


def model(reduced: str, then: tuple[str, ...], values: np.ndarray = BY_CHANNEL, **how: Any) -> Any:
    """A reduction of (1, 36 tokens, 32 channels), what follows it by channel, 256 levels."""
    x = ops.parameter(TOKENS, np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    axes = ops.constant(np.array(how.get("axes", [1])))
    y: Any = getattr(ops, reduced)(x, axes, how.get("keep", False))
    for kind in then:
        y = ops.relu(y) if kind == "relu" else getattr(ops, kind)(y, ops.constant(values))
    y = ops.fake_quantize(y, *(np.float32(v) for v in (-2, 2, -2, 2)), 256)
    y.output(0).get_tensor().set_names({"y"})
    return ov.Model([ops.result(y)], [x])


def sqnr_db(made: Any, out: Path) -> float:
    """The engine's own kernels beside each operator alone."""
    files.save(made, out / "m.xml")
    content = {"m.xml": (out / "m.xml").read_bytes(), "m.bin": (out / "m.bin").read_bytes()}
    alone, fused, found = Plain(content), Session(content), Energy()
    for _ in range(8):
        feed = {"x": RNG.normal(size=TOKENS).astype(np.float32)}
        found.add(alone.run(feed)["y"], fused.run(feed)["y"])
    return found.sqnr_db


@pytest.mark.parametrize("reduced", ["reduce_mean", "reduce_sum", "reduce_max", "reduce_l2"])
@pytest.mark.parametrize("then", [("multiply",), ("subtract",), ("relu", "multiply")])
def test_each_answers_as_its_operators_do(
    reduced: str, then: tuple[str, ...], tmp_path: Path
) -> None:
    made = model(reduced, then)
    assert keep_apart(made) == 1
    assert sqnr_db(made, tmp_path) > 30


@pytest.mark.parametrize(
    ("values", "how"),
    [
        (np.float32(2), {}),
        (BY_CHANNEL[:, None], {"keep": True}),
        (np.ones((1, 36), np.float32), {"axes": [2]}),
    ],
)
def test_what_is_right_stays_as_it_is(
    values: np.ndarray, how: dict[str, Any], tmp_path: Path
) -> None:
    made = model("reduce_mean", ("multiply",), values, **how)
    assert keep_apart(made) == 0
    assert sqnr_db(made, tmp_path) > 30
