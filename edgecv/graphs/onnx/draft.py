"""An ONNX graph while it is rewritten: constants, shapes, attributes, new nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.graphs.names import unique

Shape = tuple[int, ...]
Learn = Callable[[Any], Mapping[str, Shape]]  # an onnx.ModelProto -> the shape of every tensor


class Draft:
    """An onnx.ModelProto that is edited in place.

    where: the user's file, as errors name it
    learn: runs the model on one image for the shapes that inference does not know (operators of
           another domain, sizes that are computed); None where nothing can be run
    """

    def __init__(self, model: Any, where: str, learn: Learn | None = None) -> None:
        self.model, self.graph, self.where = model, model.graph, where
        self._learn = learn
        self._held = {t.name: t for t in self.graph.initializer}
        self._shapes: dict[str, Shape] | None = None
        self._learned = False
        self._names = {n for node in self.graph.node for n in (*node.input, *node.output)}
        self._names |= {*self._held}

    @property
    def opset(self) -> int:
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def refuse(self, node: Any, why: str, hint: str = "") -> NoReturn:
        name = node.name or (node.output[0] if node.output else "")
        raise UnsupportedError(f"{self.where}: node {name!r} ({node.op_type})", why, hint)

    # values

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initializer or of a Constant node; None for what is computed."""
        from onnx import numpy_helper

        if name in self._held:
            return np.asarray(numpy_helper.to_array(self._held[name]))
        maker = self.maker(name)
        if maker is None or maker.op_type != "Constant":
            return None
        value = attributes(maker).get("value")
        return None if value is None else np.asarray(numpy_helper.to_array(value))

    def hold(self, name: str, value: np.ndarray | np.generic) -> str:
        """A new initializer, called `name` or nearly so."""
        from onnx import numpy_helper

        name = self.unique(name)
        tensor = numpy_helper.from_array(np.array(value, order="C"), name)
        self.graph.initializer.append(tensor)
        self._held[name] = self.graph.initializer[-1]
        return name

    def unique(self, name: str) -> str:
        return unique(name, self._names)

    # shapes

    def shape(self, node: Any, name: str) -> Shape:
        """The shape of a tensor that `node` reads or makes; refuses the node if nobody knows."""
        found = self.known_shape(name)
        if found is None:
            self.refuse(node, f"the shape of {name!r} is not known", "export with static shapes")
        return found

    def known_shape(self, name: str) -> Shape | None:
        if name in self._held:
            return tuple(self._held[name].dims)
        if self._shapes is None:
            self._shapes = inferred(self.model)
        doubtful = name not in self._shapes or self._rounds_up()
        if doubtful and self._learn is not None and not self._learned:
            self._learned = True
            self._shapes |= self._learn(self.model)
        return self._shapes.get(name)

    def _rounds_up(self) -> bool:
        """Whether a pool has ceil_mode: inference counts windows that begin behind the image."""
        pools = self.nodes("MaxPool", "AveragePool", "LpPool")
        return any(attributes(n).get("ceil_mode") for n in pools)

    # nodes

    def nodes(self, *ops: str) -> list[Any]:
        """The nodes of those operators in the standard domain."""
        return [n for n in self.graph.node if n.op_type in ops and n.domain in ("", "ai.onnx")]

    def maker(self, name: str) -> Any:
        return next((n for n in self.graph.node if name in n.output), None)

    def uses(self, name: str) -> int:
        """How often a tensor is read; once more if it is an output."""
        read = sum(list(n.input).count(name) for n in self.graph.node)
        return read + sum(o.name == name for o in self.graph.output)

    def before(self, node: Any, *others: Any) -> None:
        """Put nodes in front of `node`."""
        self._insert(self._index(node), others)

    def behind(self, node: Any, *others: Any) -> None:
        self._insert(self._index(node) + 1, others)

    def remove(self, node: Any) -> None:
        del self.graph.node[self._index(node)]

    def make(self, op: str, inputs: Sequence[str], output: str, **given: Any) -> Any:
        """A node of one output, named after it."""
        from onnx import helper

        return helper.make_node(op, list(inputs), [output], output, **given)

    def _insert(self, at: int, others: Sequence[Any]) -> None:
        for i, other in enumerate(others):
            self.graph.node.insert(at + i, other)
        self._learned = False  # what they make has no shape yet

    def _index(self, node: Any) -> int:
        return next(i for i, n in enumerate(self.graph.node) if n is node)

    def drop_unread(self) -> None:
        """Remove initializers that nothing reads."""
        read = {n for node in self.graph.node for n in node.input}
        read |= {o.name for o in self.graph.output} | inner_reads(self.graph)
        kept = [t for t in self.graph.initializer if t.name in read]
        if len(kept) < len(self.graph.initializer):
            kept = [_copy(t) for t in kept]
            del self.graph.initializer[:]
            self.graph.initializer.extend(kept)
            self._held = {t.name: t for t in self.graph.initializer}


class Formula:
    """Nodes in front of one that they take the place of."""

    def __init__(self, draft: Draft, node: Any) -> None:
        self.draft, self.node, self.out = draft, node, node.output[0]

    def __call__(self, op: str, *inputs: str | float, out: str = "", **given: Any) -> str:
        names = [
            n if isinstance(n, str) else self.draft.hold(f"{self.out}/number", np.float32(n))
            for n in inputs
        ]
        made = out or self.draft.unique(f"{self.out}/{op.lower()}")
        self.draft.before(self.node, self.draft.make(op, names, made, **given))
        return made

    def end(self) -> None:
        self.draft.remove(self.node)


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name, texts as str."""
    from onnx import helper

    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def write_attributes(node: Any, values: Mapping[str, Any]) -> None:
    """Set those, remove what is None; the order is that of the names."""
    from onnx import helper

    held = {a.name: a for a in node.attribute if a.name not in values}
    made = {k: helper.make_attribute(k, v) for k, v in values.items() if v is not None}
    every = sorted({**held, **made}.items())
    kept = [_copy(a) for _, a in every]
    del node.attribute[:]
    node.attribute.extend(kept)


def inferred(model: Any) -> dict[str, Shape]:
    """The static shapes that onnx infers; what it does not know is left out."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # an operator that inference stumbles over: then nothing is known
        graph = model.graph
    found = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            continue
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        if all(d >= 0 for d in dims):
            found[value.name] = tuple(dims)
    return found


def inner_reads(graph: Any) -> set[str]:
    """Names that the bodies of If and Loop read."""
    return {name for node in graph.node for name in body_reads(node)}


def body_reads(node: Any) -> set[str]:
    """Names that the bodies of one node read, those that they make themselves included."""
    found: set[str] = set()
    for body in bodies(node):
        found |= {n for inner in body.node for n in inner.input} | inner_reads(body)
        found |= {o.name for o in body.output}
    return found


def bodies(node: Any) -> list[Any]:
    """The graphs inside a node: If, Loop, Scan."""
    found = []
    for a in node.attribute:
        found += [*a.graphs, *((a.g,) if a.HasField("g") else ())]
    return found


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made
