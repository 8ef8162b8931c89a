"""Starting a bundle in a process of its own: its costs, its memory, what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from edgecv.benchmark.startup import cold
from edgecv.errors import BundleError, EngineError
from edgecv.runtime.archive import write_bundle
from tests.runtime.conftest import described, golden, network


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """bundle(name) -> a bundle of a tiny real network."""

    def make(name: str, goldens: bool = True, engine: bytes | None = None) -> Path:
        model, manifest = network(), described()
        arrays = golden(model, manifest) if goldens else ({}, {})
        files = {"model.onnx": engine or model}
        return write_bundle(tmp_path / f"{name}.edgecv", manifest, files, *arrays)

    return make


def test_what_a_start_costs_and_what_it_loads(
    bundle: Callable[..., Path], site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = """
import atexit, pathlib, sys
path = pathlib.Path(__file__).with_name("loaded.txt")
atexit.register(lambda: path.write_text("\\n".join(sys.modules)))
"""
    folder = site(listed)
    monkeypatch.syspath_prepend(str(folder))  # children search where this process does
    found = cold(bundle("a"), threads=2)
    json.dumps(found, allow_nan=False)
    assert set(found) == {"import_ms", "load_ms", "first_call_ms", "memory_mb"}
    assert all(found[key] > 0 for key in ("import_ms", "load_ms", "first_call_ms"))
    memory = found["memory_mb"]
    assert set(memory) == {"before", "steady", "peak"}
    assert 5 < memory["before"] < memory["steady"], "an engine takes memory"
    # The kernel's resident pages and their high-water mark lag behind each other a little.
    assert memory["steady"] <= memory["peak"] + 2
    loaded = set((folder / "loaded.txt").read_text().splitlines())
    assert {"numpy", "onnxruntime"} <= loaded
    assert not {"torch", "onnx", "pydantic", "rich", "yaml", "PIL"} & loaded


def test_a_bundle_without_goldens_is_loaded_and_never_called(bundle: Callable[..., Path]) -> None:
    found = cold(bundle("bare", goldens=False))
    assert found["first_call_ms"] is None
    assert found["load_ms"] > 0
    assert found["memory_mb"]["peak"] >= found["memory_mb"]["before"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.edgecv: no such file"):
        cold(tmp_path / "none.edgecv")


def test_a_network_that_the_engine_refuses_is_named(bundle: Callable[..., Path]) -> None:
    path = bundle("broken", goldens=False, engine=b"no model")
    with pytest.raises(EngineError, match=r"broken\.edgecv"):
        cold(path)
