"""Write the pages that are generated from the code, and the tables of pages from results.

python scripts/make_docs.py            write them
python scripts/make_docs.py --check    exit 1 when one is not current (the test does this)
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgecv import stages, target  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.zoo import published  # noqa: E402
from edgecv.plan import recipe_schema  # noqa: E402
from scripts import api_page, reference_pages  # noqa: E402

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


ENGINES = """\
| engine | extra | measured where |
|---|---|---|
| ONNX Runtime, with kernels for one-bit layers (AVX2, AVX-512, NEON) | `[ort]` | here, and with \
[AVX-512](../benchmarks/results/avx512-vnni/binary_network.md); NEON under emulation |
| OpenVINO, one-bit layers by its BinaryConvolution | `[openvino]` | here |
| LiteRT + XNNPACK | `[tflite]` | here; on boards with `edgecv bench --device` |
| Edge TPU compiler, yours | `[tflite]` | accuracy on the CPU; not run on an Edge TPU here |
| TensorRT for RTX, or TensorRT | `[tensorrt]` | engines are built; not run here (no GPU) |
| plain C99, no heap, no library | a C compiler | here; aarch64, arm and riscv64 under emulation; \
not run on a microcontroller here |

`edgecv doctor` tells what a machine has, and what each missing thing costs.

"""


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
        + f"\n\n{ENGINES}"
        + "\nalign: pruning keeps channel counts a multiple of this, because kernels run a width "
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
        "# The zoo\n\nGenerated from `edgecv/models/zoo/` by `make docs`. A recipe says "
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


def quickstart_table(every: bool) -> str:
    """The demo's rows; those that were measured alone, or every one with what kept it from that."""
    data = json.loads((ROOT / "benchmarks/results/quickstart.json").read_text())
    rows = [
        "| target | step | precision | top-1 | vs fp32 | p50 ms "
        "| time × fp32 (95%) | CPU × fp32 | KB |" + " |" * every,
        "|---|---|---|--:|--:|--:|--:|--:|--:|" + "---|" * every,
    ]
    for r in data["results"]:
        m, t = r["metric"], r["latency_ms"]
        if not (t or every):
            continue
        change = "" if not m else f"{100 * (m['value'] - m['reference']):+.2f}"
        cells = [
            r["target"], r["step"], r["precision"], f"{100 * m['value']:.2f}" if m else "", change,
            f"{t['p50']:.3f}" if t else "", _ratio(r) if t else "",
            f"{r['cpu_time_ratio']:.2f}" if t else "", f"{r['engine_bytes'] / 1024:.0f}",
            *(["" if r["status"] == "ok" else f"{_short(r['reason'])}"] if every else []),
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    m = data["machine"]
    vnni = "with" if "avx512_vnni" in m["features"] else "without"
    built = sorted({r["target"] for r in data["results"] if not r["latency_ms"]})
    file = "benchmarks/results/quickstart.json"
    about = (
        f"\n{m['cpu']}, {m['cores']} cores, {vnni} AVX-512 VNNI, "
        f"one thread, batch 1, edgecv {data['edgecv']}, seed {data['recipe']['seed']}"
    )
    if every:
        return "\n".join(rows) + f"\n{about}; [results file](../../{file})."
    return "\n".join(rows) + (
        f"\n{about}. Built and not run there: {', '.join(built)} "
        f"([every row, every column explained](docs/start/demo.md), [results file]({file}))."
    )


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
    """ResNet-18 of one bit beside the same in fp32 and int8."""
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
        "More is faster: CPU time against the fastest network in fp32 and in int8, one interleaved "
        f"run, {here['cpu']}, one thread, kernels {kernels}, random weights "
        "([results](../../benchmarks/results/binary_network.md))."
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
        "([results](../../benchmarks/results/c_sizes.md))."
    )
    return "\n".join([*lines, "", said])


def rooms_table() -> str:
    """The folders of the package, each by the first paragraph of its docstring."""
    rows = ["| folder of `edgecv/` | |", "|---|---|"]
    for path in sorted((ROOT / "edgecv").glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = " ".join(text.partition("\n\n")[0].split())
        rows.append(f"| `{path.parent.name}/` | {first.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"quickstart": lambda: quickstart_table(False)},
    "ARCHITECTURE.md": {"rooms": rooms_table},
    "docs/api.md": api_page.TABLES,
    "docs/start/demo.md": {"quickstart-all": lambda: quickstart_table(True)},
    "docs/ci.md": {"gate": gate_table},
    "docs/howto/one-bit.md": {"binary": binary_table},
    "docs/howto/microcontroller.md": {"c": c_table},
}


def pages() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    made = {
        "docs/targets.md": targets_page(),
        "docs/stages.md": stages_page(),
        "docs/zoo.md": zoo_page(),
        "docs/recipe.schema.json": json.dumps(recipe_schema.schema(), indent=1) + "\n",
        **{f"docs/reference/{name}.md": page() for name, page in reference_pages.PAGES.items()},
    }
    for name, tables in TABLES.items():
        text = (ROOT / name).read_text()
        for block, table in tables.items():
            text = _between(text, block, table())
        made[name] = text
    return {ROOT / name: text for name, text in made.items()}


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
