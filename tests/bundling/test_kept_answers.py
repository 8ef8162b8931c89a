"""Answers that are kept beside a graph count for just what was asked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.backends.tflite import run
from edgecv.bundling import inference, kept_answers
from edgecv.bundling.inference import plain_answers
from edgecv.graph import Graph
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import Probe
from tests.backends.tflite_graphs import float_graph, images, int8_graph

TAKES = Preprocess((24, 24), 3, (127.0,), (64.0,), 1.0, layout="NHWC")
PIXELS = (images()[:3] * 64 + 127).astype(np.uint8)


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    shutil.copytree(float_graph().path.parent, tmp_path / "graph")
    return Graph.load(tmp_path / "graph")


def asked_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that the engine was asked of from now on."""
    asked, plain = list[Graph](), inference.plain_session
    monkeypatch.setattr(inference, "plain_session", lambda g: (asked.append(g), plain(g))[1])
    return asked


def test_the_same_question_is_asked_once(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, pixels = asked_of_the_engine(monkeypatch), PIXELS
    first = plain_answers(graph, pixels, TAKES)
    assert len(asked) == 1
    assert not graph.path.with_name(kept_answers.FILE).exists()
    plain_answers(graph, pixels, TAKES, keep=True)
    again = plain_answers(Graph.load(graph.path.parent), pixels, TAKES)
    assert len(asked) == 2
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_question_is_asked_anew(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = PIXELS
    want = plain_answers(graph, pixels, TAKES, keep=True)
    asked = asked_of_the_engine(monkeypatch)
    plain_answers(graph, pixels[:2], TAKES)
    plain_answers(graph, pixels[::-1], TAKES)
    plain_answers(graph, pixels, replace(TAKES, mean=(3.0,)))
    with monkeypatch.context() as patch:
        patch.setattr(run, "probe", lambda: Probe("tflite", True, "0.1"))
        plain_answers(graph, pixels, TAKES)
    assert len(asked) == 4
    graph.path.write_bytes(int8_graph().path.read_bytes())
    assert not np.array_equal(plain_answers(graph, pixels, TAKES)[0], want[0])
    assert len(asked) == 5


def test_large_answers_are_not_kept(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "LARGEST", 10)
    plain_answers(graph, PIXELS, TAKES, keep=True)
    assert not graph.path.with_name(kept_answers.FILE).exists()
