"""ONNX → TensorRT engine, host side, for the target's compute capability.

TensorRT for RTX builds ahead of time without a GPU, for the capabilities it offers. Full
TensorRT builds for the GPU it runs on, so it serves a Jetson only on that Jetson. Where neither
can, the network itself is delivered and the note says how to build it on the device.

Networks are strongly typed: precision is what the ONNX file says (Q/DQ for int8), on RTX and on
TensorRT 10 and 11 alike. Vendor code can end its process: each build has its own.
"""

from __future__ import annotations

import re
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgecv.backends import Compiled
from edgecv.backends.tensorrt.run import ENGINE, EXTRA, HOW, MODULES, Cuda
from edgecv.child import call, serve
from edgecv.errors import EdgecvError, EngineError, TargetError, UnsupportedError, missing
from edgecv.graph import Graph
from edgecv.target import Target

FILES = ("model.engine", "model.onnx")


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write out/model.engine and, beside it, the out/model.onnx it was built from.

    Where no installed TensorRT builds for target.compute_capability: model.onnx alone, with
    compiled=False and a note.
    Raises UnsupportedError (not an ONNX graph), TargetError (no capability in the profile),
    MissingExtraError, EngineError (the build failed; its last error line).
    """
    if graph.format != "onnx":
        raise UnsupportedError(target.name, f"TensorRT reads .onnx, not .{graph.format}")
    capability = target.compute_capability or ""
    if not re.fullmatch(r"\d+\.\d", capability):
        raise TargetError(
            f"target {target.name}", f"compute_capability is {capability!r}", "such as '8.9'"
        )
    modules = [m for m in MODULES if find_spec(m)]
    if not modules:
        raise missing("tensorrt_rtx", EXTRA, target.name)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILES[1]).write_bytes(graph.path.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / FILES[0]
        for module in modules:
            job = {
                "module": module,
                "onnx": str(graph.path.resolve()),
                "capability": capability,
                "engine": str(engine),
            }
            versions = call(__name__, job, f"{target.name}: {module}")
            if engine.is_file():
                (out / FILES[0]).write_bytes(engine.read_bytes())
                note = f"engine for compute capability {capability}, not run on this machine"
                return Compiled(FILES, graph.inputs, graph.outputs, versions, notes=(note,))
    note = (
        f"not compiled: {' and '.join(modules)} here cannot build for compute capability "
        f"{capability}; on the device: {HOW.format(onnx=FILES[1])}"
    )
    return Compiled(FILES[1:], graph.inputs, graph.outputs, compiled=False, notes=(note,))


def work(job: dict[str, Any]) -> dict[str, Any]:
    """In the child process: build one engine file; the versions that made it.

    No file and no versions where that module builds none for the capability.
    """
    trt = import_module(job["module"])
    ahead, capability = job["module"] == "tensorrt_rtx", job["capability"]
    # full TensorRT is asked for nothing where there is no GPU: parts of it crash there
    if not (_offers(trt, capability) if ahead else _is_this_gpu(capability)):
        return {}
    errors: list[str] = []
    try:
        logger = _logger(trt, errors)
        builder = trt.Builder(logger)
        config = builder.create_builder_config()
        if ahead:
            config.num_compute_capabilities = 1
            config.set_compute_capability(_offers(trt, capability), 0)
        blob = _build(trt, logger, builder, config, job["onnx"])
    except (RuntimeError, TypeError) as e:
        errors.append(str(e))
        blob = None
    if blob is None:
        said = (
            " ".join(" | ".join(errors[:2]).split())[:300] or "it built nothing, and says nothing"
        )
        raise EngineError(f"{ENGINE}: {job['module']}", said, "see the layer named")
    Path(job["engine"]).write_bytes(bytes(blob))
    return {job["module"]: str(trt.__version__)}


def _build(trt: Any, logger: Any, builder: Any, config: Any, onnx: str) -> Any:
    """The serialized engine, or None (the builder does not raise: its log says why)."""
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(onnx):
        problems = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise RuntimeError("; ".join(problems) or "cannot read the ONNX file")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # Session.executed() reads it
    return builder.build_serialized_network(network, config)


def _offers(trt: Any, capability: str) -> Any:
    """TensorRT for RTX's own name of the capability; None where it builds for no such GPU."""
    return getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""), None)


def _is_this_gpu(capability: str) -> bool:
    """Whether the GPU here, which full TensorRT builds for, is of that capability."""
    try:
        return Cuda().capability() == capability
    except EdgecvError:
        return False


def _logger(trt: Any, errors: list[str]) -> Any:
    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                errors.append(message)

    return Log()


if __name__ == "__main__":
    serve(work)
