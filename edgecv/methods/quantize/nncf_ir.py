"""OpenVINO IR float → int8 (FakeQuantize), by OpenVINO's own quantizer, NNCF (`nncf.py`).

A user's IR stays IR: no other quantizer here reads it. What OpenVINO's fused int8 kernels do wrong
is kept apart, as where an .onnx file is converted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from edgecv.backends.openvino.fusion_faults import keep_apart
from edgecv.graph import Graph
from edgecv.graphs.openvino import files, nodes
from edgecv.graphs.openvino.attention import has_attention
from edgecv.graphs.openvino.layers import layer_name
from edgecv.methods.quantize import nncf
from edgecv.methods.quantize.keep_float import resolve
from edgecv.methods.quantize.options import Options
from edgecv.samples import CalibrationData
from edgecv.target import Grid

_CHILD = "edgecv.methods.quantize._nncf_ir_child"


def quantize_ir(
    graph: Graph, samples: CalibrationData, grid: Grid, out: Path, options: Options
) -> Graph:
    """Write out/model.xml and out/model.bin; the same bytes every time.

    graph:   a float IR
    samples: float32 in its own layout, (N, C, H, W) or (N, H, W, C), or feeds
    Raises as `quantize_nncf`; ModelError also where the graph is no float IR.
    """
    nncf.check_asked(graph, samples, options, "openvino")
    model = files.read(list(graph.files().values()), graph.path.name)
    ignored = sorted(resolve(named(graph), options.keep_float))
    job = {"ignored": ignored, "grid": grid, "attention": has_attention(model)}
    with tempfile.TemporaryDirectory(prefix="edgecv-nncf-") as room:
        source = graph.copied(Path(room), "float").path
        target, names = Path(room) / "int8.xml", [spec.name for spec in graph.inputs]
        version = nncf.quantized(_CHILD, source, target, samples, names, options, job)
        content = [target.read_bytes(), target.with_suffix(".bin").read_bytes()]
    made = files.read(content, nncf.WHERE)
    ops = Counter(nodes.kind(n) for n in made.get_ordered_ops() if nodes.kind(n) != "Result")
    if not ops["FakeQuantize"]:
        raise nncf.nothing()
    keep_apart(made)
    out.mkdir(parents=True, exist_ok=True)
    path = out / files.FILES[0]
    files.save(made, path)
    facts = nncf.told(graph, samples, grid, options, ops, version)
    result = Graph(path, "openvino", "int8", graph.inputs, graph.outputs, facts)
    result.save_facts()
    return result


def named(graph: Graph) -> dict[str, frozenset[str]]:
    """What `keep_float` calls the nodes: as the file does, or by their weights."""
    model = files.read(list(graph.files().values()), graph.path.name)
    work = [node for node in model.get_ordered_ops() if nodes.kind(node) not in nodes.HELD]
    return {
        nodes.name(node): frozenset({nodes.name(node), layer_name(node)} - {""}) for node in work
    }
