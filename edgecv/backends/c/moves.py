"""What only moves values: Slice, Split, Pad, Transpose, Reshape, Gather, DepthToSpace, ...

    y[i] = x[at[i]],  the fill where at[i] < 0

The operator itself, run by ONNX's own reference on the places of values instead of the values, says
where each comes from. Operators in a row (the Reshape, Transpose, Reshape of a channel shuffle)
become one table, and what lies between them may have any number of axes. A table costs four bytes
of constants a value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from edgecv.backends.c.graph_builder import Held
from edgecv.backends.c.nest import nest
from edgecv.backends.c.network import Grid, Tensor

# Places are carried as float32, which is exact to here.
MOST = 1 << 24


class View(NamedTuple):
    """A value that lies in another tensor. at: in ONNX's shape, -1 where the fill is."""

    base: str
    at: np.ndarray
    fill: float


class Moves(Held):
    """Readers of operators that only move values."""

    def _at(self, name: str) -> Tensor:
        """As in `Held`; a view is written out when something reads it."""
        if name in self.views and name not in self.names:
            self._written_out(name)
        return super()._at(name)

    def _is_view(self, name: str) -> bool:
        """Whether a value has not been written out."""
        return name in self.views and name not in self.names

    def _dtype(self, name: str) -> str:
        """As in `Held`; a view stays one."""
        x = self.tensors[self.views[name].base] if self._is_view(name) else self._at(name)
        return x.dtype

    def _alias(self, node: Any) -> None:
        """As in `Held`; a view stays one."""
        if self._is_view(node.input[0]):
            self.views[node.output[0]] = self.views[node.input[0]]
        else:
            super()._alias(node)

    def _over(self, name: str, out: str) -> tuple[Tensor, str]:
        """(the tensor that a function of one value reads, the name of the one that it makes): of a
        view that holds a whole tensor that tensor, and `out` is the same view of what is made."""
        view = self.views[name] if self._is_view(name) else None
        if view is None:
            return self._at(name), out
        if not np.array_equal(np.sort(view.at, None), np.arange(self.tensors[view.base].values)):
            if _as_image(view.at.shape):
                return self._at(name), out
            view = self._in_a_row(self.makers[name], name, view)
            self.views[name] = view
        self.views[out] = View(f"{out}/whole", view.at, 0.0)
        return self.tensors[view.base], f"{out}/whole"

    def _in_a_row(self, node: Any, name: str, view: View) -> View:
        """A view's values in a tensor of their own, in ONNX's order."""
        own, at = f"{name}/row", view.at
        if own not in self.tensors:
            self._gathered(node, self.tensors[view.base], at, view.fill, own, (1, 1, at.size))
        return View(own, np.arange(at.size).reshape(at.shape), 0.0)

    def _move(self, node: Any) -> None:
        source = node.input[0]
        constants = {n: self.values[n] for n in node.input[1:] if n in self.values}
        for name in node.input[1:]:
            if (held := self._integers(name)) is not None:  # what a Pad fills with, on a grid
                constants[name] = np.asarray(held[0] * held[1].reshape(held[0].shape), np.float32)
        if any(n and n not in constants for n in node.input[1:]):
            raise self._refused(node, f"{node.op_type} by what is no constant")
        view, fill = self._view(node, source), 0.0
        if node.op_type == "Pad":
            fill = self._filled(node, constants)
            if (view.at < 0).any() and fill != view.fill:
                self._written_out(source)
                view = self._view(node, source)
        elif (view.at < 0).any():
            fill = view.fill
        for name, at in zip(node.output, self._placed(node, view.at, constants), strict=True):
            kept = view.fill if (view.at < 0).any() else fill
            self.views[name] = View(view.base, np.rint(at).astype(np.int64), kept)

    _slice = _split = _pad = _gather = _depthtospace = _spacetodepth = _expand = _tile = _move

    def _passed_on(self, node: Any, grid: Grid | None = None) -> bool:
        """Whether integers that only moved go on as they are: unpacked, or packed to one grid."""
        view = self.views.get(node.input[0])
        if view is None or not self._is_view(node.input[0]) or view.base not in self.grids:
            return False
        if grid is not None and grid != self.grids[view.base]:
            return False
        self.views[node.output[0]] = view
        return True

    def _filled(self, node: Any, constants: dict[str, np.ndarray]) -> float:
        """The value that a Pad fills with; in `constants` -1 takes its place."""
        name = node.input[2] if len(node.input) > 2 else ""
        value = float(constants[name].reshape(())) if name else 0.0
        constants["fill"] = np.array(-1, np.float32)
        return value

    def _placed(
        self, node: Any, at: np.ndarray, constants: dict[str, np.ndarray]
    ) -> list[np.ndarray]:
        """Where each value of each output comes from."""
        from onnx import TensorProto, helper, numpy_helper
        from onnx.reference import ReferenceEvaluator

        if at.size > MOST:
            raise self._refused(node, f"{node.op_type} of {at.size:,} values")
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[0] = "places"
        if node.op_type == "Pad":
            if len(copy.input) > 2:
                copy.input[2] = "fill"
            else:
                copy.input.append("fill")
        graph = helper.make_graph(
            [copy],
            "move",
            [helper.make_tensor_value_info("places", TensorProto.FLOAT, at.shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in node.output],
            [numpy_helper.from_array(v, n) for n, v in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=8)
        try:
            return list(ReferenceEvaluator(model).run(None, {"places": at.astype(np.float32)}))
        except Exception:  # an operator of the reference's own that fails
            raise self._refused(node, f"{node.op_type} is of a form without a C kernel") from None

    def _view(self, node: Any, name: str) -> View:
        """The places of a value's parts, in the shape that ONNX gives it."""
        if name in self.views and name not in self.names:
            return self.views[name]
        x, shape = self._at(name), self.shapes.get(name)
        if x.dtype == "bits" or shape is None or int(np.prod(shape)) != x.values:
            raise self._refused(node, f"{node.op_type} of a value of unknown shape")
        laid = np.arange(x.values).reshape(-1, *(x.order or x.one))
        laid = laid if x.last and not x.order else laid.transpose(0, 3, 1, 2)
        return View(x.name, laid.reshape(shape), 0.0)

    def _written_out(self, name: str) -> None:
        """The step that writes a view as a tensor of its own."""
        view, node = self.views[name], self.makers.get(name)
        shape = view.at.shape
        tokens = len(shape) == 3 or (len(shape) == 2 and shape[0] > 1)
        if not _as_image(shape):
            raise self._refused(node, f"makes values of shape {shape}, which no C kernel reads")
        if tokens:
            places = view.at.reshape(-1, *shape[-2:])
        else:
            places = view.at if len(shape) == 4 else view.at[:, :, None, None]
            places = places.transpose(0, 2, 3, 1)
            places = places.reshape(-1, *places.shape[2:])
        images = shape[0] if len(shape) > 2 else 1
        x = self.tensors[view.base]
        self._gathered(node, x, places, view.fill, name, places.shape)
        self.tensors[name] = replace(self.tensors[name], last=tokens, images=images)
        self.names[name] = name

    def _gathered(self, node: Any, x: Tensor, places: np.ndarray, fill: float, out: str,
                  shape: tuple[int, ...]) -> None:  # fmt: skip
        """The step that writes places of x in their order: by loops where there are, else from a
        table."""
        integers, at = x.dtype == "int8", places.reshape(-1).astype(np.int64)
        walk = None if (at < 0).any() else nest([at, np.arange(at.size)], by=1)
        if walk is not None:
            self._step(node, "copy", [x.name], shape, x.dtype, out,
                       about={"walk": walk, "operands": (0,)})  # fmt: skip
        else:
            if integers:
                grid = self.grids[x.name]
                fill = float(np.clip(np.rint(fill / grid.scale) + grid.zero, -128, 127))
            kind, table = "gather_i8" if integers else "gather_f32", at.astype(np.int32)
            self._step(node, kind, [x.name], shape, x.dtype, out, constants={"at": table},
                       about={"fill": fill})  # fmt: skip
        self.tensors[out] = replace(self.tensors[out], last=False, images=1)
        if integers:
            self.grids[out] = self.grids[x.name]


def _as_image(shape: tuple[int, ...]) -> bool:
    """Whether a value can lie as an image, as tokens or as rows do."""
    return len(shape) in (2, 3, 4)
