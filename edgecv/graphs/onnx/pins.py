"""What the user says of a graph that its file leaves open: shapes, batch, layout, where it ends.

    edgecv export net.onnx --input images:1x3x640x640 --until /head/Concat --batch 2 --layout NHWC
    model: {onnx: net.onnx, input: {images: 1x3x640x640}, until: /head/Concat, batch: 2}

One symbol is one number, whichever input names it; "?" and "None" name nothing. A free batch is 1,
free sides of the image are the size that is given; whatever is open then is asked for by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgecv.errors import ModelError, RecipeError
from edgecv.graphs.onnx.cut import cut
from edgecv.graphs.onnx.valid import check_types
from edgecv.yaml_validation import near, short

Shape = tuple[int, ...]
LAYOUTS = ("NCHW", "NHWC")
WORDS = ("input", "output", "until", "batch", "layout")
CHANNELS = (1, 3, 4)  # an axis of so many is a colour, where the other is not
BATCHES = ("n", "b", "bs", "")  # names of an axis that is the batch, beside "batch..."
NO_NAMES = ("none", "unknown", "dynamic", "nan")  # what exporters call every open dimension
MOST = 1 << 29  # values of one input: 2 GB of floats


@dataclass(frozen=True)
class Pins:
    """inputs: shapes by name; outputs: those that stay (); until: where the graph ends ();
    batch, size (height, width), layout: of the image; None where the file says it."""

    inputs: Mapping[str, Shape] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    batch: int | None = None
    size: tuple[int, int] | None = None
    layout: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What is said, for a step's key; {} where nothing is."""
        found = {
            "input": {name: list(shape) for name, shape in self.inputs.items()},
            "output": list(self.outputs),
            "until": list(self.until),
            "batch": self.batch,
            "size": list(self.size or ()),
            "layout": self.layout,
        }
        return {word: said for word, said in found.items() if said}


def read(values: Mapping[str, Any], place: Callable[..., str]) -> Pins:
    """The pins that a recipe's `model:` or the options of a command say.

    values: by WORDS, as YAML gives them
    place:  where an error says that a word stands, and what is under it
    Raises RecipeError: no shape, no name, no layout, no positive number.
    """
    shapes = values.get("input") or {}
    if not isinstance(shapes, Mapping):
        raise RecipeError(place("input"), f"gives no input by name, found {short(shapes)}",
                          "{images: 1x3x640x640}")  # fmt: skip
    batch, layout = values.get("batch"), values.get("layout")
    if batch is not None and (type(batch) is not int or batch < 1):
        raise RecipeError(place("batch"), f"takes a whole number from 1, found {short(batch)}")
    if layout not in (None, *LAYOUTS):
        raise RecipeError(
            place("layout"), f"{short(layout)} is no layout", near(str(layout), LAYOUTS)
        )
    return Pins(
        {str(name): _shape(shape, place("input", name)) for name, shape in shapes.items()},
        _names(values.get("output"), place("output")),
        _names(values.get("until"), place("until")),
        batch,
        layout=layout,
    )


def _shape(given: Any, where: str) -> Shape:
    parts = given.lower().split("x") if isinstance(given, str) else given
    if isinstance(given, int) and not isinstance(given, bool):
        parts = [given]
    if not isinstance(parts, list | tuple) or not parts or not all(_whole(p) for p in parts):
        raise RecipeError(where, f"{short(given)} is no shape", "1x3x640x640, every side from 1")
    shape = tuple(int(p) for p in parts)
    if math.prod(shape) > MOST:
        raise RecipeError(where, f"{'x'.join(map(str, shape))} is more than {MOST:,} values")
    return shape


def _whole(part: Any) -> bool:
    text = part if isinstance(part, str) else str(part)
    return not isinstance(part, bool) and text.isdecimal() and text.isascii() and int(text) > 0


def _names(given: Any, where: str) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given or []
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise RecipeError(where, f"takes names, found {short(given)}", "one name, or [one, other]")
    return tuple(dict.fromkeys(names))


def pin(model: Any, pins: Pins, where: str) -> str | None:
    """Cut an onnx.ModelProto and make its inputs static, in place; the layout of its image, None
    where no input has four axes.

    where: the user's file, as errors name it
    Raises ModelError: a name that nothing has, a shape that does not fit, a dimension that is open.
    """
    held = {t.name for t in model.graph.initializer}
    named = [i.name for i in model.graph.input if i.name not in held]
    for name in pins.inputs:
        if name not in named:
            raise ModelError(where, f"has no input {name!r}", near(name, named))
    cut(model, pins.until, pins.outputs, where)
    check_types(model.graph, where)
    inputs = {i.name: i for i in model.graph.input if i.name not in held}
    for name in pins.inputs:
        if name not in inputs:
            raise ModelError(where, f"input {name!r} is read by nothing that stays",
                             "give no shape of it")  # fmt: skip
    return _Sides(inputs, pins, where).settled()


class _Sides:
    """The dimensions of a graph's inputs while they are settled."""

    def __init__(self, inputs: Mapping[str, Any], pins: Pins, where: str) -> None:
        self.pins, self.where = pins, where
        for name, shape in pins.inputs.items():
            self._take_rank(name, inputs[name].type.tensor_type, shape)
        self.dims = {
            name: list(value.type.tensor_type.shape.dim)
            for name, value in inputs.items()
            if value.type.tensor_type.HasField("shape")
        }
        self.without = [name for name in inputs if name not in self.dims]
        self.known: dict[str, tuple[int, str]] = {}  # symbol -> its number and the input it is of
        self.image = next((name for name, dims in self.dims.items() if len(dims) == 4), None)

    def settled(self) -> str | None:
        layout = self._layout()
        for name, shape in self.pins.inputs.items():
            for axis, size in enumerate(shape):
                self._write(name, axis, size)
        self._spread()
        self._batch()
        self._spread()
        if self.image and self.pins.size:
            for letter, size in zip("HW", self.pins.size, strict=True):
                axis = str(layout).index(letter)
                if self._open(self.dims[self.image][axis]):
                    self._write(self.image, axis, size)
        self._spread()
        self._refuse_open(layout)
        for name, dims in self.dims.items():
            if (values := math.prod(d.dim_value for d in dims)) > MOST:
                raise ModelError(f"{self.where}: input {name!r}",
                                 f"has {values:,} values, more than {MOST:,}")  # fmt: skip
        return layout

    def _take_rank(self, name: str, tensor: Any, shape: Shape) -> None:
        if not tensor.HasField("shape"):
            for _ in shape:
                tensor.shape.dim.add()
        if len(tensor.shape.dim) != len(shape):
            what = (
                f"has {len(tensor.shape.dim)} dimensions, {'x'.join(map(str, shape))} {len(shape)}"
            )
            raise ModelError(f"{self.where}: input {name!r}", what, "give one number for each")

    def _layout(self) -> str | None:
        if self.image is None:
            if self.pins.layout:
                raise ModelError(self.where, "has no input of four dimensions, whose layout one "
                                 "could give", "leave the layout out")  # fmt: skip
            return None
        # the file's own word first: what is open may become a size that looks like a colour
        own = [d.dim_value for d in self.dims[self.image]]
        told = _told(own) or _told(self.pins.inputs.get(self.image, own))
        if told and self.pins.layout not in (None, told):
            raise ModelError(f"{self.where}: input {self.image!r}",
                             f"is {told} by its shape, not {self.pins.layout}",
                             "leave the layout out")  # fmt: skip
        return told or self.pins.layout or "NCHW"

    @staticmethod
    def _open(dim: Any) -> bool:
        return bool(dim.dim_value <= 0)

    def _write(self, name: str, axis: int, size: int) -> None:
        dim, place = self.dims[name][axis], f"{self.where}: input {name!r}"
        if not self._open(dim):
            if dim.dim_value != size:
                raise ModelError(place, f"dimension {axis} is fixed to {dim.dim_value}, not {size}",
                                 "give what the file has, or export it again")  # fmt: skip
            return
        if symbol := _symbol(dim):
            other, whose = self.known.setdefault(symbol, (size, name))
            if other != size:
                what = f"dimension {axis} ({symbol!r}) is {size}, and {other} in {whose!r}"
                raise ModelError(place, what, "one name is one number")
        dim.dim_value = size

    def _spread(self) -> None:
        """Every dimension whose symbol is known by now."""
        for dims in self.dims.values():
            for dim in dims:
                if self._open(dim) and (symbol := _symbol(dim)) in self.known:
                    dim.dim_value = self.known[symbol][0]

    def _batch(self) -> None:
        """The first axis of what has four, and of every other input that calls it so."""
        asked, symbols = self.pins.batch, set()
        fours = [name for name, dims in self.dims.items() if len(dims) == 4]
        if asked and self.image and not self._open(first := self.dims[self.image][0]):
            self._refuse_batch(f"{self.where}: input {self.image!r}", first.dim_value)
        for name in fours:
            dim = self.dims[name][0]
            symbols.add(_symbol(dim) or None)
            if self._open(dim):
                self._write(name, 0, asked or 1)
        others = [
            name for name, dims in self.dims.items()
            if len(dims) not in (0, 4) and self._open(dims[0])
            and ((symbol := _symbol(dims[0])) in symbols or _is_batch(symbol, len(dims)))
        ]  # fmt: skip
        for name in others:
            self._write(name, 0, asked or 1)
        for dims in () if fours or others else self.dims.values():
            if asked and dims:
                self._refuse_batch(self.where, dims[0].dim_value)

    def _refuse_batch(self, place: str, fixed: int) -> None:
        if fixed != self.pins.batch:
            raise ModelError(place, f"its batch is fixed to {fixed}, not {self.pins.batch}",
                             "leave the batch out, or export it with that one")  # fmt: skip

    def _refuse_open(self, layout: str | None) -> None:
        for name in self.without:
            raise ModelError(f"{self.where}: input {name!r}", "says nothing of its shape",
                             f"give --input {name}:1x3x224x224, with its own numbers")  # fmt: skip
        for name, dims in self.dims.items():
            for axis, dim in enumerate(dims):
                if self._open(dim):
                    self._refuse(name, axis, layout if name == self.image else None)

    def _refuse(self, name: str, axis: int, layout: str | None) -> None:
        dims = self.dims[name]
        letter = layout[axis] if layout else str(axis)
        symbol = dims[axis].dim_param or "unknown"
        shown = "x".join(
            str(d.dim_value) if not self._open(d) else (layout[i] if layout else "?")
            for i, d in enumerate(dims)
        )
        hint = f"give --input {name}:{shown} (model.input in a recipe), numbers for all"
        if letter in ("H", "W"):
            hint = "give --input-size (data.size in a recipe)"
        raise ModelError(f"{self.where}: input {name!r}",
                         f"dimension {letter} is dynamic ({symbol!r})", hint)  # fmt: skip


def _told(sides: Sequence[int]) -> str | None:
    """The layout that a shape of four tells: where one axis alone is a colour."""
    first, last = sides[1] in CHANNELS, sides[3] in CHANNELS
    return None if first == last else "NCHW" if first else "NHWC"


def _symbol(dim: Any) -> str:
    """What an open dimension is called; "" where that says only that it is open."""
    name = str(dim.dim_param)
    return name if any(map(str.isalpha, name)) and name.lower() not in NO_NAMES else ""


def _is_batch(symbol: str, rank: int) -> bool:
    """Whether an open first axis is called what a batch is called."""
    word = symbol.lower()
    return rank > 1 and ("batch" in word or word in BATCHES or word.startswith("unk_"))
