"""Sessions and bundles of every engine: after close a call raises, and eight threads at once are
answered as one is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import target
from edgecv.backends import compile_module, run_module
from edgecv.binary import build
from edgecv.errors import BundleError, EngineError
from edgecv.runtime.archive import read_bundle, write_bundle
from edgecv.runtime.bundle import Bundle, opened
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.turn import Turn

THREADS, CALLS = 8, 40


def _files(engine: str, room: Path) -> dict[str, bytes]:
    """The engine's files of a small residual network."""
    if engine in ("tflite", "edgetpu"):
        graphs = pytest.importorskip("tests.backends.tflite_graphs")
        return {"model.tflite": graphs.float_graph().path.read_bytes()}
    graphs = pytest.importorskip("tests.backends.onnx_graphs")
    profile = target.load("cpu" if engine == "onnxruntime" else engine)
    compiled = compile_module(engine).compile(graphs.float_graph(room / "graph"), profile, room)
    return {name: (room / name).read_bytes() for name in compiled.files}


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "tflite", "edgetpu", "c"])
def packed(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Path]:
    """A bundle of each engine that runs here; the Edge TPU's own file without an Edge TPU."""
    engine = request.param
    if engine == "c" and build.compiler() is None:
        pytest.skip("no C compiler")
    room = tmp_path_factory.mktemp(engine)
    trusted = os.environ.get("EDGECV_TRUST_SOURCE")
    os.environ["EDGECV_TRUST_SOURCE"] = "1"
    try:
        files = _files(engine, room)
        session = run_module(engine).Session(files)
        (spec,) = session.inputs
        layout = "NCHW" if spec.shape[1] == 3 else "NHWC"
        size = spec.shape[2:] if layout == "NCHW" else spec.shape[1:3]
        eyes = Preprocess(size, 3, (127.0,), (64.0,), 1.0, layout=layout)
        manifest = {
            **dict.fromkeys(("name", "target"), "tiny"),
            "task": "classification", "engine": engine, "precision": "fp32",
            "input": {"name": spec.name, "shape": spec.shape, "preprocess": eyes.to_json()},
            "inputs": [spec.to_json()], "outputs": [t.to_json() for t in session.outputs],
        }  # fmt: skip
        yield write_bundle(room / "tiny.edgecv", manifest, files, {}, {})
    finally:
        os.environ.pop("EDGECV_TRUST_SOURCE")
        if trusted is not None:
            os.environ["EDGECV_TRUST_SOURCE"] = trusted


def _images(bundle: Bundle) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, (16, 1, 1, 3)) + rng.integers(
        0, 56, (16, *bundle.preprocess.size, 3)
    )
    return list(grey.astype(np.uint8))


def _at_once(call: Callable[[int], Any]) -> list[Any]:
    """call(i) for many i from eight threads that start together."""
    ready = threading.Barrier(THREADS)

    def work(thread: int) -> list[tuple[int, Any]]:
        ready.wait()
        turns = [(thread * 5 + k) % 16 for k in range(CALLS)]
        return [(i, call(i)) for i in turns]

    with ThreadPoolExecutor(THREADS) as pool:
        return [one for done in pool.map(work, range(THREADS)) for one in done]


def test_eight_threads_are_answered_as_one_is(packed: Path) -> None:
    bundle = opened(read_bundle(packed))
    images = _images(bundle)
    alone = [bundle(image) for image in images]
    assert len({tuple(a) for a in alone}) == 16  # a mixed-up answer would show
    for i, answer in _at_once(lambda i: bundle(images[i])):
        assert answer == alone[i]


def test_eight_threads_on_the_session_itself(packed: Path) -> None:
    bundle = opened(read_bundle(packed))
    name, result = bundle.inputs[0].name, bundle.outputs[0].name
    feeds = [{name: bundle.preprocess(image)} for image in _images(bundle)]
    alone = [bundle.session.run(feed)[result] for feed in feeds]
    for i, answer in _at_once(lambda i: bundle.session.run(feeds[i])[result]):
        np.testing.assert_array_equal(answer, alone[i])
    for i, answer in _at_once(lambda i: bundle.run(feeds[i])[result]):
        np.testing.assert_array_equal(answer, alone[i])


def test_after_close_every_call_raises(packed: Path) -> None:
    bundle = opened(read_bundle(packed))
    image = _images(bundle)[0]
    feeds = {bundle.inputs[0].name: bundle.preprocess(image)}
    before = bundle.run(feeds)
    bundle.close()
    bundle.close()
    for call in (lambda: bundle(image), lambda: bundle.run(feeds)):
        with pytest.raises(BundleError, match="was closed"):
            call()
    session = bundle.session
    for inner in (lambda: session.run(feeds), session.executed, lambda: session.profile(feeds)):
        with pytest.raises(EngineError, match="was closed"):
            inner()
    again = opened(read_bundle(packed))
    for name, array in again.run(feeds).items():
        np.testing.assert_array_equal(array, before[name])  # what was handed out stays whole


def test_closed_while_others_run(packed: Path) -> None:
    """Whoever comes after the close is told; nobody is answered wrongly."""
    bundle = opened(read_bundle(packed))
    images = _images(bundle)
    alone = [bundle(image) for image in images]

    def call(i: int) -> Any:
        if i == 15:
            bundle.close()
        try:
            return bundle(images[i])
        except BundleError:
            return None

    answers = _at_once(call)
    assert any(answer is None for _, answer in answers)
    assert all(answer in (None, alone[i]) for i, answer in answers)


def test_two_threads_that_open_do_not_lose_stderr(packed: Path) -> None:
    """LiteRT's own words are kept from descriptor 2, which is the whole process's."""
    contents = read_bundle(packed)
    if contents.manifest["engine"] != "tflite":
        pytest.skip("prints nothing of its own")
    before = os.fstat(2)
    _at_once(lambda i: opened(contents).close() if i < 8 else None)
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (before.st_dev, before.st_ino)


def test_a_turn_waits_for_the_one_before() -> None:
    turn, inside, order = Turn("engine"), threading.Event(), []

    def first() -> None:
        with turn:
            inside.set()
            order.append("in")
            with turn:  # nested, by the same thread
                order.append("out")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    assert turn.end()
    assert not turn.end()
    thread.join()
    assert order == ["in", "out"]
    with pytest.raises(EngineError, match="was closed"), turn:
        pass
