"""PyTorch → ONNX, and the door for a user's own .onnx file.

Both ways end in one clean file: batch 1, static shapes, weights inside, batch normalisation
folded into the convolutions (w' = w·γ/σ, b' = (b − μ)·γ/σ + β), nothing in it that names the
machine it was made on. The same network gives the same bytes in any process.

TorchScript's exporter comes first because it takes a sixteenth of the time (0.15 s against
2.5 s for a residual network of 9 convolutions) and keeps global pooling one node; what it cannot
trace goes to the torch.export route. What both leave is folded by ONNX Runtime's own basic
graph optimisations, which emit standard ONNX operators only.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.errors import EdgecvError, MissingExtraError, ModelError, missing, one_line
from edgecv.graph import Graph
from edgecv.graphs import groups
from edgecv.graphs.onnx import groups as onnx_groups
from edgecv.graphs.onnx import metadata
from edgecv.graphs.onnx.bounded import bounded
from edgecv.graphs.onnx.canonical import canonical
from edgecv.graphs.onnx.canonical.stored import is_quantized
from edgecv.graphs.onnx.control import settled
from edgecv.graphs.onnx.growing import refuse_growing
from edgecv.graphs.onnx.inlined import rename_inlined
from edgecv.graphs.onnx.pins import Pins, pin
from edgecv.graphs.onnx.subnormals import flush_onnx
from edgecv.graphs.onnx.valid import check, check_domains, strange
from edgecv.methods.export._entry import Entry, depends, enter
from edgecv.methods.export._onnx_file import inline_external, read_file, tensors
from edgecv.methods.export._pads import absorb_paddings
from edgecv.methods.export._proof import learn_shapes, plain_runner, prove, refused
from edgecv.methods.export._runnable import explicit_same, make_runnable
from edgecv.runtime.spec import TensorSpec, ungrouped

if TYPE_CHECKING:
    import torch

    from edgecv.examples import Example

OPSET = 18  # the oldest that torch 2.13 writes by both routes
FILE = "model.onnx"


def export_onnx(
    module: torch.nn.Module, example: Example, out: Path, opset: int = OPSET, where: str = ""
) -> Graph:
    """Write out/model.onnx: input "input" (1, C, H, W) float32, output "logits" (1, classes), or
    what the network returns under the names that `edgecv.outputs` gives.

    module:  traced in eval mode on the CPU; its own mode is restored
    example: one image (1, C, H, W), float32; of several inputs a tensor each, in forward's order or
             by its arguments' names, which are then the graph's. Its values do not matter
    where:   what errors call it; default: its class
    facts["notes"] says what of its return is left out.
    Raises ModelError: a return that holds no tensors, or other things than tensors, NaN or infinite
    weights, a layer that cannot be exported, a forward that decides by the values of the image,
    an opset that the exporter did not honour.
    """
    from edgecv.examples import example_of
    from edgecv.methods.export._outputs import answered, evaluating
    from edgecv.outputs import flat

    where = where or type(module).__name__
    given = example_of(module, example, where)
    _check_layers(module, where)
    outputs, alone = answered(module, given, where)
    with evaluating(module), nullcontext() if alone else flat(module):
        names = tuple(given), tuple(outputs.tensors)
        model = explicit_same(_trace(module, tuple(given.values()), names, opset, where))
    saved = next((o.version for o in model.opset_import if o.domain == ""), None)
    if saved != opset:
        raise ModelError(
            "export", f"asked for opset {opset}, the exporter wrote {saved}", f"use opset {OPSET}"
        )
    graph = write_clean(model, out, where)
    if outputs.notes:
        graph.facts["notes"] = list(outputs.notes)
        graph.save_facts()
    return graph


def load_onnx(path: Path, out: Path, pins: Pins | None = None) -> Graph:
    """Check a user's .onnx file and write a clean copy in canonical form, out/model.onnx.

    pins: what the user says of it: where it ends, and what it leaves open
    facts["input"]: what its metadata says of its pictures and labels (`graphs.onnx.metadata`)
    A dynamic batch becomes 1, external weights (from the file's own folder) are inlined, an image
    that is channels-last or bytes goes in as float32 (N, C, H, W); facts["takes"] says "bytes"
    where pixels go in as they are, facts["own"] what the file itself takes and answers. Opsets 7 to
    17 become 18.
    Raises ModelError: no such file, no ONNX file, no sound graph (`graphs.onnx.valid`), pins that
    do not fit it, a dimension that is open, NaN or infinite weights, weights outside the folder, a
    rewrite that would change what it answers; UnsupportedError: a node that cannot be read.
    """
    onnx = _onnx()
    where = path.name
    model = read_file(path)
    check(model, where)
    said, pins = metadata.said(model), pins or Pins()
    layout = pin(model, replace(pins, size=pins.size or said.size), where)
    check_domains(model, where)
    inline_external(model, path.parent, where)
    make_runnable(model)
    if strange(model):
        plain_runner(model, where)  # says which of them ONNX Runtime has not
    original = onnx.ModelProto()
    original.CopyFrom(model)
    entry = enter(model, where, layout)
    return metadata.noted(write_clean(model, out, where, original, entry), said, where)


def write_clean(
    model: Any, out: Path, where: str, original: Any = None, entry: Entry | None = None
) -> Graph:
    """Write an onnx.ModelProto out in canonical form: out/model.onnx and graph.json.

    original: what it was before anybody touched it, with which the answers are compared
    entry:    how an image of the model looks to the original
    Raises ModelError as load_onnx.
    """
    onnx = _onnx()
    _check_finite(model, where, masked=True)
    entered, original = model, model if original is None else original
    if not is_quantized(model):
        entered = settled(model, where, _fold)
    model = canonical(entered, where, learn_shapes)
    _check_finite(model, where)
    if not is_quantized(model):  # folding would eat Q/DQ pairs
        model = canonical(_fold(model, where), where, learn_shapes)
        absorb_paddings(model)
        flush_onnx(model)  # a folded batch norm may leave some
    refuse_growing(model, where)
    prove(original, model, where, lambda name: canonical(entered, where, learn_shapes, name),
          entry.taken if entry else None)  # fmt: skip
    strip(model)
    inputs, outputs = _run_once(model, where)
    outputs = groups.told(outputs, onnx_groups.found(model))
    bounds = bounded(model.graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:
        raise ModelError(where, f"not valid ONNX: {one_line(e)}", "export it again") from None
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    path.write_bytes(model.SerializeToString(deterministic=True))
    ops = Counter(n.op_type for n in model.graph.node)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    graph = Graph(
        path=path,
        format="onnx",
        precision="int8" if is_quantized(model) else "fp32",
        inputs=inputs,
        outputs=outputs,
        facts={
            "opset": opset,
            "ops": dict(sorted(ops.items())),
            **({"bounds": bounds} if bounds else {}),
            **(_own(entry, outputs) if entry else {}),
        },
    )
    graph.save_facts()
    return graph


def _own(entry: Entry, outputs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    """What the user's file takes and answers, in its own layout."""
    facts = entry.facts()
    facts["own"]["outputs"] = [ungrouped(t).to_json() for t in outputs]
    return facts


def strip(model: Any) -> None:
    """Remove in place what is not the network: docs, traces, paths, unused opsets, dead shapes."""
    onnx = _onnx()
    model.doc_string, model.producer_name, model.producer_version = "", "edgecv", ""
    model.domain, model.model_version = "", 0
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for item in _annotated(model.graph):
        item.doc_string = ""
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
    used = {n.domain for n in model.graph.node} | {"", "ai.onnx"}
    used |= {n.domain for f in model.functions for n in f.node}
    kept = sorted((o.domain, o.version) for o in model.opset_import if o.domain in used)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in kept)
    # The oldest file format that holds these opsets: older runtimes on devices read it too.
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)


def _annotated(graph: Any) -> Iterator[Any]:
    yield graph
    yield from (*graph.input, *graph.output, *graph.initializer)
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            attribute.doc_string = ""
            for sub in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _annotated(sub)


def _check_layers(module: torch.nn.Module, where: str) -> None:
    import torch

    from edgecv.models.model import check_finite

    check_finite(module, where)
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.LSTM) and part.proj_size:
            what = "projects its state (proj_size), which has no form in ONNX"
            raise ModelError(f"{where}: layer {name!r} (LSTM)", what, "put a Linear behind it")


def _trace(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    opset: int,
    where: str,
) -> Any:
    """The network as an onnx.ModelProto, by the first exporter that can. names: inputs, outputs."""
    import torch

    onnx = _onnx()
    reasons = []
    for dynamo in (False, True):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            path = Path(folder) / FILE
            try:
                torch.onnx.export(
                    module,
                    example,
                    str(path),
                    input_names=list(names[0]),
                    output_names=list(names[1]),
                    opset_version=opset,
                    dynamo=dynamo,
                    external_data=False,
                    verbose=False,
                )
                return onnx.load_model(str(path))
            except Exception as e:
                reasons.append(e)
    what = f"cannot be exported to ONNX: {_why_not(reasons[0])}"
    raise ModelError(where, what, "write that line with other operators") from reasons[0]


def _why_not(error: Exception) -> str:
    """The operator that an exporter stopped at and the user's line that calls it."""
    told = str(error)
    operator = re.search(r"\b((?:aten|prim|torchvision|quantized)::\w+)", told)
    places = re.findall(r"([^\s(]+\.py)\((\d+)\)", told)
    lines = [f"{Path(file).name}:{line}" for file, line in places
             if "site-packages" not in file and "/torch/" not in file]  # fmt: skip
    name = operator[1].partition("::")[2] if operator else ""
    what = f"operator {name!r} has no form there" if name else "the exporter stopped"
    return what + (f", at {lines[0]}" if lines else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporters' own log lines (they name packages nobody asked for)."""
    import torch

    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    internal: Any = torch._C
    prints = internal._jit_onnx_log  # whole graphs, of what it cannot export
    internal._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        log.setLevel(level)
        internal._jit_onnx_log = prints


def _check_finite(model: Any, where: str, masked: bool = False) -> None:
    """Raises ModelError naming a constant that holds NaN or infinity. masked: -inf may stand there,
    which the canonical form takes out of masks."""
    from onnx import numpy_helper

    for tensor in tensors(model.graph):
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as e:
            raise ModelError(f"{where}: {tensor.name}", f"unreadable: {one_line(e)}") from None
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        if not (masked and (np.isfinite(values) | np.isneginf(values)).all()):
            what = "holds NaN or infinite values"
            raise ModelError(f"{where}: {tensor.name}", what, "train it again, or mask with -1e4")


def _fold(model: Any, where: str) -> Any:
    """Constants and batch normalisation folded by ONNX Runtime's basic optimisations."""
    onnx, ort = _onnx(), _onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        try:
            ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:
            raise refused(e, model, where) from None
        made = onnx.load_model(str(path))
    rename_inlined(made.graph)
    return made


def _run_once(model: Any, where: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The tensors of the network, proved by one run on zeros; output shapes are written in."""
    from edgecv.backends.onnxruntime.run import Session

    try:
        session = Session({FILE: model.SerializeToString()})
        zeros = {t.name: np.zeros(t.shape, t.dtype) for t in session.inputs}
        shapes = {k: tuple(map(int, v.shape)) for k, v in session.run(zeros).items()}
    except MissingExtraError:
        raise
    except EdgecvError as e:
        raise ModelError(where, f"does not run: {e.what}") from None
    for output in model.graph.output:
        shape = shapes[output.name]
        if not depends(model.graph, output.name):
            what = f"output {output.name!r} is the same whatever comes in"
            raise ModelError(where, what, "leave it out of the graph's outputs")
        if 0 in shape:
            what = f"output {output.name!r} is {shape}: it holds nothing"
            raise ModelError(where, what, "leave it out of the graph's outputs")
        dims = output.type.tensor_type.shape
        dims.ClearField("dim")
        for size in shape:
            dims.dim.add().dim_value = size
    outputs = tuple(TensorSpec(t.name, t.dtype, shapes[t.name], t.layout) for t in session.outputs)
    return session.inputs, outputs


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise missing("onnx", "compress", "export") from None
    return onnx


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise missing("onnxruntime", "compress", "export") from None
    return onnxruntime
