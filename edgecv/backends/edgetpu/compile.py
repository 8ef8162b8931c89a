"""Coral Edge TPU: an integer .tflite, then the user's own `edgetpu_compiler`.

Floats may stand behind its last integers alone (`tail.py`).

That compiler is closed and may not be redistributed; it is looked for on PATH, or where
EDGETPU_COMPILER says. Without it the result is the file that it would have taken, which runs on a
CPU as it is, and says so.

Sources: https://coral.ai/docs/edgetpu/models-intro/ (operators, requirements),
https://coral.ai/docs/edgetpu/compiler/ (options, output).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.backends import Compiled
from edgecv.backends.edgetpu import tail
from edgecv.backends.tflite.compile import FILE, load, versions
from edgecv.backends.tflite.run import COMPUTE, Session
from edgecv.errors import EngineError, UnsupportedError
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer, layout
from edgecv.target import Target

COMPILED = "model_edgetpu.tflite"
TIMEOUT_S = 300
GRACE_S = 5  # beyond the compiler's own limit, before it is killed

# The operator versions of the compiler's own time (TensorFlow 2.5): it rejects a whole file for
# one that it does not know. Newer versions only add options that these graphs leave at default.
VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "QUANTIZE": 1,
    "RESHAPE": 1,
    "SOFTMAX": 2,
    "SUB": 2,
    "TANH": 2,
}

# What coral.ai's table lists; each has limits of its own that only the compiler knows.
_TABLE = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE
REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH
TRANSPOSE TRANSPOSE_CONV
"""
SUPPORTED = frozenset(_TABLE.split())
_INTEGERS = ("INT8", "UINT8", "INT32", "INT64", "BOOL")


@dataclass(frozen=True)
class Log:
    """What `edgetpu_compiler -s` printed.

    tpu_ops, cpu_ops: operators by where they will run; None when it did not say (it is silent on
        the CPU when there are none)
    cached_bytes, streamed_bytes: parameters held on the chip, and fetched at every inference
    left: (operator, count, reason) for each that stays on the CPU
    """

    version: str | None
    tpu_ops: int | None
    cpu_ops: int
    cached_bytes: int | None
    streamed_bytes: int | None
    left: tuple[tuple[str, int, str], ...]

    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        if self.tpu_ops is None:
            return ("edgetpu_compiler did not say how many operators it mapped.",)
        said = [f"{self.tpu_ops} operators run on the Edge TPU, {self.cpu_ops} on the CPU."]
        said += [f"{n} {op} on the CPU: {why}." for op, n, why in self.left]
        if self.streamed_bytes:
            said.append(f"{self.streamed_bytes} bytes of weights are streamed at every inference.")
        return tuple(said)


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write out/model_edgetpu.tflite, or out/model.tflite where there is no compiler.

    Raises UnsupportedError (not integer but for its end, a TRANSPOSE between layouts in the
    integers), EngineError (the compiler failed, crashed, or did not end in TIMEOUT_S).
    """
    model = flatbuffer.parse(load(graph, target), str(graph.path))
    refuse_floats(model, f"compile for {target.name}")
    behind = tail.of(model, COMPUTE)
    beside = (tail.note(model, behind),) if behind else ()
    moved = graph.facts.get("transposes") or layout.said(model)
    if moved and layout.said(model, besides=behind):
        hint = "pool with adaptive_avg_pool2d(x, 1), gate with 1x1 convolutions, not with view"
        raise UnsupportedError(f"compile for {target.name}", moved, hint)
    lower_versions(model)
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    flatbuffer.write(model, path)
    plain = Session({FILE: path.read_bytes()})
    tool = find_compiler()
    if tool is None:
        why = "not compiled for the Edge TPU: edgetpu_compiler not found; "
        why += "install it (coral.ai/docs/edgetpu/compiler) or set EDGETPU_COMPILER"
        notes = (why, *beside, *_outside_table(model, behind))
        return Compiled((FILE,), plain.inputs, plain.outputs, versions(), False, notes)
    log = run_compiler(tool, path, out, TIMEOUT_S)
    path.unlink()
    made = {**versions(), "edgetpu_compiler": log.version or "unknown"}
    return Compiled((COMPILED,), plain.inputs, plain.outputs, made, True, (*beside, *log.notes()))


def find_compiler() -> Path | None:
    """EDGETPU_COMPILER if set (EngineError when it is not a program), else PATH."""
    named = os.environ.get("EDGETPU_COMPILER")
    found = shutil.which(named or "edgetpu_compiler")
    if named and found is None:
        raise EngineError("EDGETPU_COMPILER", f"{named} is not an executable file")
    return Path(found) if found else None


def refuse_floats(model: Any, where: str) -> None:
    """Every tensor is an integer, but for what stands behind the last ones (`tail.py`). Raises
    UnsupportedError naming the first that is not."""
    allowed = {flatbuffer.enum("TensorType", name) for name in _INTEGERS}
    graph, behind = flatbuffer.graph_of(model), tail.of(model, COMPUTE)
    for op in graph.operators:
        if any(op is one for one in behind):
            continue
        for t in (*op.inputs, *op.outputs):
            if t >= 0 and graph.tensors[t].type not in allowed:
                name = flatbuffer.op_name(model, op)
                hint = "quantize to int8 with io int8 or uint8"
                raise UnsupportedError(where, f"{name} has a float tensor, not full-integer", hint)


def lower_versions(model: Any) -> None:
    """Operator versions and options as the Edge TPU compiler knows them; same arithmetic."""
    graph = flatbuffer.graph_of(model)
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        code.version = VERSIONS.get(flatbuffer.op_name(model, op), code.version)
        # keepNumDims came with version 5; on a matrix it changes nothing.
        if flatbuffer.op_name(model, op) == "FULLY_CONNECTED" and op.builtinOptions is not None:
            flat = all(len(graph.tensors[t].shape) == 2 for t in (op.inputs[0], op.outputs[0]))
            op.builtinOptions.keepNumDims = op.builtinOptions.keepNumDims and not flat


def run_compiler(tool: Path, model: Path, out: Path, timeout_s: float) -> Log:
    """Run the compiler on model; out/<name>_edgetpu.tflite and what it said.

    Its own time limit (-t, whole seconds) is the same one; the whole process group is killed
    when it does not keep it. Raises EngineError.
    """
    seconds = str(max(1, int(timeout_s)))
    command = [str(tool), "-s", "-t", seconds, "-o", str(out), str(model)]
    log_path = out / "edgetpu_compiler.log"
    with log_path.open("w+", errors="replace") as log:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as e:
            raise EngineError("edgetpu_compiler", f"cannot be started: {e}") from e
        try:
            status = child.wait(timeout_s + GRACE_S)
        except subprocess.TimeoutExpired:
            raise EngineError("edgetpu_compiler", f"not done in {timeout_s:g} s") from None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        log.seek(0)
        text = log.read()
    if status != 0 or not (out / f"{model.stem}_edgetpu.tflite").is_file():
        raise EngineError("edgetpu_compiler", _why(text) or f"failed with status {status}")
    return parse_log(text)


def parse_log(text: str) -> Log:
    """The facts in the output of `edgetpu_compiler -s`; None for what it does not say."""

    def number(pattern: str) -> int | None:
        found = re.search(pattern + r":\s*(\d+)", text)
        return int(found[1]) if found else None

    rows = re.findall(r"^([A-Z][A-Z0-9_]+|Custom\S*)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", text, re.M)
    left = tuple((op, int(n), why) for op, n, why in rows if why != "Mapped to Edge TPU")
    on_tpu = number("Number of operations that will run on Edge TPU")
    if on_tpu is None:  # said only when some stay behind
        on_tpu = number("Total number of operations")
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    return Log(
        version=version[1] if version else None,
        tpu_ops=on_tpu,
        cpu_ops=number("Number of operations that will run on CPU") or 0,
        cached_bytes=_bytes(text, "On-chip memory used for caching model parameters"),
        streamed_bytes=_bytes(text, "Off-chip memory used for streaming uncached model parameters"),
        left=left,
    )


def _bytes(text: str, label: str) -> int | None:
    found = re.search(re.escape(label) + r":\s*([\d.]+)\s*(B|KiB|MiB|GiB)", text)
    if not found:
        return None
    return round(float(found[1]) * 1024 ** ("B", "KiB", "MiB", "GiB").index(found[2]))


def _why(text: str) -> str:
    """The line of a failed run that says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = r"(?i)not quantized|invalid|error|fail|abort|unsupported|version"
    found = [s for s in lines if re.search(telling, s) and "Compiler version" not in s]
    return " ".join((found or lines[-1:])[:2])


def _outside_table(model: Any, behind: list[Any]) -> tuple[str, ...]:
    """behind: what the CPU computes in any case"""
    ops = [op for op in flatbuffer.graph_of(model).operators if not any(op is o for o in behind)]
    strange = sorted({flatbuffer.op_name(model, op) for op in ops} - SUPPORTED)
    if not strange:
        return ()
    return (f"{', '.join(strange)} and what follows would stay on the CPU (not in Coral's table).",)
