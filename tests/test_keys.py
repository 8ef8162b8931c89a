"""An edit of a file, or another version of a library, makes exactly what hangs on it again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).parent.parent


def _make_keys():
    spec = importlib.util.spec_from_file_location("make_keys", ROOT / "scripts" / "make_keys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


keys = _make_keys()
TARGETS = ("cpu", "openvino", "tflite", "tensorrt", "c")
TRAINED = {"dense", "narrow", "factored", "sparse", "separable", "bits", "learned", "small"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    return keys.Workshop(tmp_path_factory.mktemp("keys"))


def bundles(shop, target: str) -> set[str]:
    return {n for n in shop.before if n.startswith("bundle:") and n.endswith(f"@{target}")}


def test_the_page_is_what_editing_a_file_of_every_room_gives() -> None:
    said = keys.PAGE.read_text().splitlines()
    pytest.importorskip("tensorrt_rtx")  # libraries that are not here cannot be told
    assert keys.page().splitlines() == said, "run scripts/make_keys.py"


def test_an_edit_of_training_redoes_what_trains_and_what_reads_it(shop) -> None:
    with shop.touched("methods/training/loop.py"):
        assert shop.own() == TRAINED
        assert shop.rerun() == set(shop.before) - {
            "data:train", "data:test", "model", "small:student"
        }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["\n# a comment\n", "\n\n\n", '\n\ndef _said():\n    """Words."""\n']
)
def test_words_redo_nothing_and_a_function_does(shop, text: str) -> None:
    with shop.touched("methods/training/loop.py", text):
        assert bool(shop.rerun()) == ("def" in text)


@pytest.mark.parametrize("kind", ["data", "model", "measure"])
def test_how_a_node_is_made_counts_for_its_kind_alone(shop, kind: str) -> None:
    with shop.touched(f"plan/makers/{kind}.py"):
        found = {"model", "small:student"} if kind == "model" else set()
        assert shop.own() == (found or {n for n in shop.before if n.startswith(f"{kind}:")})


def test_a_module_that_a_child_process_runs_counts(shop) -> None:
    with shop.touched("measuring/row_times.py"):
        measured = {"narrow", "factored", *(f"searched@{t}" for t in TARGETS)}
        assert shop.own() == measured


def test_an_engine_is_its_own_targets_matter(shop) -> None:
    with shop.touched("backends/openvino/compile.py"):
        told = shop.own()
    assert told == bundles(shop, "openvino") | {
        "measure:openvino", "searched@openvino", "factored"
    }  # fmt: skip
    with shop.upgraded("openvino"):
        assert shop.own() == told


def test_a_plug_in_of_the_converter_counts(shop) -> None:
    with shop.upgraded("litert-converter"):
        assert {n for n in shop.before if n.endswith(".tflite")} <= shop.own()


def test_a_graph_hangs_on_its_own_format_alone(shop) -> None:
    with shop.upgraded("ai-edge-litert"):
        told = shop.own()
    assert "int8@tflite" in told
    assert not {n for n in told if n.endswith(".onnx")} | (told & {"int8@cpu", "int8@openvino"})
    with shop.touched("methods/quantize/onnx_qdq.py"):
        assert "int8@cpu" in (told := shop.own())
        assert "int8@tflite" not in told


def test_what_measures_hangs_on_the_formats_of_its_own_targets(shop) -> None:
    onnx = {f"searched@{t}" for t in TARGETS if t != "tflite"}
    with shop.touched("methods/quantize/onnx_qdq.py"):
        assert {n for n in shop.own() if n.startswith("searched")} == onnx
    with shop.upgraded("onnxruntime"):
        assert "int8@tflite" not in (told := shop.own())
        assert {n for n in told if n.startswith("searched")} == onnx
    with shop.touched("methods/export/tflite.py"):
        told = shop.own()
    assert {"dense.tflite", "factored"} <= told
    assert not told & {*onnx, "narrow", "searched@tflite"}  # that one reads the file it made
    with shop.touched("methods/quantize/tflite_int8.py"):
        told = shop.own()
    assert {"searched@tflite", "int8@tflite"} <= told
    assert not told & {*onnx, "narrow"}


@pytest.mark.parametrize("library", ["onnxruntime", "ai-edge-litert", "openvino", "onnx"])
def test_no_engine_s_upgrade_trains_a_network_again(shop, library: str) -> None:
    with shop.upgraded(library):
        measured = {"narrow", "factored"}
        assert not shop.own() & ({"model", "small:student"} | TRAINED) - measured


@pytest.mark.parametrize(
    "name",
    [
        "report/page.py",
        "commands/run.py",
        "console.py",
        "cli.py",
        "diagnosis/why/explain.py",
        "api/run.py",
    ],
)
def test_what_prints_redoes_nothing(shop, name: str) -> None:
    with shop.touched(name):
        assert shop.rerun() == set()


def test_training_does_not_hang_on_what_packs_measures_or_runs_commands(shop) -> None:
    held = set(shop.before["dense"]["code"])
    timed = ("benchmark.measure", "benchmark.sampling")
    rooms = (*timed, "bundling.build", "measuring", "report", "commands")
    assert not {m for m in held if m.startswith(tuple(f"edgecv.{room}" for room in rooms))}
    assert not {m for m in held if m.startswith("edgecv.stages.") and m not in (
        "edgecv.stages.base", "edgecv.stages.train"
    )}  # fmt: skip


def test_fewer_cores_redo_no_step_of_one_thread(shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.benchmark import machine

    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    assert shop.rerun() == set()
    assert machine.processor(4)["cores"] == 4
