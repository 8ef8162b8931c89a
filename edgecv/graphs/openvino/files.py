"""model.xml and model.bin: read, written, and what they say of their tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import EngineError, missing
from edgecv.runtime.spec import TensorSpec

FILES = ("model.xml", "model.bin")
UNREADABLE = "are .xml and .bin whole and of one pair?"

# The converter's own notes at the end of the .xml: its version and how it was called.
NOTES = re.compile(rb"\t<rt_info>(?:(?!<rt_info>).)*</rt_info>\s*(?=</net>\s*$)", re.DOTALL)

# Names that OpenVINO made up end in a count of all nodes this process ever made: the layer's own
# number takes its place, so that the same network gives the same bytes.
MADE_UP = re.compile(rb'(<layer id="(\d+)" name="[A-Za-z]+_)\d+(" type="(?!Parameter|Result))')

# Where OpenVINO itself keeps what a network asks of the engine.
WISH = (
    b"\t<rt_info>\n\t\t<runtime_options>\n\t\t\t"
    b'<INFERENCE_PRECISION_HINT value="bf16" />\n'
    b"\t\t</runtime_options>\n\t</rt_info>\n"
)


def read(files: Sequence[bytes], where: str) -> Any:
    """The ov.Model of an .xml and its .bin, which may be left out where there are no weights.

    Raises EngineError (named `where`): no IR. MissingExtraError.
    """
    try:
        import openvino as ov
    except ImportError:
        raise missing("openvino", "openvino", where) from None
    xml, weights = [*files, b""][:2]
    try:
        return ov.Core().read_model(xml, weights)
    except Exception as e:
        said = " ".join(str(e).split())[-200:]  # the cause comes last
        raise EngineError(where, said, UNREADABLE) from None


def save(model: Any, xml: Path, half: bool = False) -> None:
    """Write an ov.Model as that .xml, `cleaned`, and the .bin beside it. half: weights in fp16"""
    import openvino as ov

    ov.save_model(model, str(xml), compress_to_fp16=half)
    xml.write_bytes(cleaned(xml.read_bytes()))


def cleaned(xml: bytes) -> bytes:
    """An .xml without what depends on who wrote it: the same network gives the same bytes."""
    return MADE_UP.sub(rb"\1\2\3", NOTES.sub(b"", xml))


def wishing_bf16(xml: bytes) -> bytes:
    """A `cleaned` .xml that asks for its floats to be computed in bf16."""
    return xml.replace(b"</net>", WISH + b"</net>")


def wish(model: Any) -> str:
    """What a network's floats are to be computed in: "f32" or "bf16"."""
    place = ["runtime_options", "INFERENCE_PRECISION_HINT"]
    asked = model.get_rt_info(place).astype(str) if model.has_rt_info(place) else "f32"
    return "bf16" if asked == "bf16" else "f32"


def spec(port: Any) -> TensorSpec:
    """An input or output of a static ov.Model, compiled or not; its layout as the file says."""
    shape = tuple(int(d) for d in port.shape)
    kind = np.dtype(port.element_type.to_dtype()).name
    last = _last(port)
    layout = "NC"
    if len(shape) == 4:
        layout = "NHWC" if last else "NCHW"
    if last is not None and kind in ("uint8", "int8"):  # pixels as they are
        return TensorSpec(port.any_name, kind, shape, layout, 1.0, 0)
    return TensorSpec(port.any_name, kind, shape, layout)


def _last(port: Any) -> bool | None:
    """Whether an input's channels come last; None of what is no input."""
    node = port.get_node()
    if node.get_type_name() != "Parameter":
        return None
    return bool(str(node.layout).replace(",", "") == "[NHWC]")
