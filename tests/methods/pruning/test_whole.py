"""Networks and layers on a real engine, in float and in int8."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from edgecv import target  # noqa: E402
from edgecv.context import Context  # noqa: E402
from edgecv.measuring.run import Measuring  # noqa: E402
from edgecv.methods.pruning import groups, tables  # noqa: E402
from edgecv.methods.pruning.shapes import example_of, shapes  # noqa: E402
from edgecv.methods.pruning.whole import Whole  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.runtime.archive import read_bundle  # noqa: E402
from edgecv.stages.prune import Prune  # noqa: E402
from tests import networks as nets  # noqa: E402


def context(room: Path) -> Context:
    """One whose images lie on disk, as a run's do."""
    folders = {s: room / s for s in ("train", "test")}
    made = nets.context(
        room / "out",
        where="small",
        targets=(target.load("cpu"),),
        folders=folders,
        doing=Measuring(),
    )
    for split, folder in folders.items():
        made.images(split).save(folder)
    return made


@pytest.mark.parametrize(("integer", "kind"), [(False, "fp32"), (True, "int8")])
def test_a_whole_network_is_measured_in_the_precision_asked_for(
    integer: bool, kind: str, tmp_path: Path
) -> None:
    dense = nets.seeded(nets.PRUNABLE["residual"]).eval()
    made = Whole(dense, context(tmp_path), target.load("cpu"), tmp_path, integer)
    found = made.measure(copy.deepcopy(dense))
    assert 0.3 < found.ratio < 3, "a network beside itself"
    assert found.ms > 0
    assert found.dense_ms > 0
    bundles = sorted(tmp_path.glob("bundle-*/*.edgecv"))
    manifests = [read_bundle(path).manifest for path in bundles]
    assert [m["precision"] for m in manifests] == [kind, kind]
    assert all(kind in m["executed"] for m in manifests)


@pytest.mark.parametrize("integer", [False, True])
def test_layers_are_measured_and_kept(integer: bool, tmp_path: Path) -> None:
    module, room = nets.seeded(nets.PRUNABLE["residual"]).eval(), context(tmp_path)
    shape = shapes(module, groups.find(module, example_of(room), "small", ()), example_of(room))
    options = [[width // 2, width] for width in shape.full]
    table = tables.on_target(target.load("cpu"), room, tmp_path, integer)
    table.fill(shape, options)
    assert table.known
    assert min(table.known.values()) > 0
    again = tables.on_target(target.load("cpu"), room, tmp_path, integer)
    assert again.known == table.known, "kept for the next step"
    other = tables.on_target(target.load("cpu"), room, tmp_path, not integer)
    assert other.known == {}, "of the other precision nothing is known yet"


def test_pruned_for_the_time_of_int8(tmp_path: Path) -> None:
    args, room = {"width": 64, "classes": nets.CLASSES}, context(tmp_path)
    stage = Prune(latency_ratio=0.6, precision="int8", align=16, method="l2", finetune_epochs=0)
    stage.run((Model("zoo:resnet8", args), zoo.build("resnet8", **args)), room)
    (told,) = Model.read(room.out).facts["small"]["rounds"]
    assert told["target"] == "cpu"
    assert 0 < told["ms"] < 1.5 * told["dense_ms"]
    assert 0.3 < told["reached"] < 1.1, "measured, on a busy machine"
