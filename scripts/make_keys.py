"""docs/keys.md: what is made again when a file or a library changes, found by changing it.

    python scripts/make_keys.py          write the page

A file of every room is edited in a copy of the package, and a recipe with every kind of step is
planned with that copy's sources.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgecv.keys import closure, versions
from edgecv.plan import recipe
from edgecv.plan.graph import Expansion

PAGE = Path(__file__).parent.parent / "docs" / "keys.md"
RECIPE = """
model: {zoo: resnet8, width: 16}
data: {train: 'npz:set.npz', test: 'npz:set.npz', size: 8, crop_pct: 1.0}
stages:
  - train: {name: dense, epochs: 1}
  - prune: {name: narrow, from: dense, latency_ratio: 0.8, on: cpu, ship: true}
  - lowrank: {name: factored, from: dense, ship: true}
  - sparsify: {name: sparse, from: dense, ship: true}
  - restructure: {name: separable, from: dense, ship: true}
  - binarize: {name: bits, from: dense, ship: true}
  - qat: {name: learned, from: dense, ship: true}
  - distill: {name: small, from: model, teacher: dense, student: {zoo: resnet8, width: 8}}
  - quantize: {name: int8, from: dense}
  - quantize: {name: searched, from: dense, accuracy_drop: 1.0}
targets: [cpu, openvino, tflite, tensorrt, c]
"""
# One file of every room.
TOUCHED = (
    "data/images.py", "runtime/preprocess.py", "models/model.py", "models/zoo/resnet.py",
    "models/edits.py",
    "methods/training/loop.py", "methods/distillation/losses.py", "methods/pruning/groups.py",
    "methods/lowrank/tucker2.py", "methods/restructuring/fitting.py", "methods/binary/training.py",
    "methods/qat/lsq.py", "binary/lowering.py", "binary/c/portable.c",
    "models/importing/reader.py", "stages/train.py", "methods/export/onnx.py",
    "methods/export/tflite.py",
    "plan/makers/model.py", "methods/quantize/search.py", "methods/quantize/onnx_qdq.py",
    "fidelity.py", "bundling/build.py",
    "measuring/row_times.py", "measuring/run.py", "benchmark/sampling.py",
    "backends/onnxruntime/run.py", "backends/openvino/compile.py", "backends/tflite/run.py",
    "backends/tensorrt/compile.py", "backends/c/kernels.c",
    "device/ssh.py", "diagnosis/parity/compare.py", "diagnosis/why/explain.py", "report/page.py",
    "api/run.py", "commands/run.py", "cli.py", "console.py", "benchmark/gate.py",
)  # fmt: skip
ADDED = {".py": "\nTOUCHED = 1\n", ".c": "int touched;\n"}
LIBRARIES = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "litert-converter", "pillow")


class Workshop:
    """A copy of the package, whose keys are found while a file or a library is another."""

    def __init__(self, room: Path) -> None:
        self.root, self.project = room / "edgecv", room / "project"
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "_recipes", "_targets")
        shutil.copytree(closure.ROOT, self.root, ignore=ignored)
        self.project.mkdir()
        (self.project / "my.yaml").write_text(RECIPE)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        np.savez(self.project / "set.npz", images=pixels, labels=np.arange(40) % 4)
        self.package = closure.Package(self.root)
        self.recipe = recipe.load(self.project / "my.yaml")
        self.before = self.keys()

    def keys(self) -> dict[str, dict[str, object]]:
        """Node -> its key, with the copy's sources."""
        was = closure.package
        closure.package = lambda: self.package
        closure._code.cache_clear()
        try:
            nodes = Expansion(self.recipe).nodes
            return {name: {**node.key, "digest": node.digest} for name, node in nodes.items()}
        finally:
            closure.package = was
            closure._code.cache_clear()

    def own(self) -> set[str]:
        """Nodes whose own code or libraries changed."""
        now, parts = self.keys(), ("code", "versions", "network", "environment")
        return {n for n, k in now.items() if any(k.get(p) != self.before[n].get(p) for p in parts)}

    def rerun(self) -> set[str]:
        """All nodes that are made again."""
        return {n for n, k in self.keys().items() if k["digest"] != self.before[n]["digest"]}

    @contextmanager
    def touched(self, name: str, text: str = "") -> Iterator[None]:
        """A file of the copy with something more at its end."""
        path = self.root / name
        before = path.read_text()
        path.write_text(
            before + (text or ("\nTOUCHED = 1\n" if path.suffix == ".py" else "int t;"))
        )
        self.package.forget(path)
        try:
            yield
        finally:
            path.write_text(before)
            self.package.forget(path)

    @contextmanager
    def upgraded(self, library: str) -> Iterator[None]:
        """A library in another version."""
        was = versions.version
        versions.version = lambda name: "0.0" if name == library else was(name)
        try:
            yield
        finally:
            versions.version = was


def words(own: set[str], total: int) -> str:
    """Nodes by kind, in a line."""
    if not own:
        return "nothing"
    if len(own) == total:
        return "everything"
    found: dict[str, list[str]] = {}
    for name in sorted(own):
        kind, colon, rest = name.partition(":")
        step, at, target = name.partition("@")
        if colon and kind in ("bundle", "measure"):
            target = rest.partition("@")[2] or rest
            found.setdefault(f"{'bundles' if kind == 'bundle' else 'latencies'} on", []).append(
                target
            )
        elif at:
            found.setdefault(f"{step} on", []).append(target)
        elif name.endswith((".onnx", ".tflite")):
            found.setdefault("graphs", []).append(name.rpartition(".")[2])
        else:
            found.setdefault("", []).append(name)
    parts = [f"{k} {', '.join(dict.fromkeys(v))}".strip() for k, v in found.items()]
    return "; ".join(parts)


def page() -> str:
    """docs/keys.md."""
    lines = [HEAD, "| touched | made again for it |", "| --- | --- |"]
    with TemporaryDirectory() as room:
        shop = Workshop(Path(room))
        for name in TOUCHED:
            with shop.touched(name):
                lines.append(f"| `{name}` | {words(shop.own(), len(shop.before))} |")
        lines += ["", "| in another version | made again for it |", "| --- | --- |"]
        for library in LIBRARIES:
            with shop.upgraded(library):
                lines.append(f"| {library} | {words(shop.own(), len(shop.before))} |")
    return "\n".join(lines) + "\n"


HEAD = (
    """# What is made again, and why

Every result is kept under a key that holds the code that runs and the versions of the libraries it
touches, both found by following imports from the module that does the step
(`edgecv.keys.closure`). A comment, a docstring or the wording of a message is no part of it.
`edgecv plan` says what changed.

This page is made by `scripts/make_keys.py`: a file of every room is edited in a copy of the
package, and the recipe below is planned with it. What reads a step that is made again is made
again too, unless the result comes out under the same key; such steps are not listed twice.

```yaml"""
    + RECIPE
    + """```
"""
)

if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(text != PAGE.read_text())
    PAGE.write_text(text)
