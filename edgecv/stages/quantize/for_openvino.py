"""How a user's OpenVINO IR is made fp16."""

from __future__ import annotations

from pathlib import Path

from edgecv.graph import Graph


def halve(graph: Graph, path: Path, compute: bool) -> dict[str, int]:  # noqa: ARG001
    """Write the IR with weights in fp16; its operators' counts."""
    import openvino as ov

    from edgecv.backends.openvino.compile import cleaned

    model = ov.Core().read_model(*graph.files().values())
    ov.save_model(model, str(path), compress_to_fp16=True)
    path.write_bytes(cleaned(path.read_bytes()))
    return dict(graph.facts["ops"])
