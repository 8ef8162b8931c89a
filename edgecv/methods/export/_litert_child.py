"""The child process of `export_tflite`: an ExportedProgram file in, a .tflite file out.

LiteRT's converter brings jax and half a gigabyte with it, writes progress to the console and
has aborted on graphs that it did not know; none of that belongs in the caller's process.

    python -m edgecv.methods.export._litert_child program.pt2 out.tflite report.json

report.json: {"versions": {...}, "suspects": [...]}, or, of a network that it could not convert,
{"kind": the exception's class, "error": one line, "culprit": the operator and the user's line}.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgecv import lifeline

PACKAGES = ("torch", "litert-torch", "litert-converter")


def main(program: Path, out: Path) -> dict[str, Any]:
    """Convert, channels-last; the report."""
    import litert_torch
    import torch

    from edgecv.methods.export._nhwc import culprit, keep_channels_last, suspects

    exported = torch.export.load(program)
    examples = exported.example_inputs[0]
    network = exported.module()
    results = next(iter(exported.graph.find_nodes(op="output"))).args[0]
    keep_channels_last(network, *examples)
    found = suspects(network)
    outputs = [i for i, result in enumerate(results) if result.meta["val"].ndim == 4]
    named = partial(culprit, network)
    images = [i for i, x in enumerate(examples) if x.ndim == 4]
    network = litert_torch.to_channel_last_io(network, args=images, outputs=outputs)
    given = tuple(x.permute(0, 2, 3, 1).contiguous() if x.ndim == 4 else x for x in examples)
    # The ATen graph is already in eval mode; the flag only silences a warning.
    network.training = False
    try:
        litert_torch.convert(network, given).export(str(out))
    except Exception as e:
        return {**_failure(e), "culprit": named(str(e))}
    return {"versions": {p: version(p) for p in PACKAGES}, "suspects": found}


def _failure(e: Exception) -> dict[str, Any]:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return {"kind": type(e).__name__, "error": " ".join(lines)[:2000], "culprit": ""}


if __name__ == "__main__":
    lifeline.watch()
    source, target, report = map(Path, sys.argv[1:])
    try:
        answer = main(source, target)
    except Exception as e:
        answer = _failure(e)
    report.write_text(json.dumps(answer))
