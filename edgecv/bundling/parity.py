"""A compiled network beside what it was made of, run by something else than the kernels under test.

    float graph ─ node by node ─▶ answers ─┐ graph: what the integers cost
    graph ─────── node by node ─▶ answers ─┤ compiled: what the engine's own kernels change
    bundle ────── its engine ───▶ answers ─┘ float: what a user gets, and what is printed

Node by node is ONNX Runtime without its optimiser, LiteRT without XNNPACK: an engine that fuses
layers wrongly is not compared with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgecv import fidelity
from edgecv.backends import facts, reference
from edgecv.bundling.inference import (
    Answers,
    fused_session,
    last_answers,
    plain_answers,
    sample,
    saturated_here,
    session_answers,
)
from edgecv.bundling.steadiness import explained
from edgecv.errors import NotFiniteError, ParityError
from edgecv.fidelity import Parity, Tolerance
from edgecv.graph import Graph
from edgecv.runtime.fidelity import kinds
from edgecv.runtime.preprocess import Preprocess
from edgecv.samples import Feeds, Given
from edgecv.target import Target

# Other rounding costs a network of integers some decibels against float: told beyond TOLD_DB, an
# error beyond LOST_DB or where less than COMPILE_INT8 is left; above ENOUGH_DB nothing is said.
TOLD_DB, LOST_DB, ENOUGH_DB = 6.0, 12.0, 35.0
AS_NEAR_DB = 1.0
Served = Callable[[Answers, Answers], bool]  # (float's, the bundle's)
IMAGES = 4  # that a layer is looked for on
IN_RECIPES = "in a recipe: quantize: keep_float"


def bundle_parity(
    where: str,
    graph: Graph,
    floats: Graph | None,
    target: Target,
    session: Any,
    pixels: Given,
    preprocess: Preprocess,
    made_up: bool = False,
    files: Mapping[str, bytes] | None = None,
    served: Served | None = None,
) -> tuple[dict[str, Any], Answers, list[str]]:
    """{"compiled": against the graph, "graph": the graph against float, or None where it is float,
    "float": the bundle against float, or None where no float network is known (a file that came
    quantized is none)}, its answers, and
    what is doubtful of the engine's kernels, a sentence each.

    floats: the float graph that an int8 or fp16 graph was made of. session: of the compiled bundle.
    Where this processor's integers saturate and the target's do not, "float" is the graph's own.
    files: of the bundle; with them the layer is named at which its engine leaves the graph.
    served: of a graph that its task judged: whether the bundle's answers serve it as well, beside
    float's; two ways of rounding may be far apart by SQNR where both do
    Raises ParityError: the engine answers something else than the file says.
    """
    try:
        return _bundle_parity(
            where, graph, floats, target, session, pixels, preprocess, made_up, served
        )
    except NotFiniteError:
        raise  # of what no engine has made
    except ParityError as e:
        known = explained(e, graph, pixels, preprocess)
        if known is not e or not files or not facts(reference(graph.format)).unfused:
            raise known from None
        raise _blamed(e, graph, target.backend, files, pixels, preprocess) from None


def _blamed(
    error: ParityError,
    graph: Graph,
    engine: str,
    files: Mapping[str, bytes],
    pixels: Given,
    preprocess: Preprocess,
) -> ParityError:
    """The same error with the layer at which the engine's kernels leave the graph."""
    from edgecv.diagnosis.parity.blame import called, first_wrong_layer

    xs = list(Feeds(sample(pixels, IMAGES), graph.inputs, preprocess, first=True))
    found = first_wrong_layer(graph, engine, files, xs)
    if found is None:
        fp32 = "" if graph.precision == "fp32" else "ship it in fp32, or "
        return ParityError(error.where, error.what, f"{fp32}take another engine")
    name = called(found)
    reads = f", what it reads {found.inputs_db:.1f} dB" if found.inputs_db is not None else ""
    what = f"{error.what}; first at layer {name!r} ({found.energy.sqnr_db:.1f} dB{reads})"
    hint = f"keep it in float: --keep-float {name} ({IN_RECIPES})"
    if graph.precision == "fp32":
        hint = "the engine computes it otherwise: say it with other operators, or take another"
    return ParityError(error.where, what, hint)


def _bundle_parity(
    where: str,
    graph: Graph,
    floats: Graph | None,
    target: Target,
    session: Any,
    pixels: Given,
    preprocess: Preprocess,
    made_up: bool,
    served: Served | None,
) -> tuple[dict[str, Any], Answers, list[str]]:
    named = kinds(graph.outputs)
    answers = session_answers(session, pixels, preprocess)
    _same_shapes(where, named, answers)
    plain = plain_answers(graph, pixels, preprocess)
    own = target.grid.reduce_range or facts(target.backend).exact
    away = saturated_here(graph) and not own
    beside = last_answers(fused_session(graph), pixels, preprocess) if away else plain
    compiled, apart = _compiled(where, graph, beside, answers, named, made_up)
    told: list[str] = []
    found: dict[str, Parity | None] = {"compiled": compiled, "graph": None, "float": None}
    if graph.precision in ("fp32", "bf16"):
        found["float"] = compiled
    elif floats is not None and floats.precision != graph.precision:  # else it came quantized
        reference = plain_answers(floats, pixels, preprocess)
        loose = Tolerance(-np.inf, 0.0)  # how far integers may be is the quantizer's to say
        simulated = fidelity.check(where, reference, plain, loose, named, made_up)
        ran = plain if away else answers
        real = fidelity.check(where, reference, ran, loose, named, made_up)
        told = list(lost(where, simulated, real, graph.bounds))
        if (
            apart
            and not away
            and (_as_near(simulated, real) or (served is not None and served(reference, answers)))
        ):
            apart = None
        found |= {"graph": simulated, "float": real}
    if apart:
        raise apart
    return {k: v.to_json() if v else None for k, v in found.items()}, answers, told


def _compiled(
    where: str, graph: Graph, beside: Answers, answers: Answers, named: Mapping[str, str],
    made_up: bool,
) -> tuple[Parity, ParityError | None]:  # fmt: skip
    """The bundle against its graph, and why that is too far where it is."""
    try:
        tolerance = _tolerance(graph)
        return fidelity.check(where, beside, answers, tolerance, named, made_up, graph.bounds), None
    except ParityError as e:
        loose = Tolerance(-np.inf, 0.0)
        return fidelity.check(where, beside, answers, loose, named, made_up), e


def _as_near(graph: Parity, compiled: Parity) -> bool:
    """Whether a bundle of integers is as near float as its graph is: where much is lost in both,
    two ways of rounding are as far from each other as each is from float, and none is wrong."""
    mine, other = (p.outputs or {"": p} for p in (compiled, graph))
    return all(one.sqnr_db >= other[name].sqnr_db - AS_NEAR_DB for name, one in mine.items())


def _tolerance(graph: Graph) -> Tolerance:
    one_bit = graph.facts.get("one_bit") and graph.precision == "fp32"
    return fidelity.EXPORT_ONE_BIT if one_bit else fidelity.COMPILE[graph.precision]


def _same_shapes(where: str, named: Mapping[str, str], answers: Answers) -> None:
    if len(named) != len(answers):
        what = f"has {len(answers)} outputs compiled, {len(named)} in the graph"
        raise ParityError(where, what, "report this")


def lost(
    where: str, graph: Parity, compiled: Parity, bounds: Mapping[str, float] | None = None
) -> Iterator[str]:
    """A sentence for each output on which the engine's kernels add more noise than the same
    integers node by node, both against float. bounds: `Graph.bounds`. Raises ParityError: far more,
    or too much is left."""
    parts = compiled.outputs or {"": compiled}
    for name, one in parts.items():
        bound = (bounds or {}).get(name, 0.0) if name else max((bounds or {"": 0.0}).values())
        if one.max_abs_error <= fidelity.COMPILE_INT8.rounding * bound:
            continue
        simulated = (graph.outputs[name] if name else graph).sqnr_db
        if one.sqnr_db >= min(simulated - TOLD_DB, ENOUGH_DB):
            continue
        what = (
            f"the engine's kernels answer {one.sqnr_db:.1f} dB from float, the same integers node "
            f"by node {simulated:.1f} dB"
        )
        hint = "`edgecv parity` of the bundle names the layer; --keep-float leaves it out of int8"
        least = fidelity.COMPILE_INT8.min_sqnr_db
        if one.sqnr_db < least or one.sqnr_db < simulated - LOST_DB:
            raise ParityError(f"{where}: output {name!r}" if name else where, what, hint)
        yield f"{f'output {name!r}: ' if name else ''}{what}; {hint}"
