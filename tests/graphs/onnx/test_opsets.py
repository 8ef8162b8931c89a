"""Families of operators at every opset that has them, through the door: what they answer stays.

`benchmarks/opsets.py` goes through all of opsets 7 to 26; these are some at which much changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.opset_nets import FAMILIES, SHAPE, make
from edgecv.errors import ModelError
from edgecv.methods.export.onnx import load_onnx
from tests.methods.export.test_onnx_entry import answer

PIXELS = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
TURNS = (7, 9, 10, 11, 12, 17, 22, 26)
SOME = [(name, n) for i, (name, (since, _)) in enumerate(FAMILIES.items())
        for j, n in enumerate(TURNS) if n >= since and (n == 7 or (i + j) % 2)]  # fmt: skip
ONCE_WRONG = [("softmax", 12), ("pad", 10), ("resize, linear", 10), ("resize, nearest", 10)]


@pytest.mark.parametrize(("name", "opset"), sorted({*SOME, *ONCE_WRONG}))
def test_a_family_answers_as_it_did(name: str, opset: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(make(name, opset), str(path))
    before = answer(path, PIXELS)
    graph = load_onnx(path, tmp_path / "out")
    assert graph.facts["opset"] == max(18, opset)
    after = answer(graph.path, PIXELS)
    assert before.shape == after.shape
    assert np.linalg.norm(before) > 0
    assert np.linalg.norm(after - before) <= 1e-5 * np.linalg.norm(before)


def relu(opset: int, ir: int) -> Any:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def test_an_opset_that_no_runtime_here_reads_is_refused_with_the_newest(tmp_path: Path) -> None:
    onnx.save(relu(onnx.defs.onnx_opset_version(), 13), str(tmp_path / "net.onnx"))
    with pytest.raises(ModelError, match=r"is of opset \d+, and ONNX Runtime [\d.]+ reads up to"):
        load_onnx(tmp_path / "net.onnx", tmp_path / "out")


def test_a_container_that_is_newer_than_its_opset_is_taken(tmp_path: Path) -> None:
    onnx.save(relu(18, onnx.IR_VERSION), str(tmp_path / "net.onnx"))
    assert load_onnx(tmp_path / "net.onnx", tmp_path / "out").facts["ops"] == {"Relu": 1}
