"""No engine runs in `graphs/`, and nobody outside of `backends/` asks for an engine by its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import edgecv
from edgecv.backends import ENGINES

ROOT = Path(edgecv.__file__).parent
ABOVE = ("edgecv.backends", "edgecv.stages", "edgecv.measuring", "edgecv.bench", "onnxruntime",
         "tensorrt", "ai_edge_litert.interpreter", "torch")  # fmt: skip
RUNS = re.compile("compile_model|infer_request")  # OpenVINO reads and runs by one library
_NAMES = "|".join(ENGINES)
ASKED = re.compile(rf"""(engine|backend)\S* (==|!=|in|not in) [\(\[{{]?["']({_NAMES})["']""")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def test_reading_a_graph_runs_no_engine() -> None:
    files = sorted((ROOT / "graphs").rglob("*.py"))
    assert len(files) > 20
    for path in files:
        names = imported(path)
        stray = [m for m in names if m.startswith(ABOVE)]
        assert not stray, (path.name, stray)
        assert "openvino" not in names or path.parent.name == "openvino", path.name
        assert not RUNS.search(path.read_text()), path.name


def test_what_an_engine_can_is_its_own_to_say() -> None:
    assert ASKED.search('if case.engine == "tflite":')
    for path in sorted(ROOT.rglob("*.py")):
        if (ROOT / "backends") not in path.parents:
            found = ASKED.search(path.read_text())
            assert not found, (path.relative_to(ROOT), found)
