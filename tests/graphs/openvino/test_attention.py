"""Attention in OpenVINO IR: a softmax that weighs what a matrix product sums up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from openvino import opset13 as ops  # noqa: E402

from edgecv.graphs.openvino.attention import has_attention  # noqa: E402

TOKENS = ops.parameter([1, 6, 8], np.float32, name="x")


def attends(result: Any) -> bool:
    return has_attention(ov.Model([result], [TOKENS]))


def test_a_softmax_in_front_of_a_product_and_not_behind_one() -> None:
    scores = ops.matmul(TOKENS, TOKENS, False, True)
    shares = ops.softmax(scores, 2)
    scaled = ops.multiply(shares, ops.constant(np.float32(0.5)))
    assert attends(ops.matmul(scaled, TOKENS, False, False))
    assert attends(ops.scaled_dot_product_attention(TOKENS, TOKENS, TOKENS))
    assert not attends(ops.relu(shares)), "a classifier's"
