"""LiteRT's profile of a .tflite file, as layers: one per operator of the file that ran.

XNNPACK takes operators over and reports its own, in the order of the file, without saying which
is which: fused padding is gone, an ADD with a ReLU has become "Add (ND)" and "Clamp (NC)", a 1x1
convolution "Fully Connected (NC, F32) GEMM". They are matched in order by what they compute; when
that leaves over an operator that multiplies, nothing is said of which layer took what.

Imports with numpy and the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.backends.tflite.profiler import Event, Profiler
from edgecv.backends.tflite.run import COMPUTE, PRECISIONS
from edgecv.runtime.layers import WARMUP, layer_of, typical_ms
from edgecv.runtime.spec import Layer

# Operators that compute nothing: they copy, or convert between precisions.
MOVES = frozenset((
    "CAST", "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "GATHER", "PACK", "PAD", "PADV2",
    "QUANTIZE", "RESHAPE", "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE",
    "UNPACK",
))  # fmt: skip
# XNNPACK's words for an operator (xnn_operator_type_to_string) -> what it may be in the file.
KINDS: dict[str, tuple[str, ...]] = {
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Fully Connected": ("FULLY_CONNECTED", "CONV_2D"),
    "Dynamic Fully Connected": ("FULLY_CONNECTED", "CONV_2D"),
    "Batch Matrix Multiply": ("BATCH_MATMUL",),
    "Add": ("ADD",),
    "Subtract": ("SUB",),
    "Multiply": ("MUL",),
    "Divide": ("DIV",),
    "Minimum": ("MINIMUM",),
    "Maximum": ("MAXIMUM", "RELU"),
    "Clamp": ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"),
    "Constant Pad": ("PAD", "PADV2"),
    "Mean": ("MEAN",),
    "Sum": ("SUM",),
    "Global Average Pooling": ("MEAN", "AVERAGE_POOL_2D"),
    "Average Pooling": ("AVERAGE_POOL_2D", "MEAN"),
    "Max Pooling": ("MAX_POOL_2D",),
    "Convert": ("QUANTIZE", "DEQUANTIZE"),
    "Copy": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION"),
    "Concatenate": ("CONCATENATION",),
    "Slice": ("SLICE", "STRIDED_SLICE"),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Transpose": ("TRANSPOSE",),
    "Softmax": ("SOFTMAX",),
    "Sigmoid": ("LOGISTIC",),
    "HardSwish": ("HARD_SWISH",),
    "Resize Bilinear": ("RESIZE_BILINEAR",),
}
_OWN_WORDS = re.compile(r"^([^(]+?) *(?:\((.*)\).*)?$")


@dataclass(frozen=True)
class Operator:
    """One operator of the file as the interpreter holds it.

    name: of the tensor that it makes; weights: names of the constants that it may read
    """

    name: str
    op: str
    precision: str
    bytes: int
    weights: tuple[str, ...]

    def layer(self, ran: str = "", time_ms: float | None = None) -> Layer:
        layer, op = layer_of(self.weights, ()), ran or self.op
        return Layer(self.name, layer, op, self.precision, time_ms, self.bytes)


@dataclass
class Row:
    """Events that are one operator of the file; calls_us: their sum in each call."""

    tag: str
    calls_us: np.ndarray
    operator: Operator | None


def operators(engine: Any) -> list[Operator]:
    """The operators of an Interpreter's file in their order, a delegate's own left out."""
    tensors = {int(t["index"]): t for t in engine.get_tensor_details()}

    def made(op: Mapping[str, Any]) -> Operator:
        inputs, outputs = ([tensors[int(t)] for t in op[side] if int(t) in tensors]
                           for side in ("inputs", "outputs"))  # fmt: skip
        kind = np.dtype(outputs[0]["dtype"]).name
        return Operator(
            name=str(outputs[0]["name"]),
            op=str(op["op_name"]),
            precision="" if op["op_name"] in MOVES else PRECISIONS.get(kind, kind),
            bytes=sum(map(_size, (*inputs, *outputs))),
            weights=tuple(str(t["name"]) for t in inputs[1:]) if op["op_name"] in COMPUTE else (),
        )

    return [made(op) for op in engine._get_ops_details() if op["op_name"] != "DELEGATE"]


def layers(
    content: bytes,
    threads: int,
    held: Sequence[Operator],
    feeds: Mapping[str, np.ndarray],
    runs: int,
) -> tuple[Layer, ...]:
    """One Layer per operator that ran. Raises UnsupportedError and EngineError as Profiler."""
    with Profiler(content, threads) as profiler:
        profiler.feed(feeds)
        for _ in range(WARMUP):
            profiler.run()
        calls = [profiler.events() for _ in range(runs)]
    return tuple(map(_layer, matched(calls, held)))


def matched(calls: Sequence[Sequence[Event]], held: Sequence[Operator]) -> list[Row]:
    """Each call's events as rows, with the operator of the file that each row is."""
    events = calls[0]
    calls = [call for call in calls if [e.tag for e in call] == [e.tag for e in events]]
    times = np.array([[event.took_us for event in call] for call in calls], np.float64).T
    rows: list[Row] = []
    place = 0
    for event, calls_us in zip(events, times, strict=True):
        found = event.operator if event.operator is not None else _next(event.tag, held, place)
        if found is not None and found < len(held):
            rows.append(Row(event.tag, calls_us, held[found]))
            place = found + 1
        elif rows and event.tag.startswith("Clamp"):  # the activation of the one before
            rows[-1].calls_us = rows[-1].calls_us + calls_us
        elif event.operator is None:
            rows.append(Row(event.tag, calls_us, None))
    seen = {id(row.operator) for row in rows}
    missed = any(o.op in COMPUTE and id(o) not in seen for o in held)
    unknown = any(row.operator is None and _multiplies(row.tag) for row in rows)
    if missed or unknown:
        return [Row(event.tag, t, None) for event, t in zip(events, times, strict=True)]
    return rows


def _next(tag: str, held: Sequence[Operator], place: int) -> int | None:
    """The next operator that the event can be; none that multiplies is passed over for it."""
    kinds = KINDS.get(_words(tag)[0], ())
    for i in range(place, len(held)):
        if held[i].op in kinds:
            return i
        if held[i].op in COMPUTE:
            return None
    return None


def _multiplies(tag: str) -> bool:
    return bool(COMPUTE & set(KINDS.get(_words(tag)[0], ())))


def _layer(row: Row) -> Layer:
    time_ms = typical_ms(row.calls_us.tolist())
    if row.operator is not None:
        return row.operator.layer(row.tag, time_ms)
    types = _words(row.tag)[1]
    precision = "int8" if "Q" in types else "fp16" if "F16" in types else "fp32"
    return Layer(row.tag, "", row.tag, precision if "F" in types or "Q" in types else "", time_ms)


def _words(tag: str) -> tuple[str, str]:
    """("Convolution", "NHWC, QC8") of "Convolution (NHWC, QC8) IGEMM"."""
    match = _OWN_WORDS.match(tag)
    return (match[1], match[2] or "") if match else (tag, "")


def _size(tensor: Mapping[str, Any]) -> int:
    return int(np.prod(tensor["shape"], dtype=np.int64)) * int(np.dtype(tensor["dtype"]).itemsize)
