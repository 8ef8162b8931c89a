"""Write the pages that are generated from the code, and the README's tables from results.

python scripts/make_docs.py            write them
python scripts/make_docs.py --check    exit 1 when one is not current (the test does this)
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edgecv  # noqa: E402
from edgecv import recipe, stages, target, zoo  # noqa: E402
from edgecv.zoo import published  # noqa: E402

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


def targets_page() -> str:
    rows = ["| target | engine | precisions | int8 grid | align | device |", "|---" * 6 + "|"]
    for name in target.names():
        t = target.load(name)
        rows.append(
            f"| `{name}` | {t.backend} | {', '.join(t.precisions)} | {_grid(t)} | {t.alignment} | "
            f"{t.description} |"
        )
    return (
        "# Targets\n\nGenerated from `targets/*.yaml` by `make docs`. A file of the same form in "
        "`./targets` of the working folder is found first, so a new board is one new file:\n\n"
        "```yaml\n# targets/myboard.yaml\nextends: rpi5\ndescription: my board\nthreads: 2\n"
        "device: ssh://pi@rpi5.local               # where `run` and `bench --device` measure\n"
        "device_python: /home/pi/venv/bin/python   # default python3\n```\n\n"
        + "\n".join(rows)
        + "\n\nalign: pruning keeps channel counts a multiple of this, because kernels run a width "
        "in between no faster.\nint8 grid: activations / weights; asymmetric unless said.\n\n"
        "`c` and `cortex-*` are written as C99: `model_run(input, output, memory)`; of several "
        "inputs one pointer each in the graph's order, of a batch its images one behind the other "
        "([how](decisions/009-plain-c.md#several-inputs-and-a-batch)). Inputs and outputs of four "
        "axes lie with their channels last, (images, height, width, channels); `model.h` says so "
        'of each, and says "as in ONNX" of an output whose axes the graph itself ends on '
        "otherwise. All else lies as in ONNX.\n"
    )


def _grid(t: target.Target) -> str:
    g = target.load(t.name, ["avx512_vnni"]).grid  # a page is the same wherever it is written
    bits = "s8 that does not saturate" if g.reduce_range else "s8"
    if g.reduce_range != target.load(t.name, ["avx2"]).grid.reduce_range:
        bits = "s8 (kept from saturating without VNNI)"
    parts = [
        f"{'u8' if g.activations == 'uint8' else 's8'}{' symmetric' if g.symmetric else ''} / "
        f"{bits} per {'channel' if g.per_channel else 'tensor'}"
    ]
    if not g.dense_per_channel:
        parts.append("dense per tensor")
    if not g.quantize_bias:
        parts.append("float bias")
    return ", ".join(parts)


def stages_page() -> str:
    parts = [
        "# Stages\n\nGenerated from `edgecv/stages/` by `make docs`. Every stage also takes "
        "`name` (how others call it), `from` (the step it reads; default the one before) and "
        "`ship` (compile it although another step reads it).\n"
    ]
    for word, cls in stages.words().items():
        module = sys.modules[cls.__module__]
        parts.append(f"\n## {word}\n\n{(module.__doc__ or '').strip()}\n")
        parts.append("\n| parameter | type | default | |\n|---|---|---|---|\n")
        for name, field in cls.model_json_schema()["properties"].items():
            if name in ("name", "from", "ship"):
                continue
            default = json.dumps(field.get("default"))
            about = field.get("description", "")
            parts.append(f"| `{name}` | {_type(field)} | {default} | {about} |\n")
    return "".join(parts)


def zoo_page() -> str:
    rows = ["| network | arguments | |", "|---|---|---|"]
    for name in zoo.names():
        made = ", ".join(f"{k}: {json.dumps(v)}" for k, v in zoo.arguments(name).items())
        rows.append(f"| `{name}` | `{made}` | {zoo.about(name)} |")
    return (
        "# The zoo\n\nGenerated from `edgecv/zoo/` by `make docs`. A recipe says "
        "`model: {zoo: mobilenet_v2, width: 0.5, classes: 10, stride: 8}`.\n\n"
        "width: channels of the first stage (a whole number) or a multiplier of all channels (1.0)."
        "\nstride: what the input is divided by; 32 as published, 8 or 4 for small images.\n"
        "size: the input's side, where a dense layer depends on it; all others take any.\n\n"
        + "\n".join(rows)
        + "\n\nWith `pretrained: true`, and where the recipe or the command says nothing else, "
        "pixels become input as\nthe published weights expect, and the outputs have ImageNet's "
        "names:\n\n" + "\n".join(_published()) + "\n"
    )


def _published() -> list[str]:
    found = {name: published.of(name, {"pretrained": True}) for name in published.with_weights()}
    return [f"- `{name}`: {expected.sentence()}." for name, expected in found.items() if expected]


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    kind = field.get("type") or " or ".join(t.get("type", "?") for t in field.get("anyOf", []))
    limits = [
        f"{sign} {field[key]}"
        for key, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")
        )
        if key in field
    ]  # fmt: skip
    return " ".join([str(kind), *limits])


def quickstart_table() -> str:
    data = json.loads((ROOT / "benchmarks/results/quickstart.json").read_text())
    rows = [
        "| target | step | precision | top-1 | vs fp32 | p50 ms "
        "| time × fp32 (95%) | CPU × fp32 | KB | |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for r in data["results"]:
        m, t = r["metric"], r["latency_ms"]
        change = "" if not m else f"{100 * (m['value'] - m['reference']):+.2f}"
        cells = [
            r["target"], r["step"], r["precision"], f"{100 * m['value']:.2f}" if m else "", change,
            f"{t['p50']:.3f}" if t else "", _ratio(r) if t else "",
            f"{r['cpu_time_ratio']:.2f}" if t else "", f"{r['engine_bytes'] / 1024:.0f}",
            "" if r["status"] == "ok" else f"{_short(r['reason'])}",
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    m = data["machine"]
    vnni = "with" if "avx512_vnni" in m["features"] else "without"
    about = (
        f"\n{m['cpu']}, {m['cores']} cores, {vnni} AVX-512 VNNI, "
        f"one thread, batch 1, edgecv {data['edgecv']}, seed {data['recipe']['seed']}; "
        "[results file](benchmarks/results/quickstart.json)."
    )
    return "\n".join(rows) + "\n" + about


def _ratio(row: dict[str, Any]) -> str:
    low, high = row["latency_ratio_interval"]
    spread = "" if low == high else f" ({low:.2f}-{high:.2f})"
    return f"{row['latency_ratio']:.2f}{spread}"


def _short(reason: str) -> str:
    return reason if reason.startswith("machine was") else "not run here: " + reason.split(";")[0]


def gate_table() -> str:
    data = json.loads((ROOT / "benchmarks/results/gate_error_rates.json").read_text())
    names = {"same": "the same network", "7%": "7% slower", "10%": "10% slower"}
    rows = [
        "| `--max-slowdown 5%` | gates | said regression | inconclusive | median s |",
        "|---|--:|--:|--:|--:|",
    ]
    for r in data["rates"]:
        against = "two bundles" if r["mode"] == "live" else "stored baseline"
        rows.append(
            f"| {against}, {names[r['kind']]} | {r['gates']} | {r['share']:.1%} | "
            f"{r['inconclusive']} | {r['median_s']:.1f} |"
        )
    return "\n".join(rows)


def binary_table() -> str:
    """ResNet-18 of one bit beside its float and int8 twins."""
    found = json.loads((ROOT / "benchmarks/results/binary_network.json").read_text())
    cpu = {r["name"]: r["cpu_time_ratio"] for r in found["rows"]}
    best = {
        p: min(v for n, v in cpu.items() if n.startswith(f"float {p}")) for p in ("fp32", "int8")
    }
    lines = ["| ResNet-18, 224x224 | engine | layers ran in | × fp32 | × int8 | KB |",
             "|---|---|---|--:|--:|--:|"]  # fmt: skip
    for row in found["rows"]:
        network, precision, engine = row["name"].split()
        ran = ", ".join(f"{n} {p}" for p, n in sorted(row["executed"].items()))
        what = precision if network == "float" else f"{network}, the rest {precision}"
        lines.append(
            f"| {what} | {engine} | {ran} | {best['fp32'] / cpu[row['name']]:.2f} | "
            f"{best['int8'] / cpu[row['name']]:.2f} | {row['size_bytes'] / 1e3:.0f} |"
        )
    here = found["circumstances"]["machine"]
    kernels = found["kernels"][0]
    said = (
        "More is faster: CPU time against the fastest fp32 and int8 twin, one interleaved run, "
        f"{here['cpu']}, one thread, kernels {kernels}, random weights "
        "([results](benchmarks/results/binary_network.md))."
    )
    return "\n".join([*lines, "", said])


def c_table() -> str:
    """Flash and memory of small networks in generated C."""
    found = json.loads((ROOT / "benchmarks/results/c_sizes.json").read_text())
    lines = ["| network, 28x28 | | flash on Cortex-M4, bytes | arena, bytes |", "|---|---|--:|--:|"]
    lines += [
        f"| {r['name']} | {r['kind']} | {r['flash']:,} | {r['arena']:,} |" for r in found["rows"]
    ]
    said = (
        "Code and constants, arm-none-eabi-gcc -Os, not run on one; golden vectors (int8 equal, "
        "floats within 1e-3) hold here and under emulation on aarch64, arm and riscv64 "
        "([results](benchmarks/results/c_sizes.md))."
    )
    return "\n".join([*lines, "", said])


# Function of the API -> the types whose docstrings stand below its own.
TYPES = {"export": ("api.export.Bundle", "api.export_options.ExportOptions"),
         "run": ("api.run.Results", "api.run.Row"),
         "open_bundle": ("runtime.bundle.Bundle",), "predict": ("api.predict.Answer",),
         "bench": ("api.bench.Benchmark", "api.bench.Timing"), "gate": ("api.gate.Verdict",),
         "parity": ("api.parity.Parity", "api.parity.Rung"),
         "why": ("api.why.Diagnosis", "diagnosis.why.findings.Finding"),
         "compress": (), "finish": ()}  # fmt: skip


def api_page() -> str:
    """docs/api.md with every signature and docstring as the code has it."""
    text = (ROOT / "docs/api.md").read_text()
    for name, types in TYPES.items():
        function = getattr(edgecv, name)
        lines = ["```text", _signature(name, function), "", _doc(function)]
        for place in types:
            module, _, called = place.rpartition(".")
            found = getattr(import_module(f"edgecv.{module}"), called)
            lines += ["", called, "", _doc(found)]
        text = _between(text, name, "\n".join([*lines, "```"]))
    return text


def _signature(name: str, function: Any) -> str:
    """As it is written: annotations are strings."""
    given, shown = inspect.signature(function), []
    for p in given.parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        stars = "**" if p.kind is p.VAR_KEYWORD else ""
        default = "" if p.default is p.empty else f" = {p.default!r}"
        shown.append(f"{stars}{p.name}: {p.annotation}{default}")
    line = f"edgecv.{name}({', '.join(shown)}) -> {given.return_annotation}"
    listed = "".join(f"\n    {one}," for one in shown)
    return line if len(line) < 90 else f"edgecv.{name}({listed}\n) -> {given.return_annotation}"


def _doc(found: Any) -> str:
    return "\n".join(line and f"    {line}" for line in inspect.getdoc(found).splitlines())


def pages() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    readme = (ROOT / "README.md").read_text()
    readme = _between(readme, "quickstart", quickstart_table())
    readme = _between(readme, "gate", gate_table())
    readme = _between(readme, "binary", binary_table())
    readme = _between(readme, "c", c_table())
    return {
        ROOT / "docs/targets.md": targets_page(),
        ROOT / "docs/stages.md": stages_page(),
        ROOT / "docs/zoo.md": zoo_page(),
        ROOT / "docs/api.md": api_page(),
        ROOT / "docs/recipe.schema.json": json.dumps(recipe.schema(), indent=1) + "\n",
        ROOT / "README.md": readme,
    }


def _between(text: str, name: str, body: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{body}\n{end}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [p for p, text in pages().items() if not p.exists() or p.read_text() != text]
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(pages()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
