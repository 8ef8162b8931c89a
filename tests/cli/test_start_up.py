"""What only reads or prints starts without what computes: the cause of how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

HEAVY = (
    "torch", "torchvision", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "tensorrt_rtx",
    "scipy", "matplotlib", "PIL", "safetensors", "torch_pruning", "urllib.request", "asyncio",
)  # fmt: skip
CODE = """
import sys
from edgecv.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as e:
    code = e.code
print()
print(code, *sorted(sys.modules), file=sys.stderr)
"""
RECIPE = """
model: {zoo: resnet8, width: 16}
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28}
stages:
  - train: {name: dense, epochs: 1}
  - prune: {name: narrow, from: dense, ship: true}
  - lowrank: {name: factored, from: dense, ship: true}
  - sparsify: {name: sparse, from: dense, ship: true}
  - restructure: {name: separable, from: dense, ship: true}
  - binarize: {name: bits, from: dense, ship: true}
  - qat: {name: learned, from: dense, ship: true}
  - distill: {name: small, from: model, teacher: dense, student: {zoo: resnet8, width: 8}}
  - quantize: {name: int8, from: dense}
targets: [cpu, openvino, tflite, c]
"""
EDITS = [
    {"op": "keep_channels", "modules": {}},
    {"op": "connections", "layers": {"a": [1, 2]}},
    {"op": "factorize", "layers": {"a": {"form": "svd", "ranks": [2]}}},
    {"op": "structured", "layers": {"b": {"structure": "toeplitz", "rank": 2}}},
    {"op": "replace", "modules": {"c": {"into": "separable"}}},
    {"op": "binarize", "form": "react", "weights": "binary", "real_inputs": True, "layers": {}},
    {"op": "quantizers", "method": "lsq", "quantizers": {}},
]


def loaded(folder: Path, *arguments: str) -> tuple[str, str, set[str]]:
    """(exit code, what it printed, modules) of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True, text=True, cwd=folder, env=environment(), timeout=240, check=False,
    )  # fmt: skip
    assert done.stderr, done.stdout
    code, *modules = done.stderr.splitlines()[-1].split()
    return code, done.stdout, set(modules)


@pytest.mark.parametrize("command", ["--help", "plan --help", "inspect --help", "gate --help"])
def test_help_needs_nothing_but_the_standard_library(command: str, tmp_path: Path) -> None:
    code, _, modules = loaded(tmp_path, *command.split())
    assert code == "0"
    assert not modules & {*HEAVY, "numpy", "pydantic", "yaml", "rich"}


def test_a_plan_of_every_stage_loads_nothing_that_computes(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(RECIPE)
    code, said, modules = loaded(tmp_path, "plan", "my.yaml")
    assert (code, "bundle:bits@c" in said) == ("0", True)
    assert not modules & set(HEAVY)


def test_a_history_is_told_without_the_libraries_that_made_it(tmp_path: Path) -> None:
    from edgecv.models import edits

    assert {e["op"] for e in EDITS} == set(edits.kinds())
    made = [{**edit, "step": f"s{i}"} for i, edit in enumerate(EDITS)]
    data = {"schema": 1, "builder": "zoo:resnet8", "args": {}, "edits": made, "input": {}}
    (tmp_path / "model.json").write_text(json.dumps(data | {"facts": {}}))
    code, said, modules = loaded(tmp_path, "inspect", ".")
    assert code == "0"
    assert "s2: 1 layers as products: a svd 2" in said
    assert not modules & {*HEAVY, "pydantic", "rich"}
