"""Reading and writing IR: the same network is the same bytes; what it says of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from openvino import opset13 as ops  # noqa: E402

from edgecv.errors import EngineError  # noqa: E402
from edgecv.graphs.openvino.files import FILES, read, save, spec, wish, wishing_bf16  # noqa: E402


def model(kind: Any = np.float32, layout: str = "") -> Any:
    x = ops.parameter([1, 3, 4, 4] if layout != "NHWC" else [1, 4, 4, 3], kind, name="x")
    if layout:
        x.layout = ov.Layout(layout)
    y = ops.relu(ops.convert(x, "f32"))
    y = ops.multiply(y, ops.constant(np.full((1, 1, 1, 1), 1.5, np.float32)))
    y.output(0).get_tensor().set_names({"y"})
    x.output(0).get_tensor().set_names({"x"})
    end = ops.result(y)
    end.set_friendly_name("y/end")  # converters name what comes in and goes out
    return ov.Model([end], [x], "net")


def files(folder: Path, made: Any, half: bool = False) -> list[bytes]:
    folder.mkdir()
    save(made, folder / FILES[0], half)
    return [(folder / name).read_bytes() for name in FILES]


def test_made_up_names_do_not_change_the_bytes(tmp_path: Path) -> None:
    one = files(tmp_path / "one", model())
    model()  # counts of nodes go on
    two = files(tmp_path / "two", model())
    assert one == two
    assert b"Runtime_version" not in one[0]
    (port,) = read(one, "net").outputs
    assert (port.any_name, tuple(port.shape)) == ("y", (1, 3, 4, 4))


def test_a_file_asks_for_bf16_and_is_heard(tmp_path: Path) -> None:
    xml, weights = files(tmp_path / "one", model())
    assert wish(read((xml, weights), "net")) == "f32"
    assert wish(read((wishing_bf16(xml), weights), "net")) == "bf16"


def test_layouts_and_pixels_are_as_the_file_says() -> None:
    (x,) = model(np.uint8, "NHWC").inputs
    told = spec(x)
    assert (told.layout, told.dtype, told.scale, told.zero_point) == ("NHWC", "uint8", 1.0, 0)
    (x,), (y,) = (model().inputs, model().outputs)
    assert (spec(x).layout, spec(x).scale, spec(y).layout) == ("NCHW", None, "NCHW")


@pytest.mark.parametrize("content", [b"", b"<net", b"<?xml version='1.0'?><net></net>"])
def test_no_ir_is_told_in_a_line(content: bytes) -> None:
    with pytest.raises(EngineError, match=r"net\.xml") as told:
        read((content,), "net.xml")
    assert "\n" not in str(told.value)
    assert told.value.hint.startswith("are .xml and .bin")
