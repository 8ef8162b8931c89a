"""PyTorch -> float32 .tflite, channels last: y(x NHWC) = module(x NCHW).

The module is traced here (`torch.export`: a graph of ATen operators and weights, none of the
user's code) and converted in a child process by LiteRT's own converter (`litert_torch`). What
LiteRT does not convert, or would leave a layout TRANSPOSE, is rewritten where that is exact
(`_litert_forms.py`, `_nhwc.py`). A TRANSPOSE that is left costs a copy of the image at run time:
it is noted, and the Edge TPU's backend refuses it.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from edgecv import child, lifeline
from edgecv.backends.tflite.run import Session
from edgecv.errors import MissingExtraError, UnsupportedError
from edgecv.examples import Example, example_of
from edgecv.graph import Graph
from edgecv.graphs.tflite import flatbuffer, groups, layout
from edgecv.graphs.tflite.subnormals import flush_tflite
from edgecv.installation import cure
from edgecv.methods.export._outputs import answered, evaluating
from edgecv.methods.export._tflite_names import name_weights
from edgecv.outputs import flat

TIMEOUT_S = 1800
_CHILD = "edgecv.methods.export._litert_child"


def export_tflite(
    module: torch.nn.Module, example: Example, out: Path, where: str = "the network"
) -> Graph:
    """Write out/model.tflite and out/graph.json: float32, input "input" NHWC, output "logits".

    example: float32 (1, C, H, W), or a tensor for each input by its name; values do not matter.
    where: what errors call the module. It is traced in eval mode and left as it was. Other outputs
    are called as `edgecv.outputs` says; maps are NHWC. Same module, same bytes. facts: {"ops":
    counts, "versions": ..., "transposes": a sentence or ""}.

    Raises ModelError (the module fails on the example, decides by its values, or returns what
    holds no tensors) and
    UnsupportedError (an operator that LiteRT cannot run, or only as a composite of its own).
    """
    given = example_of(module, example, where)
    found, alone = answered(module, given, where)
    outputs = tuple(found.tensors)
    with evaluating(module), torch.no_grad(), nullcontext() if alone else flat(module):
        program = _trace(module, tuple(given.values()), where)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.tflite"
    with tempfile.TemporaryDirectory(prefix="edgecv-litert-") as room:
        converted, report = _convert(program, Path(room))
        model = flatbuffer.read(converted)
    _refuse_composites(model)
    moved = layout.said(model, next(iter(report["suspects"]), ""))
    _in_order(model)
    _nearest_from_corners(model)
    names = list(given)
    flatbuffer.tidy(model, tuple(names[i] for i in _arguments(model)), outputs)
    name_weights(model, module.state_dict())
    flush_tflite(model)
    flatbuffer.write(model, path)
    session = Session({path.name: path.read_bytes()})
    slower = [f"{moved}: on a CPU it is slower, never wrong"] if moved else []
    facts = {
        "ops": flatbuffer.op_counts(model),
        "versions": report["versions"],
        "transposes": moved,
        "notes": [*found.notes, *slower],
    }
    ends = groups.told(session.outputs, flatbuffer.read(path))
    graph = Graph(path, "tflite", "fp32", session.inputs, ends, facts)
    graph.save_facts()
    return graph


def _trace(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], where: str
) -> torch.export.ExportedProgram:
    try:
        with redirect_stderr(StringIO()), _no_logs():
            return torch.export.export(module, example)
    except Exception as e:
        what = f"its forward cannot be traced by torch.export{_line_of(e)}"
        hint = "compute with torch alone, without other libraries and values of images"
        raise UnsupportedError(where, what, hint) from e


def _arguments(model: Any) -> list[int]:
    """Which argument each input of LiteRT's file is: its signature calls them args_0, args_1."""
    (signature,) = model.signatureDefs
    named = {int(t.tensorIndex): t.name.decode() for t in signature.inputs}
    inputs = flatbuffer.graph_of(model).inputs
    return [int(named[int(t)].rpartition("_")[2]) for t in inputs]


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
        raise _refusal(answer)
    return target, answer


def _refusal(answer: dict[str, str]) -> MissingExtraError | UnsupportedError:
    """What the child says of a network that it could not convert, without its dumps."""
    where = "export: LiteRT"
    if answer["kind"] == "ModuleNotFoundError":
        return MissingExtraError(where, answer["error"], cure("compress", "litert-torch"))
    hint = "say it with other operators, or take a target that reads ONNX"
    if answer["culprit"]:
        return UnsupportedError(where, f"cannot convert {answer['culprit']}", hint)
    # "failed to legalize operation 'tfl.y'": LiteRT's own names of what it could not lower
    op = re.search(r"\b(?:stablehlo|chlo|mhlo|tfl)\.(\w+)", answer["error"])
    named = f"a {op[1]} of this network" if op else "this network"
    return UnsupportedError(where, f"its converter cannot lower {named}", hint)


def _refuse_composites(model: Any) -> None:
    """Operators with a graph of their own, which the interpreters of other makers do not run."""
    names = {flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators}
    if len(model.subgraphs) > 1 or "STABLEHLO_COMPOSITE" in names:
        kind = next((n for n in sorted(names) if n.startswith("STABLEHLO")), "")
        kind = kind or next((n for n in sorted(names) if n in ("WHILE", "IF", "CALL_ONCE")), "")
        what = f"leaves a {kind or 'graph'} with a graph inside, which only LiteRT itself runs"
        hint = "say it with other operators, or take a target that reads ONNX"
        raise UnsupportedError("export: LiteRT", what, hint)


def _nearest_from_corners(model: Any) -> None:
    """The pixel at floor(i * in / out), as PyTorch's `nearest` has it: the converter writes half
    pixel centres, which is another one wherever a map is not made a whole number of times larger
    (its `nearest-exact`, which becomes a gather)."""
    for op in flatbuffer.graph_of(model).operators:
        if flatbuffer.op_name(model, op) == "RESIZE_NEAREST_NEIGHBOR":
            op.builtinOptions.halfPixelCenters = op.builtinOptions.alignCorners = False


def _in_order(model: Any) -> None:
    """The graph's outputs in the order that the module gives them: the converter's signature."""
    (signature,) = model.signatureDefs
    named = {bytes(o.name).decode(): int(o.tensorIndex) for o in signature.outputs}
    order = [named.get(f"output_{i}") for i in range(len(named))]
    if None not in order and len(order) == len(model.subgraphs[0].outputs):
        model.subgraphs[0].outputs = order


def _line_of(error: BaseException) -> str:
    """The user's line at which torch.export stopped, where it says so."""
    found = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    return f", at {Path(found[-1][0]).name}:{found[-1][1]}" if found else ""
