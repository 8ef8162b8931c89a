"""How a user's OpenVINO IR is made int8, by NNCF alone, and fp16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecv.graph import Graph
from edgecv.graphs.openvino.attention import has_attention
from edgecv.graphs.openvino.files import read, save
from edgecv.methods.quantize.nncf_ir import named, quantize_ir
from edgecv.methods.quantize.options import Options
from edgecv.samples import CalibrationData
from edgecv.target import Target

ONLY = "nncf"  # the quantizer that makes it int8
# Its layers are not taken apart and looked at one by one: what suffers is kept by `keep_float`.
APART = False


def quantize(
    source: Graph,
    samples: CalibrationData,
    target: Target,
    out: Path,
    options: Options,
    measured: Any,
) -> Graph:
    """The int8 graph in out/."""
    del measured  # NNCF calibrates anew
    return quantize_ir(source, samples, target.grid, out, options)


def layers(source: Graph, measured: Any, options: Options) -> dict[str, frozenset[str]]:
    """What `keep_float` calls the layers (`keep_float.py`)."""
    del measured, options
    return named(source)


def attends(graph: Graph) -> bool:
    """Whether the graph holds an attention."""
    return has_attention(read(list(graph.files().values()), graph.path.name))


def halve(graph: Graph, path: Path, compute: bool) -> dict[str, int]:  # noqa: ARG001
    """Write the IR with weights in fp16; its operators' counts."""
    save(read(list(graph.files().values()), graph.path.name), path, half=True)
    return dict(graph.facts["ops"])
