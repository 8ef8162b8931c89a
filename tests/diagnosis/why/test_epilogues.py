"""Activation functions and layers that int8 slows down, from ONNX Runtime's own profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from edgecv.backends.onnxruntime.run import Session
from edgecv.diagnosis.why import epilogues
from edgecv.diagnosis.why.against import Rival
from edgecv.diagnosis.why.onnx_view import OnnxView
from edgecv.measuring.clock import Saving
from edgecv.runtime.spec import Layer
from tests.diagnosis.why import troubled
from tests.diagnosis.why.cases import case


def profiled(content: bytes) -> tuple[OnnxView, tuple[Layer, ...]]:
    view = OnnxView("net.onnx", content, True)
    session = Session(view.files)
    try:
        feed = {"x": np.zeros((1, 4, troubled.HW, troubled.HW), np.float32)}
        return view, session.profile(feed, 5).layers
    finally:
        session.close()


@pytest.fixture(scope="module")
def pair() -> dict[str, tuple[OnnxView, tuple[Layer, ...]]]:
    model = troubled.wide_silu()
    images = np.random.default_rng(0).normal(size=(4, 4, troubled.HW, troubled.HW))
    made = troubled.quantized(model, images.astype(np.float32))
    return {"fp32": profiled(model.SerializeToString()),
            "int8": profiled(made.SerializeToString())}  # fmt: skip


def timed(rows: tuple[Layer, ...], **ms: float) -> tuple[Layer, ...]:
    """The rows with a time for each operator."""
    return tuple(replace(r, time_ms=ms.get(r.op.partition(" ")[0], 0.0)) for r in rows)


def test_functions_and_layers_are_found_in_the_profile(pair: Any) -> None:
    functions = {
        kind: sorted(r.op for r in epilogues.of_functions(rows, view))
        for kind, (view, rows) in pair.items()
    }
    assert functions["int8"] == ["QLinearMul", "QLinearSigmoid"]
    assert functions["fp32"] in (["QuickGelu"], ["Mul", "Sigmoid"])
    layers = {kind: set(epilogues.by_layer(rows, view)) for kind, (view, rows) in pair.items()}
    assert layers["int8"] == layers["fp32"] == {"wide", "end"}


def test_milliseconds_beside_float(pair: Any) -> None:
    (float_view, floats), (view, integers) = pair["fp32"], pair["int8"]
    mine = timed(integers, QLinearConv=2.0, QLinearSigmoid=3.0, QLinearMul=5.0)
    theirs = timed(floats, Conv=0.5, FusedConv=0.5, QuickGelu=1.0, Mul=0.5, Sigmoid=0.5)
    rival = Rival("fp32.edgecv", "fp32", "onnxruntime", Saving(2.0, 1.0, 3.0, 12.0, 10.0), {},
                  theirs, float_view)  # fmt: skip
    one = replace(case(*mine, call_ms=12.0), view=view)
    found = {f.kind: f for f in epilogues.check(one, rival)}
    activations, slower = found["activations"], found["slower-in-int8"]
    assert activations.what.startswith(
        "activation functions take 8.0 of 12.0 ms (QLinearMul 1x 5.0, QLinearSigmoid 1x 3.0); "
        "in fp32.edgecv 1.0 ms ("
    )
    assert activations.ms == pytest.approx(7.0)
    assert activations.change.startswith("tables in place of their pieces")
    assert "--activations relu" in activations.change
    assert set(slower.where) == {"wide", "end"}
    assert slower.ms == pytest.approx(3.0)
    assert "wide 2.0 ms against 0.5" in slower.what


def test_functions_that_cost_nothing_are_no_finding(pair: Any) -> None:
    view, rows = pair["int8"]
    quick = timed(rows, QLinearConv=5.0, QLinearSigmoid=0.01, QLinearMul=0.01)
    assert list(epilogues.check(replace(case(*quick, call_ms=10.0), view=view), None)) == []
