"""verify says of each output, and of each quantity in one, how far its answers are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.cli import main
from edgecv.runtime import goldens, parts, verify
from edgecv.runtime.archive import write_bundle
from edgecv.runtime.fidelity import compare_all
from edgecv.runtime.spec import TensorSpec
from tests.runtime.conftest import described

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

BOXES, OBJECT, CLASSES = "map[0:4]", "map[4:5]", "map[5:8]"
GROUPS = {"groups": (1, 0, 4, 5, 8), "bounds": (0.0, 1.0, 1.0)}
SHAPE = (1, 8, 8, 8)


def network() -> bytes:
    """(1, 3, 8, 8) -> "map": boxes in hundreds of pixels, one probability, three that are nearly
    nothing; and "mean"."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    held = [numpy_helper.from_array(rng.normal(0, size, (n, 3, 1, 1)).astype(np.float32), name)
            for name, n, size in (("b", 4, 100), ("o", 1, 1), ("c", 3, 1))]  # fmt: skip
    held.append(numpy_helper.from_array(np.full(3, -16, np.float32), "low"))
    low = {"c": ["low"]}
    nodes = [
        *(helper.make_node("Conv", ["image", n, *low.get(n, [])], [f"{n}0"]) for n in "boc"),
        *(helper.make_node("Sigmoid", [f"{n}0"], [f"{n}1"]) for n in "oc"),
        helper.make_node("Concat", ["b0", "o1", "c1"], ["map"], axis=1),
        helper.make_node("ReduceMean", ["o0"], ["mean"], axes=[2, 3], keepdims=0),
    ]
    ends = [("image", (1, 3, 8, 8)), ("map", SHAPE), ("mean", (1, 1))]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends]
    graph = helper.make_graph(nodes, "heads", infos[:1], infos[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def bundle(
    path: Path, change: Callable[[np.ndarray], None] = lambda _: None, kept: int = 0, **said: Any
) -> Path:
    """change: of the golden (4, 8, 8, 8), in place. kept: so many values of each, all if 0"""
    import onnxruntime as ort

    model = network()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(3).normal(size=(4, 3, 8, 8)).astype(np.float32)
    rows = [session.run(None, {"image": x[None]}) for x in images]
    maps, means = (np.concatenate(side) for side in zip(*rows, strict=True))
    change(maps)
    answers = {"map": goldens.thinned(maps, kept) if kept else maps, "mean": means}
    outputs = [TensorSpec("map", "float32", SHAPE, "NCHW", **{**GROUPS, **said}),
               TensorSpec("mean", "float32", (1, 1))]  # fmt: skip
    about = described(task=None, labels=None, outputs=[t.to_json() for t in outputs])
    packed = goldens.Goldens(None, 1, {"image": images}, answers)
    return write_bundle(path, about, {"model.onnx": model}, {}, {}, goldens=packed)


def lost(maps: np.ndarray) -> None:
    maps[:, 4] = 0.5


def test_each_group_and_each_other_output_has_its_figures(tmp_path: Path) -> None:
    report = verify(bundle(tmp_path / "a.edgecv"))
    assert report.ok
    assert list(report.outputs) == [BOXES, OBJECT, CLASSES, "mean"]
    assert {p.sqnr_db for p in report.outputs.values() if p} == {None}
    assert [p.axis for p in report.outputs.values() if p] == [1, 1, 1, None]
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["outputs"]["mean"] == {"sqnr_db": None, "max_abs_error": 0.0, "axis": None}


def test_a_quantity_that_is_lost_beside_a_larger_one_is_not_ok(tmp_path: Path) -> None:
    report = verify(bundle(tmp_path / "a.edgecv", lost))
    assert not report.ok
    assert report.reason.startswith(f"output '{OBJECT}' differs: SQNR ")
    found = report.outputs[OBJECT]
    assert found is not None
    assert found.sqnr_db is not None
    assert found.sqnr_db < 10
    assert found.max_abs_error == report.max_abs_error > 0.1
    assert report.outputs[BOXES] == parts.Part(None, 0.0, 1)
    unsaid = verify(bundle(tmp_path / "b.edgecv", lost, groups=None, bounds=None))
    assert unsaid.ok, "one figure over all does not see it"


def test_rounding_of_a_known_range_passes(tmp_path: Path) -> None:
    """A probability of nothing is 1e-7 in one kernel and 0 in the next."""

    def rounded(maps: np.ndarray) -> None:
        maps[:, 5:8] += np.float32(8e-7)

    def more(maps: np.ndarray) -> None:
        maps[:, 5:8] += np.float32(2e-6)

    report = verify(bundle(tmp_path / "a.edgecv", rounded))
    assert report.ok
    found = report.outputs[CLASSES]
    assert found is not None
    assert found.sqnr_db is not None
    assert found.sqnr_db < 30
    assert not verify(bundle(tmp_path / "b.edgecv", more)).ok
    assert not verify(bundle(tmp_path / "c.edgecv", rounded, bounds=None)).ok


def test_a_step_of_an_integer_grid_is_rounding() -> None:
    spec = TensorSpec("y", "int8", (1, 2, 2, 4), "NHWC", 0.5, 0, groups=(1, 0, 2, 4))
    found = parts.rounding([spec], "int8")
    assert list(found) == ["y[0:2]", "y[2:4]"]
    assert 0.5 < found["y[0:2]"] < 0.51


def test_of_a_large_output_the_kept_values_are_judged_by_group(tmp_path: Path) -> None:
    good, bad = (
        verify(bundle(tmp_path / f"{change.__name__}.edgecv", change, 200))
        for change in (lambda _: None, lost)
    )
    assert good.ok
    assert None not in good.outputs.values()
    assert not bad.ok
    assert bad.reason.startswith(f"output '{OBJECT}' differs")
    few = verify(bundle(tmp_path / "few.edgecv", lost, 3))
    assert few.ok
    assert [n for n, p in few.outputs.items() if p is None] == [OBJECT, CLASSES][:1]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NC"])
def test_kept_values_are_of_the_groups_that_the_whole_has(layout: str) -> None:
    """With channels first, last, and in a tensor of another rank."""
    shape = {"NCHW": (1, 6, 4, 5), "NHWC": (1, 4, 5, 6), "NC": (1, 20, 6)}[layout]
    axis = 2 if layout == "NC" else 1
    spec = TensorSpec("y", "float32", shape, layout, groups=(axis, 0, 2, 6))
    marks = np.zeros(shape)
    at: list[Any] = [slice(None)] * len(shape)
    at[1 if layout == "NCHW" else len(shape) - 1] = slice(2, 6)
    marks[tuple(at)] = 1.0
    kept = parts.kind(spec, is_whole=False)
    assert isinstance(kept, parts.Kept)
    values = goldens.thinned(marks, 57)
    cut = kept.cut("y", values)
    assert list(cut) == ["y[0:2]", "y[2:6]"]
    assert sum(v.size for v in cut.values()) == 57
    assert not cut["y[0:2]"].any()
    assert cut["y[2:6]"].all()
    assert list(compare_all([values], [values], {"y": kept}).outputs) == list(cut)


def test_the_command_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle(tmp_path / "a.edgecv"))]) == 0
    assert f"  {BOXES} (axis 1): exact\n" in capsys.readouterr().out
    assert main(["verify", str(bundle(tmp_path / "b.edgecv", lost, 300))]) == 1
    said = capsys.readouterr().out
    assert f"FAILED: output '{OBJECT}' differs" in said
    assert f"  {OBJECT} (axis 1): SQNR " in said
    assert "  mean: exact\n" in said
    main(["verify", str(bundle(tmp_path / "c.edgecv", kept=3))])
    assert f"  {OBJECT}: none of its values is kept\n" in capsys.readouterr().out
