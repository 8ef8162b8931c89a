"""A user's OpenVINO IR in int8: by NNCF alone, and what comes out is IR again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nncf")
ov = pytest.importorskip("openvino")
from openvino import opset13 as ops  # noqa: E402

from edgecv.backends import compile_module, run_module  # noqa: E402
from edgecv.errors import MissingExtraError, ParityError, StageError, UnsupportedError  # noqa: E402
from edgecv.fidelity import Tolerance  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.installation import cure  # noqa: E402
from edgecv.methods.export.openvino_file import load as load_ir  # noqa: E402
from edgecv.methods.quantize.options import Options, for_nncf  # noqa: E402
from edgecv.methods.quantize.quantizer import Quantizer  # noqa: E402
from edgecv.stages.quantize import Quantize  # noqa: E402
from edgecv.target import Target, load  # noqa: E402
from tests.networks import SIZE, context  # noqa: E402

START = for_nncf(Options(), ())


def conv(x: Any, channels: int, seed: int) -> Any:
    shape = (channels, x.get_output_shape(0)[1], 3, 3)
    weight = np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)
    found = ops.convolution(x, ops.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1])
    found.set_friendly_name(f"conv{seed}")
    return found


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Two convolutions, then boxes in hundreds of pixels beside a probability."""
    image = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    x = ops.relu(conv(ops.relu(conv(image, 16, 0)), 16, 1))
    boxes = ops.multiply(conv(x, 4, 2), ops.constant(np.float32(100)))
    heads = ops.concat([boxes, ops.sigmoid(conv(x, 1, 3))], 1)
    heads.output(0).get_tensor().set_names({"heads"})
    folder = tmp_path_factory.mktemp("ir")
    ov.save_model(ov.Model([heads], [image], "net"), str(folder / "net.xml"))
    return load_ir(folder / "net.xml", folder / "float")


def openvino() -> Target:
    target = load("openvino")
    grid = target.grid.model_copy(update={"reduce_range": False})
    return target.model_copy(update={"grid": grid})


def made(floats: Graph, tmp_path: Path, **options: Any) -> tuple[Graph, Any]:
    ctx = context(tmp_path / "c", target=openvino())
    chosen = for_nncf(Options(**options), options)
    return Quantizer(floats, ctx, 16).make(chosen, tmp_path / "q", Tolerance(6.0, 0.8))


def ran(graph: Graph, out: Path) -> dict[str, int]:
    """Compute layers of the compiled artifact by precision."""
    compiled = compile_module("openvino").compile(graph, openvino(), out)
    session = run_module("openvino").Session({n: (out / n).read_bytes() for n in compiled.files})
    try:
        return dict(session.executed())
    finally:
        session.close()


def test_every_layer_runs_in_int8_and_each_quantity_is_judged(
    floats: Graph, tmp_path: Path
) -> None:
    graph, parity = made(floats, tmp_path)
    assert (graph.format, graph.precision, graph.path.name) == ("openvino", "int8", "model.xml")
    assert ran(graph, tmp_path / "engine") == {"int8": 4}
    assert list(parity.outputs) == ["heads[0:4]", "heads[4:5]"]
    assert parity.sqnr_db > 15
    assert graph.outputs == floats.outputs
    assert graph.facts["quantizer"] == "nncf"
    assert Graph.load(graph.path.parent).facts["parity"]["sqnr_db"]
    again, _ = made(floats, tmp_path / "again")
    assert again.files() == graph.files()


def test_a_layer_kept_float_is_out_of_its_scope(floats: Graph, tmp_path: Path) -> None:
    graph, _ = made(floats, tmp_path, keep_float=("conv1",))
    assert ran(graph, tmp_path / "engine") == {"int8": 3, "fp32": 1}
    with pytest.raises(StageError, match="no layer is called 'conv9'"):
        made(floats, tmp_path / "x", keep_float=("conv9",))
    assert not (tmp_path / "x" / "q").exists()


def test_the_same_limits_as_of_other_files(floats: Graph, tmp_path: Path) -> None:
    ctx = context(tmp_path / "c", target=openvino())
    with pytest.raises(ParityError, match="SQNR"):
        Quantizer(floats, ctx, 16).make(START, tmp_path / "q", Tolerance(80.0, 0.8))
    with pytest.raises(StageError, match="engine nncf has no equalization"):
        made(floats, tmp_path, equalization=True)


def test_the_stage_takes_nncf_unless_another_is_asked_for(floats: Graph, tmp_path: Path) -> None:
    ctx = context(tmp_path / "c", target=openvino())
    Quantize(samples=16).run(floats, ctx)
    assert Graph.load(ctx.out).facts["options"] == START.to_json()
    with pytest.raises(UnsupportedError, match=r"engine edgecv makes no int8 of OpenVINO IR.*nncf"):
        Quantize(engine="edgecv").run(floats, ctx)


def test_without_nncf_the_extra_is_named(
    floats: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent").mkdir()
    text = 'raise ModuleNotFoundError("No module named \'nncf\'", name="nncf")\n'
    (tmp_path / "absent" / "nncf.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "absent"))
    said = re.escape(f"nncf is not installed ({cure('nncf', 'nncf')})")
    with pytest.raises(MissingExtraError, match=said):
        made(floats, tmp_path)
    assert not (tmp_path / "q").exists()
