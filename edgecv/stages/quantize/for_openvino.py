"""How a user's OpenVINO IR is made fp16."""

from __future__ import annotations

from pathlib import Path

from edgecv.graph import Graph
from edgecv.graphs.openvino.files import read, save


def halve(graph: Graph, path: Path, compute: bool) -> dict[str, int]:  # noqa: ARG001
    """Write the IR with weights in fp16; its operators' counts."""
    save(read(list(graph.files().values()), graph.path.name), path, half=True)
    return dict(graph.facts["ops"])
