"""An ONNX graph → a folder of C99: the model, an example that checks golden vectors, a Makefile.

No heap, no library but memcpy, one arena. Layers in float32, int8 and one bit (`read.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv import source_trust
from edgecv.backends import Compiled
from edgecv.backends.c import codegen, header, network, reference
from edgecv.backends.c.arena import plan
from edgecv.backends.c.read import read
from edgecv.backends.c.run import ENGINE, Session, image_spec, output_spec, probe, shaped
from edgecv.errors import UnsupportedError
from edgecv.graph import Graph
from edgecv.target import Target

GOLDENS, GOLDEN_VALUES = 4, 40_000  # as many as fit, at least one: they are text


def compile(graph: Graph, target: Target, out: Path) -> Compiled:
    """Write out/model.c and what belongs to it; compiled and run once where there is a compiler.

    Raises UnsupportedError: not ONNX, an operator without a kernel (named), more memory than the
    target has; EngineError: the compiler refused.
    """
    if graph.format != "onnx":
        raise UnsupportedError(target.name, f"C is written from .onnx, not .{graph.format}")
    found = read(_lowered(graph), target.name)
    _, arena = plan(found)
    flash = codegen.flash_bytes(found)
    _fits(target, arena, flash)
    names = tuple(t.name for t in graph.outputs)
    files = codegen.files(found, _golden(found), target.name, *names)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text)
    tables = {name: tuple(map(shaped, rows)) for name, rows in header.tables(found, names).items()}
    source, result = (found.tensors[n].shape for n in (found.source, found.result))
    here, notes = probe(), [f"needs {arena:,} bytes of memory and {flash:,} of constants"]
    if here.available:
        with source_trust.own():
            Session({n: t.encode() for n, t in files.items()}).close()
    return Compiled(
        files=tuple(files),
        inputs=tables.get("model_inputs") or (image_spec(found.source, source),),
        outputs=tables.get("model_shapes") or (output_spec(names[0], result),),
        versions={ENGINE: str(here.version)} if here.available else {},
        notes=tuple(notes),
        counted=sum(s.kind == "conv_bits" for s in found.steps),
    )


def _lowered(graph: Graph) -> Any:
    import onnx

    model = onnx.load_model(str(graph.path))
    if "Where" in graph.facts.get("ops", {}):
        from edgecv.binary.lowering import lower

        lower(model)
    return model


def _golden(found: network.Network) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and what the reference makes of it."""
    sizes = [found.tensors[n].values for n in found.sources]
    count = min(GOLDENS, max(1, GOLDEN_VALUES // sum(sizes)))
    inputs = np.random.default_rng(0).normal(size=(count, sum(sizes))).astype(np.float32)
    outputs = []
    for x in inputs:
        held = reference.run(found, *np.split(x, np.cumsum(sizes)[:-1]))
        outputs.append(np.concatenate([held[n].reshape(-1) for n in found.results]))
    return inputs, np.stack(outputs)


def _fits(target: Target, arena: int, flash: int) -> None:
    for what, needed, limit in (
        ("memory", arena, target.memory_kb), ("constants", flash, target.flash_kb)
    ):  # fmt: skip
        if limit is not None and needed > 1024 * limit:
            raise UnsupportedError(
                target.name, f"needs {needed:,} bytes of {what}, the device has {1024 * limit:,}",
                "a smaller input or batch, fewer channels, int8",
            )  # fmt: skip
