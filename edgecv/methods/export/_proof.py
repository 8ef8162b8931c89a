"""A rewritten ONNX graph against the one that came in: ONNX Runtime, all optimisations off.

Random images go through both; ‖a − b‖ / ‖a‖ may be a few roundings of float32, no more. What is
more is a rewrite at fault, and it is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecv.errors import ModelError
from edgecv.graphs.onnx.bounded import KERNEL, bounded
from edgecv.graphs.onnx.canonical import REWRITES
from edgecv.graphs.onnx.canonical.precision import other_floats

# ‖a − b‖ / ‖a‖: batch norms that are folded and sums in another order leave some 1e-6 of a deep
# network, a float16 file in float32 some 1e-3.
UNSTEADY = 4.0  # times what a millionth of the input does to the original's own answers
NEAR, NEAR_HALF = 3e-5, 3e-2
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
          "Multinomial", "Dropout")  # fmt: skip
_NODE = re.compile(
    r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' "
    r"Status Message: (?:\S+:\d+ .*?\) )?(.*)"
)
_UNKNOWN = re.compile(r"([\w.]+):(\w+)\(-?\d+\) is not a registered function/op")
_TOO_NEW = re.compile(r"till opset (\d+)")
_UNREGISTERED = re.compile(r"No Op registered for (\w+) with domain_version of (\d+)")
_NO_KERNEL = re.compile(r"find an implementation for (\w+)\(\d+\) node with name '(.*?)'")
Feed = dict[str, np.ndarray]
Run = Callable[[Feed], list[np.ndarray]]
Taken = Callable[[Feed], Feed]


def plain_runner(model: Any, where: str) -> Run:
    """A feed in, every output out, each node by itself. Raises ModelError in a sentence."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:
        raise refused(e, model, where) from None
    names = [o.name for o in session.get_outputs()]

    def run(feed: Feed) -> list[np.ndarray]:
        try:
            return list(session.run(names, feed))
        except Exception as e:
            shapes = " and ".join(str(v.shape) for v in feed.values())
            raise ModelError(where, f"does not run on inputs of {shapes}: {said(e)}",
                             "check the input's shape") from None  # fmt: skip

    return run


def refused(error: Exception, model: Any, where: str) -> ModelError:
    """A file that ONNX Runtime does not open, by the node at fault where that is known."""
    text = " ".join(str(error).split())
    if found := _UNKNOWN.search(text):
        domain, op = found.groups()
        what = f"is of domain {domain!r}, whose operators are in no library here"
        return _unknown(model, where, domain, op, what)
    if found := _UNREGISTERED.search(text):
        op, opset = found.groups()
        what = f"is no operator of ONNX's opset {opset}: one of another library, with no domain"
        return _unknown(model, where, "", op, what)
    if found := _TOO_NEW.search(text):
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        what = f"is of opset {opset}, and ONNX Runtime {_version()} reads up to {found[1]}"
        return ModelError(where, what, "export it with opset 18 to 22, or take a newer onnxruntime")
    if found := _NO_KERNEL.search(text):
        op, name = found.groups()
        what = "ONNX Runtime has no kernel of it for a CPU"
        return ModelError(f"{where}: node {name!r} ({op})", what,
                          "export it with other operators, or in float32")  # fmt: skip
    return ModelError(
        where, f"ONNX Runtime refuses it: {said(error)}", "check it with onnx.checker"
    )


def _unknown(model: Any, where: str, domain: str, op: str, what: str) -> ModelError:
    """An operator that nobody here knows, and the tensor in front of it."""
    node = next((n for n in model.graph.node if n.op_type == op and n.domain == domain), None)
    name = (node.name or node.output[0]) if node else op
    made = {n for other in model.graph.node for n in other.output if n}
    cut = next((n for n in node.input if n in made), "") if node else ""
    way = f", or end the graph in front of it (--until {cut})" if cut else ""
    return ModelError(
        f"{where}: node {name!r} ({op})", what, f"export it with ONNX's own operators{way}"
    )


def _version() -> str:
    import onnxruntime as ort

    return str(ort.__version__)


def said(error: Exception) -> str:
    """What ONNX Runtime says, on one line, without its own codes."""
    line = " ".join(str(error).split())
    if line.startswith("[ONNXRuntimeError]"):
        line = line.split(" : ", 3)[-1]
    found = _NODE.match(line)
    if found:
        op, name, why = found.groups()
        line = f"node {name!r} ({op}): {why}"
    return line[:300] or type(error).__name__


def learn_shapes(model: Any) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor, from one run on zeros."""
    import onnx

    from edgecv.graphs.onnx.draft import inferred

    every = onnx.ModelProto()
    every.CopyFrom(model)
    names = [n for node in every.graph.node for n in node.output if n]
    del every.graph.output[:]
    every.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    shapes = inferred(model)
    feed = {v.name: np.zeros(shapes[v.name], _kind(v)) for v in _sources(model)}
    try:
        found = plain_runner(every, "")(feed)
    except ModelError:
        return {}  # whoever asked says which node it is about
    return {n: tuple(v.shape) for n, v in zip(names, found, strict=True)
            if isinstance(v, np.ndarray)}  # fmt: skip


def prove(
    original: Any, made: Any, where: str, again: Callable[[str], Any], taken: Taken | None = None
) -> None:
    """Raises ModelError unless both compute the same on random numbers.

    made:  the model that was made of `original`; its inputs are static, its image float32
    again: the rewrites up to the one of that name, for the one at fault
    taken: how a feed of `made` looks to `original`
    """
    taken = taken or (lambda x: x)
    kinds = {v.name: _kind(v) for v in _sources(original)}
    rng = np.random.default_rng(0)
    images = [{v.name: _random(rng, v, kinds[v.name]) for v in _sources(made)} for _ in range(2)]
    try:
        first = plain_runner(original, where)
    except ModelError:
        doubles = any(k.kind == "f" and k != np.float32 for k in kinds.values())
        if not doubles and not other_floats(original.graph):
            raise
        # there are few kernels for doubles: then the same network in floats is what is compared
        first, taken = plain_runner(again("precision"), where), lambda x: x
    answers = [first(taken(x)) for x in images]
    if not all(_far(a, b) == 0 for a, b in zip(answers[0], first(taken(images[0])), strict=True)):
        odd = [n for n in original.graph.node if n.op_type in RANDOM] or [original.graph.node[0]]
        place = f"{where}: node {odd[0].name or odd[0].output[0]!r} ({odd[0].op_type})"
        raise ModelError(place, "answers differently each time", "export it in evaluation mode")
    near = NEAR_HALF if _half(original) else NEAR
    if (error := _error(answers, made, images, where)) <= near:
        return
    if error <= UNSTEADY * _unsteadiness(first, taken, images, answers):
        return  # its answers are the rounding of float32, which is told where they are judged
    guilty = "constant folding"
    for name in REWRITES:
        if _error(answers, again(name), images, where) > near:
            guilty = name
            break
    raise ModelError(
        where,
        f"would answer differently when it is rewritten ({guilty}): by {error:.1e} of its answers",
        "export it again with opset 18, or bring it without what that step rewrites",
    )


def _unsteadiness(
    first: Run, taken: Taken, images: list[Feed], answers: list[list[np.ndarray]]
) -> float:
    """How far the original's answers move where its inputs are a millionth larger
    (`edgecv.bundling.steadiness`)."""
    more = np.float32(1 + 1e-6)
    moved = [{k: v * more if v.dtype == "f4" else v for k, v in x.items()} for x in images]
    return max(
        _far(a, b)
        for known, x in zip(answers, moved, strict=True)
        for a, b in zip(known, first(taken(x)), strict=True)
    )


def _error(answers: list[list[np.ndarray]], made: Any, images: list[Feed], where: str) -> float:
    run = plain_runner(made, where)
    said = bounded(made.graph)
    bounds = [said.get(o.name, 0.0) for o in made.graph.output]
    return max(
        _far(a, b, bound)
        for known, x in zip(answers, images, strict=True)
        for a, b, bound in zip(known, run(x), bounds, strict=True)
    )


def _far(a: np.ndarray, b: np.ndarray, bound: float = 0.0) -> float:
    """‖a − b‖ / ‖a‖ of what is finite; infinite where shapes or NaN and infinities differ.

    bound: the range of the numbers, where it is known: within its rounding they are the same
    """
    if a.shape != b.shape:
        return float("inf")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = (np.where(np.isfinite(v), v, 0) for v in (a, b))
    if bound and np.abs(a - b).max(initial=0.0) <= bound * KERNEL:
        return 0.0
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30)


def _half(model: Any) -> bool:
    import onnx

    small = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(t.data_type in small for t in model.graph.initializer) or any(
        a.i in small or (a.HasField("t") and a.t.data_type in small)
        for n in model.graph.node for a in n.attribute
    )  # fmt: skip


def _random(rng: np.random.Generator, value: Any, own: np.dtype[Any]) -> np.ndarray:
    """Numbers for an input. own: its type in the file that came in"""
    shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    found: np.ndarray
    if own.kind == "f":
        found = rng.normal(size=shape)
    else:  # bytes are pixels; other whole numbers may be indices
        found = rng.integers(0, 256 if own == np.uint8 else 2, shape)
    return np.asarray(found, _kind(value))


def _kind(value: Any) -> np.dtype[Any]:
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _sources(model: Any) -> list[Any]:
    weights = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in weights]
