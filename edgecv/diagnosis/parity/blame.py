"""The layer at which an engine's own kernels leave the graph that they were compiled from.

graph, node by node ──┐
                      ├─▶ the first layer below a level whose inputs are above it
bundle, its engine ───┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from edgecv.backends import has, reference
from edgecv.diagnosis.parity.bisection import Divergence, first_divergence
from edgecv.diagnosis.parity.layers import Form, Sample
from edgecv.errors import EdgecvError
from edgecv.graph import Graph
from edgecv.runtime.fidelity import BEST_DB
from edgecv.runtime.layers import from_scope

# Of the layers found at each, the one that loses most.
LEVELS_DB = {"int8": (10.0, 15.0, 20.0, 30.0), "fp32": (20.0, 40.0, 60.0, 80.0)}


def first_wrong_layer(
    graph: Graph, engine: str, files: Mapping[str, bytes], xs: Sequence[Sample]
) -> Divergence | None:
    """files: of the bundle. xs: float32 (1, C, H, W), normalised. None where no layer stands out,
    or the engine cannot be looked into."""
    if not has(engine, "inside") or graph.precision not in LEVELS_DB:
        return None
    forms: list[Form] = []
    try:
        plain = _inside(reference(graph.format))
        a = plain.opened({graph.path.name: graph.path.read_bytes()}, "graph", plain=True)
        forms.append(a)
        b = _inside(engine).opened(files, "bundle")
        forms.append(b)
        found = [first_divergence(a, b, xs, db) for db in LEVELS_DB[graph.precision]]
        return max((d for d in found if d is not None), key=_drop, default=None)
    except EdgecvError:
        return None  # what is to be said is said without a name
    finally:
        for form in forms:
            form.close()


def _drop(found: Divergence) -> float:
    """dB that the layer loses on what it reads."""
    reads = BEST_DB if found.inputs_db is None else found.inputs_db
    return reads - found.energy.sqnr_db


def _inside(engine: str) -> Any:
    return import_module(f"edgecv.backends.{engine}.inside")


def called(found: Divergence) -> str:
    """The layer as `keep_float` takes it."""
    name = found.pair.a.name
    return from_scope(name) or name
