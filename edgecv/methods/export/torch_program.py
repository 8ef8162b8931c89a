"""TorchScript and programs of torch.export to an .onnx file, which goes in by the door of those.

    TorchScript ── TS2EPConverter ──▶ program of torch.export ── module ── export_onnx ──▶ .onnx
    .pt2 ─────────────────────────────▶

What comes of it is compared with the file itself, run by PyTorch, on random inputs.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.behaviour import check_random
from edgecv.errors import EdgecvError, ModelError, UnsupportedError, one_line
from edgecv.fidelity import EXPORT, check
from edgecv.models.torchfiles import kinds, program, script
from edgecv.outputs import outputs_of
from edgecv.runtime.fidelity import kinds as kinds_of

log = logging.getLogger(__name__)
PROOFS = 4  # random inputs that it is compared on
Shape = Sequence[int]
Network = Any  # a module, or what is called as one


def to_onnx(
    path: Path, room: Path, image: Shape, shapes: Mapping[str, Shape] | None = None
) -> Path:
    """Write the network as an .onnx file in `room`, under the file's own name.

    image:  (1, C, H, W) of its one input, where the file does not say it
    shapes: of several inputs, by name
    Raises ModelError and UnsupportedError as `script.load` and `program.load`, and where it fails
    on the inputs, cannot be exported or answers otherwise as .onnx.
    """
    from edgecv.methods.export.onnx import export_onnx

    where = path.name
    if kinds.kind(path) == "program":
        example: Any = _own_example(path, image, shapes or {})
        module = original = _module(program.load(path))
    else:
        original = script.load(path)
        example = _example(original, image, shapes or {}, where)
        module = _module(_program(original, _values(example), where))
    if isinstance(example, Tensor):
        check_random(original, where, (*example.shape[1:],))
    graph = export_onnx(module, example, room / "graph", where=where)
    for note in graph.facts.get("notes", ()):
        log.warning("%s: %s", where, note)
    _compare(original, graph, _values(example), where)
    return graph.path.rename(room / path.name)


def _own_example(path: Path, image: Shape, given: Mapping[str, Shape]) -> Any:
    """Zeros of the shapes that a program says, a batch of one; what it leaves open is given."""
    found = program.shapes(path)
    for name in given:
        if name not in found:
            what = f"has no input {name!r}"
            raise ModelError(path.name, what, f"it has {', '.join(found) or 'none'}")
    whole: dict[str, tuple[int, ...]] = {}
    for name, shape in found.items():
        asked = tuple(given.get(name) or (image if len(found) == 1 else ()))
        fits = len(asked) == len(shape) and all(
            size in (None, ask) for size, ask in zip(shape, asked, strict=True)
        )
        own = tuple(1 if i == 0 and s is None else s or 0 for i, s in enumerate(shape))
        if not fits and (name in given or 0 in own):
            shown = "x".join(str(size) if size else "?" for size in shape)
            what = f"input {name!r} is {shown}, and {_said(asked) or 'nothing'} is given"
            raise ModelError(path.name, what, "give --input-size, or --input NAME:SHAPE")
        whole[name] = asked if fits else own
    example = {name: torch.zeros(*shape) for name, shape in whole.items()}
    return next(iter(example.values())) if len(example) == 1 else example


def _said(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _example(module: Network, image: Shape, given: Mapping[str, Shape], where: str) -> Any:
    if not given:
        return torch.zeros(*image)
    names = [a.name for a in module.forward.schema.arguments[1:]]  # behind self
    if sorted(given) != sorted(names[: len(given)]):
        what = f"takes {', '.join(names)}; shapes are given of {', '.join(given)}"
        raise ModelError(where, what, "name them as its forward does")
    return {name: torch.zeros(*given[name]) for name in names[: len(given)]}


def _values(example: Any) -> tuple[Tensor, ...]:
    return (example,) if isinstance(example, Tensor) else tuple(example.values())


def _program(module: Any, given: tuple[Tensor, ...], where: str) -> torch.export.ExportedProgram:
    """TorchScript as a program of ATen's operators. Raises ModelError, UnsupportedError."""
    try:
        with torch.no_grad():
            module(*given)
    except Exception as e:  # of any kind that its code raises
        lines = [line for line in str(e).splitlines() if line.strip()]
        shape = " and ".join(_said(x.shape) for x in given)
        what = f"fails on an input of {shape}: {lines[-1].strip()[:120] if lines else ''}"
        raise ModelError(where, what, "give its own with --input-size and --channels") from None
    logging.disable(logging.CRITICAL)  # it logs and prints whole graphs
    try:
        from torch._export.converter import TS2EPConverter

        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TS2EPConverter(module, given, {}).convert()
    except Exception as e:
        why = one_line(e, 120)
        what = f"its TorchScript cannot be followed: {why}"
        raise UnsupportedError(where, what, "export the network to ONNX from its code") from None
    finally:
        logging.disable(logging.NOTSET)


def _module(made: torch.export.ExportedProgram) -> nn.Module:
    """The program as a module that stays as it was exported, whatever mode it is put into."""
    module: Any = made.module(check_guards=False)
    module.train = lambda *_: module
    module.eval = lambda: module
    return module


def _compare(original: Network, graph: Any, given: tuple[Tensor, ...], where: str) -> None:
    """Raises ModelError where the .onnx file answers otherwise than PyTorch, on random inputs."""
    from edgecv.bundling.inference import plain_session

    rng = np.random.default_rng(0)
    wanted: list[tuple[np.ndarray, ...]] = []
    found: list[tuple[np.ndarray, ...]] = []
    session = plain_session(graph)
    try:
        for _ in range(PROOFS):
            feed = [rng.normal(size=x.shape).astype(np.float32) for x in given]
            with torch.no_grad():
                answers = outputs_of(original(*map(torch.from_numpy, feed)), where).values
            names = (t.name for t in graph.inputs)
            made = session.run(dict(zip(names, feed, strict=True)))
            wanted.append(tuple(t.numpy().astype(np.float32)[None] for t in answers))
            found.append(tuple(made[t.name].astype(np.float32)[None] for t in graph.outputs))
    finally:
        session.close()
    a, b = ([np.concatenate(rows) for rows in zip(*runs, strict=True)] for runs in (wanted, found))
    try:
        check(where, a, b, EXPORT, dict.fromkeys(kinds_of(graph.outputs), "values"), made_up=True)
    except EdgecvError as e:
        what = f"as .onnx it answers otherwise than in PyTorch: {e.what}"
        raise ModelError(where, what, "export the network to ONNX from its code") from None
