"""Which kernel computes a narrow 1x1 convolution in int8, said layer by layer in the .xml.

OpenVINO takes the first of its kernels that fits, and on processors with AMX that is one for tiles
of 64 channels, whatever the layer has. `jit_avx512_1x1` computes the same bits in less time where a
layer reads few channels, most of all with a SiLU behind it: 0.81 to 0.95 of the time of the
zoo's networks that have such layers (benchmarks/openvino_kernels.py, on a processor with AMX).

The attribute is OpenVINO's own (`ov::PrimitivesPriority`): kernels to be tried first. A processor
that has not got one goes on with its own list.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

KERNEL = "cpu:jit_avx512_1x1"
WIDEST = 128  # channels read, measured on OpenVINO 2026.4: wider ones gain nothing or lose
ATTRIBUTE = f'<attribute name="primitives_priority" version="0" value="{KERNEL}" />'
# What lies between integers in the file and the convolution that reads them.
_BETWEEN = ("Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize")


def chosen(xml: bytes) -> bytes:
    """An .xml as OpenVINO writes it, with the kernel said at every layer that gains by it."""
    root = ET.fromstring(xml)
    layers = {str(layer.get("id")): layer for layer in root.iter("layer")}
    sources = {
        (str(edge.get("to-layer")), str(edge.get("to-port"))): str(edge.get("from-layer"))
        for edge in root.iter("edge")
    }
    for number, layer in layers.items():
        own = layer.get("type") == "Convolution" and _narrow(layer)
        if own and _integers(layers, sources, number):
            xml = _said(xml, number)
    return xml


def _narrow(layer: ET.Element) -> bool:
    """A 1x1 convolution of stride 1 that reads few channels."""
    data, inputs = layer.find("data"), layer.findall("input/port")
    if data is None or len(inputs) != 2:
        return False
    weight = [int(dim.text or 0) for dim in inputs[1].findall("dim")]
    strides = {part.strip() for part in str(data.get("strides")).split(",")}
    return len(weight) == 4 and weight[2:] == [1, 1] and weight[1] <= WIDEST and strides == {"1"}


def _integers(
    layers: dict[str, ET.Element], sources: dict[tuple[str, str], str], number: str
) -> bool:
    """Whether a layer's weights are integers in the file."""
    at = sources.get((number, "1"), "")
    while at in layers and layers[at].get("type") in _BETWEEN:
        at = sources.get((at, "0"), "")
    held = layers[at].find("data") if at in layers else None
    return held is not None and held.get("element_type") in ("i8", "u8")


def _said(xml: bytes, number: str) -> bytes:
    """The .xml with the attribute at that layer, in front of what OpenVINO says there."""
    place = rb'(<layer id="%s" [^>]*>\s*<data [^>]*/>)(\s*<rt_info>)?' % number.encode()
    found = re.search(place, xml)
    assert found is not None  # the layer was read from these bytes
    own = ATTRIBUTE.encode()
    made = found[0] + own if found[2] else found[1] + b"<rt_info>" + own + b"</rt_info>"
    return xml[: found.start()] + made + xml[found.end() :]
