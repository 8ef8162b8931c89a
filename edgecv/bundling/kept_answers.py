"""What a graph answers node by node, kept beside its file by the step that found it.

A step compares the graph that it makes with what it was made of; making it a bundle compares it
once more, most often on the same images, and those engines are slow. What is kept counts for the
same file, the same numbers going in, and the same version of the engine.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.files import digest, file_sha256
from edgecv.samples import Given, samples_of

if TYPE_CHECKING:
    from edgecv.graph import Graph
    from edgecv.runtime.preprocess import Preprocess

FILE = "answers.npz"
LARGEST = 1 << 23  # bytes: a network that answers with images is asked again


def question(graph: Graph, pixels: Given, preprocess: Preprocess, version: str | None) -> str:
    """Digest of all that the answers hang on. version: of the engine that answers"""
    samples = samples_of(pixels)
    seen, shape = samples.digest(), samples.pixels.shape
    files = [file_sha256(path) for path in graph.beside]
    return digest([*files, seen, shape, asdict(preprocess), version])


def keep(graph: Graph, asked: str, answers: tuple[np.ndarray, ...]) -> None:
    """Keep them with the graph. Only for the step that writes the graph's folder."""
    if sum(a.nbytes for a in answers) > LARGEST:
        return
    rows: dict[str, Any] = {f"output_{i}": a for i, a in enumerate(answers)}
    np.savez(graph.path.with_name(FILE), question=np.array(asked), **rows)


def kept(graph: Graph, asked: str) -> tuple[np.ndarray, ...] | None:
    """The answers to just that, or None."""
    path = graph.path.with_name(FILE)
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as found:
        if str(found["question"]) != asked:
            return None
        return tuple(found[f"output_{i}"] for i in range(len(found.files) - 1))
