"""A network opened for looking at its layers, host side."""

from __future__ import annotations

from collections.abc import Mapping

from edgecv.diagnosis.parity.layers import Form
from edgecv.diagnosis.parity.openvino_network import OpenVinoForm


def opened(files: Mapping[str, bytes], title: str) -> Form:
    return OpenVinoForm(files, title)
