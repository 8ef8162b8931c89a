"""The last rung: the same images on a real SSH server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edgecv.device import kit
from tests.device.conftest import board, running
from tests.device.server import Server
from tests.diagnosis.parity.conftest import Made

__all__ = ["board", "running"]


def test_what_a_device_needs_is_small() -> None:
    names = kit.members("edgecv.diagnosis.parity.replayed")
    assert "edgecv/diagnosis/parity/replayed.py" in names
    assert not any("torch_form" in n or "onnx_form" in n for n in names)


def test_the_device_is_a_rung(made: Made, edgecv: Callable, board: Server) -> None:
    pytest.importorskip("onnxruntime")
    options = (
        "--device", str(board.address), "--ssh-config", str(board.config), "--python", board.python,
    )  # fmt: skip
    done = edgecv("parity", made["int8.cpu"], "--against", made["fp32.cpu"], "--json", *options)
    assert done.code == 0, done.err + done.out
    data = json.loads(done.out)
    last = data["rungs"][-1]
    assert (last["step"], last["agrees"]) == ("device", True)
    assert last["parity"]["sqnr_db"] > 40
    assert board.idle()
