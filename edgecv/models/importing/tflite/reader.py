"""A .tflite graph while it becomes an ONNX one: constants, layouts, nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from edgecv.errors import ModelError, UnsupportedError
from edgecv.graphs.names import unique
from edgecv.graphs.tflite import flatbuffer
from edgecv.models.importing.tflite.sparse import densified

OPSET = 18
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # NHWC as NCHW, and back
# Fused activation (schema: ActivationFunctionType) -> operator and its constants.
FUSED: dict[int, tuple[str, tuple[float, ...]]] = {
    1: ("Relu", ()), 2: ("Clip", (-1.0, 1.0)), 3: ("Clip", (0.0, 6.0)), 4: ("Tanh", ()),
}  # fmt: skip
_QUANTIZED = "a quantized .tflite runs as it is with --target tflite or edgetpu"
_OWN = "its maker's code runs it: bring the network up to it, or with builtin operators"
_ELSEWHERE = "run it with --target tflite"

Translate = Callable[["Reader", Any], None]


class Reader:
    """One file being read.

    A tensor of four axes is held under one of two names: as the file lays it out, or channels
    first; the other comes of a Transpose, made when somebody asks for it.
    """

    def __init__(self, content: bytes, where: str) -> None:
        self.model, self.where = flatbuffer.parse(content, where), where
        self.graph = flatbuffer.graph_of(self.model)
        self.tensors = self.graph.tensors
        self.nodes: list[Any] = []
        self._held: dict[str, Any] = {}
        self._plain: dict[int, str] = {}
        self._first: dict[int, str] = {}
        self._values: dict[int, np.ndarray | None] = {}
        self._taken: set[str] = set()
        self._op: Any = None
        self._signed = _signature(self.model)

    def read(self, operators: Mapping[str, Translate]) -> Any:
        """The onnx.ModelProto."""
        import onnx

        sources = [int(i) for i in self.graph.inputs]
        ends = [int(i) for i in self.graph.outputs]
        inputs = [self._end(i) for i in sources]
        for i, info in zip(sources, inputs, strict=True):
            self._plain[i] = info.name
            self._taken.add(info.name)
        outputs = [self._end(i, first=True) for i in ends]
        self._taken |= {o.name for o in outputs}
        for op in self.graph.operators:
            self._op = op
            translate = operators.get(self.name)
            if translate is None:
                custom = self.model.operatorCodes[op.opcodeIndex].customCode
                self.refuse("has no form in ONNX here", _OWN if custom else _ELSEWHERE)
            translate(self, self._op.builtinOptions)
        for i, info in zip(ends, outputs, strict=True):
            self.nodes.append(onnx.helper.make_node("Identity", [self._last(i)], [info.name]))
        graph = onnx.helper.make_graph(
            self.nodes, "main", inputs, outputs, list(self._held.values())
        )
        made = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8
        )
        onnx.checker.check_model(made)
        return made

    # the operator at hand

    @property
    def name(self) -> str:
        return flatbuffer.op_name(self.model, self._op)

    @property
    def inputs(self) -> list[int]:
        """Tensors that it reads; -1 where one is left out."""
        return [int(i) for i in self._op.inputs]

    @property
    def outputs(self) -> list[int]:
        return [int(i) for i in self._op.outputs]

    def refuse(self, why: str, hint: str = "") -> NoReturn:
        made = self._label(self.outputs[0]) if len(self._op.outputs) else "?"
        raise UnsupportedError(f"{self.where}: operator {self.name!r} ({made!r})", why, hint)

    # tensors

    def shape(self, i: int) -> tuple[int, ...]:
        shape = self.tensors[i].shape
        return () if shape is None else tuple(map(int, shape))

    def rank(self, i: int) -> int:
        return len(self.shape(i))

    def axis(self, axis: int, i: int) -> int:
        """An axis of tensor i, counted from the front."""
        return axis + self.rank(i) if axis < 0 else axis

    def value(self, i: int) -> np.ndarray | None:
        """A constant's values, floats as float32; None for what is computed or left out."""
        if i < 0:
            return None
        if i not in self._values:
            self._values[i] = self._stored(i)
        found = self._values[i]
        if found is not None:
            self._unquantized(i)
            found = found.astype(np.float32) if found.dtype.kind == "f" else found
        return found

    def known(self, i: int, what: str) -> np.ndarray:
        """A constant that must be one."""
        found = self.value(i)
        if found is None:
            self.refuse(f"its {what} is computed, not constant", _ELSEWHERE)
        return found

    def fold(self, values: np.ndarray) -> None:
        """What the operator at hand gives, as a constant."""
        self._values[self.outputs[0]] = values

    def hold(self, values: np.ndarray | np.floating[Any] | Sequence[int], kind: Any = None) -> str:
        """The name of a new initializer."""
        from onnx import numpy_helper

        array = np.array(values, dtype=kind or getattr(values, "dtype", np.float32), order="C")
        name = self._free(f"constant_{len(self._held)}")
        self._held[name] = numpy_helper.from_array(array, name)
        return name

    def plain(self, i: int) -> str:
        """The tensor as the file lays it out."""
        if i not in self._plain:
            if i in self._first:
                self._plain[i] = self.add("Transpose", [self._first[i]], perm=LAST)
            else:
                self._plain[i] = self.hold(self._constant(i))
        return self._plain[i]

    def first(self, i: int) -> str:
        """A tensor of four axes, channels first."""
        if i not in self._first:
            values = self.value(i)
            if values is not None:
                self._first[i] = self.hold(values.transpose(FIRST))
            else:
                self._first[i] = self.add("Transpose", [self.plain(i)], perm=FIRST)
        return self._first[i]

    def is_first(self, i: int) -> bool:
        """Whether it is held channels first already."""
        return i in self._first and self.value(i) is None

    # nodes

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **given: Any) -> str:
        """A new node; the name of its output, of several the first (the rest: _1, _2 ...)."""
        return self.many(op, inputs, outputs, **given)[0]

    def many(self, op: str, inputs: Sequence[str], outputs: int, **given: Any) -> list[str]:
        import onnx

        base = self._label(self.outputs[0]) if self._op is not None else op
        names = [self._free(f"{base}/{op.lower()}") for _ in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op, list(inputs), names, names[0], **given))
        return names

    def give(self, name: str, first: bool, i: int | None = None) -> None:
        """`name` is what the operator at hand gives (its output i), channels first or plain."""
        held = self._first if first else self._plain
        held[self.outputs[0] if i is None else i] = name

    def fused(self, name: str, options: Any) -> str:
        """The same behind the activation that the operator has inside."""
        code = int(getattr(options, "fusedActivationFunction", 0) or 0)
        if not code:
            return name
        if code not in FUSED:
            self.refuse(f"its fused activation {code} has no form in ONNX here", _ELSEWHERE)
        op, bounds = FUSED[code]
        return self.add(op, [name, *(self.hold(np.float32(b)) for b in bounds)])

    def _stored(self, i: int) -> np.ndarray | None:
        """What the file holds of a tensor."""
        tensor = self.tensors[i]
        try:
            if tensor.sparsity is not None:
                return densified(self.model, tensor)
            return flatbuffer.constant(self.model, tensor)
        except (KeyError, ValueError, IndexError) as e:
            what = f"tensor {self._label(i)!r} is of a type or a size that cannot be read"
            raise ModelError(self.where, what, _ELSEWHERE) from e

    def _constant(self, i: int) -> np.ndarray:
        found = self.value(i)
        if found is None:
            self.refuse(f"reads {self._label(i)!r}, which nothing makes", "the file is damaged")
        return found

    def _unquantized(self, i: int) -> None:
        tensor = self.tensors[i]
        grid = tensor.quantization
        scaled = grid is not None and grid.scale is not None and len(grid.scale)
        if scaled and tensor.type in (flatbuffer.enum("TensorType", t) for t in _INTEGERS):
            what = f"tensor {self._label(i)!r} holds quantized integers"
            raise UnsupportedError(self.where, what, _QUANTIZED)

    def _last(self, i: int) -> str:
        """What an output is made of: of four axes channels first, as ONNX's images are."""
        return self.first(i) if self.rank(i) == 4 else self.plain(i)

    def _end(self, i: int, first: bool = False) -> Any:
        """An input or output of the graph, as the file calls and shapes it; first: channels first
        where it has four axes."""
        import onnx

        self._unquantized(i)
        kind = self.tensors[i].type
        known = {flatbuffer.enum("TensorType", t): k for t, k in _TYPES.items()}
        if kind not in known:
            place = f"{self.where}: tensor {self._label(i)!r}"
            raise UnsupportedError(place, "is of a type without a form in ONNX here", _ELSEWHERE)
        shape = self.shape(i)
        shape = tuple(shape[a] for a in FIRST) if first and len(shape) == 4 else shape
        return onnx.helper.make_tensor_value_info(
            self._signed.get(i, self._label(i)),
            getattr(onnx.TensorProto, known[kind]),
            shape,
        )

    def _label(self, i: int) -> str:
        name = self.tensors[i].name
        return name.decode(errors="replace") if name else f"tensor_{i}"

    def _free(self, name: str) -> str:
        return unique(name, self._taken)


def _signature(model: Any) -> dict[int, str]:
    """Tensor -> what the file's one signature calls it."""
    signed = model.signatureDefs
    if signed is None or len(signed) != 1:
        return {}
    maps = [*(signed[0].inputs or ()), *(signed[0].outputs or ())]
    return {int(m.tensorIndex): bytes(m.name).decode(errors="replace") for m in maps}


_INTEGERS = ("INT8", "UINT8", "INT16", "INT4")
_TYPES = {"FLOAT32": "FLOAT", "INT32": "INT32", "INT64": "INT64", "UINT8": "UINT8", "BOOL": "BOOL"}
