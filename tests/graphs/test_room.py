"""No engine runs in `graphs/`, and nobody outside of `backends/` asks for an engine by its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import edgecv
from edgecv.backends import ENGINES, formats

ROOT = Path(edgecv.__file__).parent
ABOVE = ("edgecv.backends", "edgecv.stages", "edgecv.measuring", "edgecv.benchmark", "onnxruntime",
         "tensorrt", "ai_edge_litert.interpreter", "torch")  # fmt: skip
RUNS = re.compile("compile_model|infer_request")  # OpenVINO reads and runs by one library
# Who asks for a format by its name, or runs an engine by it, and why it may.
NAMED = {
    "bundling/inference.py": "a Q/DQ file alone says for which processors its integers are",
    "runtime/outside.py": "reads the bytes of each format, on a device too",
    "methods/distillation/teacher_onnx.py": "reads that format, proves it on its reference engine",
    "methods/distillation/unlabelled.py": "a file teaches, proven on its reference engine",
    "models/importing/tflite/proof.py": "a file and what was made of it, each on its engine",
    "diagnosis/parity/*_network.py": "a format, opened on its reference engine",
    "diagnosis/parity/for_*.py": "a format, taken apart on its reference engine",
    "methods/qat/for_*.py": "tensors of a format, by its reference engine",
    "reading_graph.py": "puts nodes of that format behind a network",
    "methods/restructuring/activations.py": "changes such files, run by its reference engine",
    "methods/restructuring/harms.py": "runs such a file by its reference engine, once for all",
    "methods/restructuring/matching.py": "asks its reference engine what tensors hold",
    "methods/restructuring/refitting.py": "fits such files to what its reference engine gives",
    "report/saliency.py": "gradients of a format, by its reference engine",
    "report/surgery.py": "gradients of a format, by its reference engine",
    "methods/export/*onnx*.py": "makes that format, and runs what it made",
    "methods/export/*tflite*.py": "makes that format, and runs what it made",
    "methods/export/openvino_file.py": "the door of that format, which runs what comes in",
    "methods/quantize/*onnx*.py": "makes that format int8, and refuses another",
    "methods/quantize/*tflite*.py": "makes that format int8, and refuses another",
    "methods/quantize/nncf*.py": "makes a format int8 for the engine whose quantizer it is",
    "methods/quantize/sensitivity.py": "measures ONNX graphs by their reference engine",
    "diagnosis/why/onnx_*.py": "looks at that format, measures it on its reference engine",
    "diagnosis/why/rounding/qdq.py": "rounds tensors of that format by its reference engine",
    "diagnosis/why/tflite_view.py": "looks at that format, measures it on its reference engine",
}


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


def asked(path: Path) -> list[str]:
    """Comparisons with the name of an engine or of a format, and imports of one engine's own."""
    names, found = {*ENGINES, *formats()}, []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            said = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            found += [ast.unparse(node)] if said & names else []
    engines = tuple(f"edgecv.backends.{name}." for name in ENGINES)
    return found + sorted(m for m in imported(path) if f"{m}.".startswith(engines))


def test_a_ladder_of_names_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "ladder.py"
    for line in ('case.engine == "tflite"', 'kind in ("onnx", "x")', 'graph.format != "openvino"'):
        file.write_text(f"if {line}:\n    pass\n")
        assert asked(file) == [ast.unparse(ast.parse(line))]
    file.write_text("from edgecv.backends.c import run\nfrom edgecv.backends import facts\n")
    assert asked(file) == ["edgecv.backends.c", "edgecv.backends.c.run"]


def test_what_an_engine_can_is_its_own_to_say() -> None:
    """No engine and no format is asked for by its name, but where NAMED says why."""
    files = [p.relative_to(ROOT) for p in sorted(ROOT.rglob("*.py"))]
    files = [p for p in files if p.parts[0] != "backends"]
    named = {p: found for p in files if (found := asked(ROOT / p))}
    stray = {str(p): found for p, found in named.items() if not any(map(p.match, NAMED))}
    assert not stray
    idle = [pattern for pattern in NAMED if not any(p.match(pattern) for p in named)]
    assert not idle
