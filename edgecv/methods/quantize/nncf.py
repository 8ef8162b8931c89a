"""ONNX float → ONNX int8 (Q/DQ nodes), by OpenVINO's own quantizer, NNCF.

q = clip(round(x / s) + z); its graph rules know which layers OpenVINO fuses, and transformers;
with SmoothQuant, x W = (x / d) (d W) where a few columns of x are far larger than the others
(Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", ICML 2023); bias correction as Nagel et al. (ICCV 2019), which its slow form repeats layer
behind layer with what is before each in integers.

NNCF quantizes the .onnx file and not OpenVINO's own form of it: its products of both were equal in
SQNR and time on every network measured (docs/decisions/012-nncf.md), and an .onnx file goes through
the same checks, comparisons and commands as one of ours. A user's IR stays one (`nncf_ir.py`).

It runs in a process of its own (`_nncf_child.py`): it replaces the logger class of the process that
imports it, and tells its maker of every use.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import child
from edgecv.backends.onnxruntime.tensors import with_shapes
from edgecv.errors import EngineError, ModelError, StageError
from edgecv.graph import Graph
from edgecv.graphs.onnx.attention import has_attention
from edgecv.graphs.onnx.names import node_names
from edgecv.methods.export.onnx import strip
from edgecv.methods.quantize.calibration import check_samples, doubts
from edgecv.methods.quantize.keep_float import resolve
from edgecv.methods.quantize.learned import is_learned
from edgecv.methods.quantize.onnx_quantized import saved
from edgecv.methods.quantize.options import Options, check, without
from edgecv.samples import CalibrationData
from edgecv.target import Grid

_CHILD = "edgecv.methods.quantize._nncf_child"
WHERE = "quantize: nncf"


def quantize_nncf(
    graph: Graph, samples: CalibrationData, grid: Grid, out: Path, options: Options
) -> Graph:
    """Write out/model.onnx with Q/DQ nodes on the target's grid; the same bytes every time.

    graph:   a float ONNX graph
    samples: (N, C, H, W) float32, normalised as the network expects, or feeds
    Raises MissingExtraError (NNCF is not installed), DataError (samples: none, wrong shape, NaN,
    all the same), ModelError (not a float ONNX graph, one-bit layers, nothing to quantize),
    StageError (an option that NNCF has not), EngineError (NNCF failed).
    """
    import onnx

    check_asked(graph, samples, options, "onnx")
    if is_learned(graph) or graph.facts.get("one_bit"):
        held = "one-bit layers" if graph.facts.get("one_bit") else "scales that training learned"
        raise ModelError(WHERE, f"knows nothing of {held}", "take engine edgecv")
    model = prepared(graph)
    ignored = sorted(resolve(node_names(model), options.keep_float))
    with tempfile.TemporaryDirectory(prefix="edgecv-nncf-") as room:
        source, target = Path(room) / "float.onnx", Path(room) / "int8.onnx"
        source.write_bytes(model.SerializeToString(deterministic=True))
        names = [i.name for i in model.graph.input]
        job = {"ignored": ignored, "grid": grid, "attention": has_attention(model)}
        version = quantized(_CHILD, source, target, samples, names, options, job)
        try:
            made = onnx.load_model(str(target))
        except Exception:
            raise EngineError(WHERE, "wrote no whole ONNX file") from None
    strip(made)
    onnx.checker.check_model(made, full_check=True)
    ops = Counter(n.op_type for n in made.graph.node)
    return saved(graph, made, out, told(graph, samples, grid, options, ops, version))


def check_asked(graph: Graph, samples: CalibrationData, options: Options, form: str) -> None:
    """Raises ModelError (not a float graph of that format), StageError, DataError: what NNCF cannot
    be asked for."""
    if graph.format != form or graph.precision != "fp32":
        raise ModelError(graph.path.name, f"is {graph.precision} {graph.format}, not fp32 {form}")
    check(options)
    if lacking := without(options):
        raise StageError("quantize", lacking)
    check_samples(samples, graph.inputs)


def nothing() -> ModelError:
    """Of a network in which NNCF quantized no layer."""
    return ModelError("quantize", "the network has no layer that has int8", "ship it in fp32")


def told(
    graph: Graph, samples: CalibrationData, grid: Grid, options: Options, ops: Mapping[str, int],
    version: str,
) -> dict[str, Any]:  # fmt: skip
    """The facts of what was made of the graph. ops: its operators' counts"""
    return {
        **graph.facts,
        "ops": dict(sorted(ops.items())),
        "quantizer": "nncf",
        "versions": {"nncf": version},
        "options": options.to_json(),
        "samples": len(samples),
        "warnings": doubts(samples),
        "grid": grid.model_dump(),
    }


def prepared(graph: Graph) -> Any:
    """The float onnx.ModelProto as NNCF gets it: shapes inferred, every node named."""
    import onnx

    model = with_shapes(onnx.load_model(str(graph.path)))
    node_names(model)
    return model


def quantized(
    process: str, source: Path, target: Path, samples: CalibrationData, names: Sequence[str],
    options: Options, job: Mapping[str, Any],
) -> str:  # fmt: skip
    """Let NNCF's process write the int8 form of a float file; NNCF's version.

    process: the module that it runs
    source, target: .onnx files, or .xml with their weights beside them. names: of the inputs
    job: layers to leave out ("ignored"), the "grid", whether there is an "attention"
    """
    room = source.parent
    for place, values in enumerate(_stacked(samples, names)):
        np.save(room / f"{place}.npy", values, allow_pickle=False)
    asked = {
        **job, "model": str(source), "made": str(target), "out": str(room), "inputs": list(names),
        "grid": job["grid"].model_dump(), "options": json.loads(json.dumps(asdict(options))),
    }  # fmt: skip
    return str(child.call(process, asked, WHERE)["version"])


def _stacked(samples: CalibrationData, names: Sequence[str]) -> Iterator[np.ndarray]:
    """What each input is fed, a row a call, its batch axis kept."""
    if isinstance(samples, np.ndarray):
        yield samples[:, None]
        return
    for name in names:
        yield np.stack([feed[name] for feed in samples])
