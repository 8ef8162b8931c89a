"""ONNX → OpenVINO IR (model.xml, model.bin), host side. Weights keep their precision.

Convolutions of ±1 become OpenVINO's own BinaryConvolution where that is exact
(`edgecv.backends.openvino.one_bit`); operators whose fused kernels err in int8 are kept apart
(`edgecv.backends.openvino.fusion_faults`); narrow int8 layers say which kernel is quick for them
(`edgecv.backends.openvino.kernels`).
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgecv.backends import Compiled
from edgecv.backends.openvino import kernels
from edgecv.backends.openvino.plain import CAUTION
from edgecv.backends.openvino.run import ENGINE, EXTRA, Session, probe
from edgecv.errors import EdgecvError, EngineError, UnsupportedError, missing, one_line
from edgecv.graph import Graph
from edgecv.graphs.openvino.files import FILES, cleaned, wishing_bf16
from edgecv.target import Target


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write out/model.xml and out/model.bin, after loading them once.

    A user's IR stays as it came in (`edgecv.methods.export.openvino_file`).
    Raises UnsupportedError (neither ONNX nor IR), MissingExtraError, EngineError.
    """
    if graph.format not in ("onnx", "openvino"):
        raise UnsupportedError(target.name, f"OpenVINO reads .onnx, not .{graph.format}")
    found = probe()
    if not found.available:
        raise missing(ENGINE, EXTRA, target.name)
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / FILES[0]
        own = graph.format == "openvino"
        if own:
            graph.copied(xml.parent, xml.stem)
        counted = 0 if own else _convert(graph, xml)
        data = {name: (xml.parent / name).read_bytes() for name in FILES}
    data[FILES[0]] = cleaned(data[FILES[0]])
    if graph.precision == "int8" and not own:
        data[FILES[0]] = kernels.chosen(data[FILES[0]])
    notes: tuple[str, ...] = (CAUTION,) if own else ()
    if graph.precision == "bf16":
        data[FILES[0]] = wishing_bf16(data[FILES[0]])
    session = Session(data, target.threads)
    if graph.precision == "bf16" and "bf16" not in session.executed():
        notes = (
            *notes,
            "asked for bf16, which this processor has not: computed in fp32 here",
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, content in data.items():
        (out / name).write_bytes(content)
    return Compiled(
        files=FILES,
        inputs=session.inputs,
        outputs=session.outputs,
        versions={ENGINE: str(found.version)},
        notes=notes,
        counted=counted,
    )


def _convert(graph: Graph, xml: Path) -> int:
    """Write the .xml and its .bin; how many layers count bits."""
    import openvino as ov

    from edgecv.backends.openvino import activations, fusion_faults, strides
    from edgecv.backends.openvino.one_bit import lower, parted

    try:
        path, counted = graph.path, 0
        if one_bit := "Where" in graph.facts.get("ops", {}):
            import onnx

            path = xml.with_suffix(".onnx")
            onnx.save(parted(onnx.load(str(graph.path))), str(path))
        model = _read(path)
        if one_bit:
            counted = lower(model)
        activations.joined(model)
        strides.gathered(model)
        if graph.precision == "int8":
            fusion_faults.keep_apart(model)
        for port, spec in (
            *zip(model.inputs, graph.inputs, strict=True),
            *zip(model.outputs, graph.outputs, strict=True),
        ):
            port.get_tensor().set_names({spec.name})
        # The default halves float weights to fp16: a different network, unless it was asked for.
        ov.save_model(model, str(xml), compress_to_fp16=graph.precision == "fp16")
    except EdgecvError:
        raise
    except Exception as e:
        raise EngineError(ENGINE, one_line(e), "see the layer named") from None
    return counted


def _read(path: Path) -> Any:
    """The ov.Model of an .onnx file. Raises UnsupportedError naming a node that it cannot read."""
    import openvino as ov

    _report_nothing()
    try:
        with _log_as_it_was():
            return ov.convert_model(str(path))
    except Exception as e:
        # Nodes are reported behind each other; one that only reads another's result says so.
        told = re.findall(r"<Node\((\w+)\): ([^>]*)>'(.*?)(?=\n\n|\Z)", str(e), re.S)
        first = [t for t in told if "has to be known" not in t[2]] or told
        if not first:
            raise
        op, made, _ = first[0]
        import onnx

        nodes = onnx.load(str(path), load_external_data=False).graph.node
        name = next((n.name for n in nodes if made in n.output and n.name), made)
        what = f"OpenVINO cannot read node {name!r} ({op}) as it stands"
        raise UnsupportedError(ENGINE, what, "another target runs it") from None


@contextmanager
def _log_as_it_was() -> Iterator[None]:
    """The converter that fails leaves the root logger at its own level, with its filters."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _report_nothing() -> None:
    """The converter tells its maker of every use, from a process that it forks and waits for, and
    that has hung. Its own stand-in for a missing reporter takes that one's place."""
    with suppress(ImportError):
        from openvino.tools.ovc import convert_impl, telemetry_stub, telemetry_utils, utils

        for module in (convert_impl, telemetry_utils, utils):
            module.tm = telemetry_stub
