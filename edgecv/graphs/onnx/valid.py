"""What makes a parsed file no graph at all, said by the name of the tensor or node.

Every tensor is made once, by an input, a weight or one node, and nothing waits for itself; each
operator's domain has a version. ONNX lets nodes stand in any order that some tools write: they are
put in the order in which they run. Source: onnx/docs/IR.md, Graphs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgecv.errors import ModelError
from edgecv.graphs.onnx.draft import bodies, body_reads

BROKEN = "export it again: no runtime opens such a file"


def check(model: Any, where: str) -> None:
    """Raises ModelError; puts the nodes of a sound graph in order, in place.

    where: the user's file, as errors name it
    """
    _check_versions(model, where)
    graph = model.graph
    outputs = [o.name for o in graph.output]
    if twice := [n for n in outputs if outputs.count(n) > 1]:
        raise ModelError(where, f"has two outputs named {twice[0]!r}", "name them apart")
    if not outputs:
        raise ModelError(where, "has no output", "export it again")
    known = _made_once(graph, where, set())
    if lost := [n for n in outputs if n not in known]:
        what = "is an output that nothing makes"
        raise ModelError(f"{where}: {lost[0]!r}", what, BROKEN)
    _in_order(graph, where)


def check_types(graph: Any, where: str) -> None:
    """Raises ModelError for an input or output that is no tensor of numbers."""
    from onnx import TensorProto

    held = {t.name for t in graph.initializer}
    for role, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if value.name in held or (kind is None and role == "output"):
                continue
            told = kind.removesuffix("_type").replace("_", " ") if kind else "of no type"
            if kind == "tensor_type" and value.type.tensor_type.elem_type == TensorProto.STRING:
                kind, told = None, "text"
            if kind != "tensor_type":
                way = "export it without, or cut it off with --until" if role == "output" else (
                    "cut what reads it off with --output or --until")  # fmt: skip
                raise ModelError(f"{where}: {role} {value.name!r}",
                                 f"is {told}, not a tensor of numbers", way)  # fmt: skip


def check_domains(model: Any, where: str) -> None:
    """Raises ModelError for a node whose domain the file gives no version of."""
    given = {o.domain or "ai.onnx" for o in model.opset_import} | {
        f.domain for f in model.functions
    }
    for node in _every(model.graph):
        if (node.domain or "ai.onnx") not in given:
            raise ModelError(
                f"{where}: node {_name(node)!r} ({node.op_type})",
                f"is of domain {node.domain or 'ai.onnx'!r}, of which the file gives no opset",
                "add it to the file's opset_import, or export it again",
            )


def strange(model: Any) -> bool:
    """Whether a node is of no operator that ONNX has, in any version, or the file brings."""
    import onnx

    own = {(f.domain, f.name) for f in model.functions}
    return any(
        (node.domain, node.op_type) not in own
        and not onnx.defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain)
        for node in _every(model.graph)
    )


def _check_versions(model: Any, where: str) -> None:
    import onnx

    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(where, f"is of IR version {model.ir_version}, the newest known here is "
                         f"{onnx.IR_VERSION}", "export it with an older opset")  # fmt: skip
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(where, f"is of opset {opset.version}, the newest known here is "
                             f"{newest}", "export it with opset 18 to 22")  # fmt: skip


def _every(graph: Any) -> Iterable[Any]:
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _every(body)


def _name(node: Any) -> str:
    return node.name or next((n for n in node.output if n), "")


def _made_once(graph: Any, where: str, outer: set[str]) -> set[str]:
    """Every tensor that is known in a graph. outer: those of the graphs around it."""
    makers: dict[str, Any] = {}
    held = {v.name for v in (*graph.input, *graph.initializer)}
    held |= {t.values.name for t in graph.sparse_initializer}
    for node in graph.node:
        for name in node.output:
            if name and (name in makers or name in held):
                other = f"node {_name(makers[name])!r}" if name in makers else "an input or weight"
                raise ModelError(f"{where}: node {_name(node)!r} ({node.op_type})",
                                 f"makes {name!r}, which {other} makes too", BROKEN)  # fmt: skip
            makers[name] = node
    known = outer | held | set(makers)
    for node in graph.node:
        if lost := [n for n in node.input if n and n not in known]:
            raise ModelError(f"{where}: node {_name(node)!r} ({node.op_type})",
                             f"reads {lost[0]!r}, which nothing makes", BROKEN)  # fmt: skip
        for body in bodies(node):
            _made_once(body, where, known)
    return known


def _reads(node: Any) -> set[str]:
    """What a node waits for: what its bodies make themselves is none of it."""
    own = {n for body in bodies(node) for inner in _every(body) for n in inner.output}
    return {*node.input} | (body_reads(node) - own)


def _in_order(graph: Any, where: str) -> None:
    """Each node behind those that it reads, the rest as it was. Raises ModelError for a circle."""
    place = {n: i for i, node in enumerate(graph.node) for n in node.output if n}
    waits = [{place[n] for n in _reads(node) if n in place} for node in graph.node]
    if all(j < i for i, those in enumerate(waits) for j in those):
        return
    order: list[int] = []
    done: set[int] = set()
    for start in range(len(waits)):
        stack = [(start, iter(sorted(waits[start])))] if start not in done else []
        open_ = {start}
        while stack:
            at, rest = stack[-1]
            following = next((j for j in rest if j not in done), None)
            if following is None:
                stack.pop()
                open_.discard(at)
                done.add(at)
                order.append(at)
            elif following in open_:
                node = graph.node[following]
                who = f"{where}: node {_name(node)!r} ({node.op_type})"
                raise ModelError(who, "waits for its own result: the graph goes round", BROKEN)
            else:
                open_.add(following)
                stack.append((following, iter(sorted(waits[following]))))
    nodes = [type(graph.node[0])() for _ in order]
    for made, i in zip(nodes, order, strict=True):
        made.CopyFrom(graph.node[i])
    del graph.node[:]
    graph.node.extend(nodes)
