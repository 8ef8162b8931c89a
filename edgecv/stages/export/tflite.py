"""PyTorch -> float32 .tflite, channels last: y(x NHWC) = module(x NCHW).

The module is traced here (`torch.export`: a graph of ATen operators and weights, none of the
user's code) and converted in a child process by LiteRT's own converter (`litert_torch`). What
would leave a layout TRANSPOSE is rewritten where that is exact (`_nhwc.py`); any that is left
costs a copy of the image at run time and falls off the Edge TPU, so it is refused by name.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from edgecv import child, lifeline
from edgecv.backends.tflite import flatbuffer
from edgecv.backends.tflite.run import Session
from edgecv.errors import MissingExtraError, ModelError, UnsupportedError
from edgecv.graph import Graph
from edgecv.stages.export._tflite_names import name_weights
from edgecv.subnormals import flush_tflite

TIMEOUT_S = 1800
_CHILD = "edgecv.stages.export._litert_child"
# NHWC -> NCHW and back. Other permutations (attention heads, channel shuffle) are the network's.
_LAYOUT = ((0, 3, 1, 2), (0, 2, 3, 1))


def export_tflite(module: torch.nn.Module, example: torch.Tensor, out: Path) -> Graph:
    """Write out/model.tflite and out/graph.json: float32, input "input" NHWC, output "logits".

    example: float32 (1, C, H, W); its values do not matter. The module is traced in eval mode
    and left as it was. Same module, same bytes. facts: {"ops": counts, "versions": ...}.

    Raises ModelError (the module fails on the example, or returns anything but one tensor) and
    UnsupportedError (an operator that LiteRT cannot run; a layout TRANSPOSE that is left).
    """
    if example.ndim != 4 or example.shape[0] != 1 or example.dtype != torch.float32:
        what = f"is {example.dtype} {tuple(example.shape)}"
        raise ModelError("export: the example input", what, "float32 (1, C, H, W)")
    with _evaluating(module), torch.no_grad():
        _check_output(module, example)
        program = _trace(module, example)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.tflite"
    with tempfile.TemporaryDirectory(prefix="edgecv-litert-") as room:
        converted, report = _convert(program, Path(room))
        model = flatbuffer.read(converted)
    _refuse_transposes(model, report["suspects"])
    flatbuffer.tidy(model, ("input",), ("logits",))
    name_weights(model, module.state_dict())
    flush_tflite(model)
    flatbuffer.write(model, path)
    session = Session({path.name: path.read_bytes()})
    facts = {"ops": flatbuffer.op_counts(model), "versions": report["versions"]}
    graph = Graph(path, "tflite", "fp32", session.inputs, session.outputs, facts)
    graph.save_facts()
    return graph


def _check_output(module: torch.nn.Module, example: torch.Tensor) -> None:
    try:
        result = module(example)
    except Exception as e:
        shape = tuple(example.shape)
        raise ModelError("export: model", f"fails on a {shape} input: {_one_line(e)}") from e
    if not isinstance(result, torch.Tensor):
        hint = "wrap it in a module that returns the logits alone"
        raise ModelError("export: model", f"returns a {type(result).__name__}, not a tensor", hint)


def _trace(module: torch.nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    try:
        with redirect_stderr(StringIO()), _no_logs():
            return torch.export.export(module, (example,))
    except Exception as e:
        hint = "control flow that depends on values cannot be compiled ahead of time"
        raise UnsupportedError("export: torch.export", _one_line(e), hint) from e


@contextmanager
def _no_logs() -> Iterator[None]:
    """torch logs and prints whole graphs where it fails; the exception says what matters."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _convert(program: torch.export.ExportedProgram, room: Path) -> tuple[Path, dict[str, Any]]:
    """Run the child on a program; the .tflite it made, and its report."""
    source, target, report = room / "program.pt2", room / "model.tflite", room / "report.json"
    torch.export.save(program, source)
    try:
        command = child.command(_CHILD, source, target, report)
        with lifeline.started(command, room, child.variables(_CHILD)) as made:
            said, _ = made.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UnsupportedError("export: LiteRT", f"not done in {TIMEOUT_S} s") from None
    if not report.is_file():
        last = (said.strip().splitlines() or ["no message"])[-1]
        raise UnsupportedError("export: LiteRT", f"crashed ({made.returncode}): {last}")
    answer = json.loads(report.read_text())
    if "error" in answer:
        raise _refusal(answer["error"])
    return target, answer


def _refusal(message: str) -> MissingExtraError | UnsupportedError:
    if message.startswith("ModuleNotFoundError"):
        return MissingExtraError("export: LiteRT", message, "pip install 'edgecv[compress]'")
    # "Lowering not found: aten.x.default While executing ...", "failed to legalize 'tfl.y'"
    message = re.split(r" While executing | Original traceback", message)[0]
    op = re.search(r"\b(?:aten|stablehlo|chlo|tfl)(?:\.|::)\w+", message)
    named = f"cannot convert {op[0]}: " if op else ""
    return UnsupportedError("export: LiteRT", named + message[:400])


def _refuse_transposes(model: Any, suspects: list[str]) -> None:
    graph = flatbuffer.graph_of(model)
    for op in graph.operators:
        if flatbuffer.op_name(model, op) != "TRANSPOSE":
            continue
        order = flatbuffer.constant(model, graph.tensors[op.inputs[1]])
        if order is None or tuple(order.tolist()) in _LAYOUT:
            readers = [o for o in graph.operators if op.outputs[0] in list(o.inputs)]
            reader = flatbuffer.op_name(model, readers[0]) if readers else "the output"
            cause = f"by {suspects[0]}" if suspects else f"before {reader}"
            hint = "pool with adaptive_avg_pool2d(x, 1), gate with 1x1 convolutions, not with view"
            raise UnsupportedError("export: TFLite", f"a TRANSPOSE is left {cause}", hint)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode, and every submodule's own mode again afterwards."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:400]
