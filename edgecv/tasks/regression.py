"""Numbers of an image that are no classes: an angle, a count, a temperature.

    value = offset + scale z                                   of each output z
    R2(column) = 1 - Σ (y - value)² / Σ (y - mean y)²          what of its variance is explained

The metric is the mean of R2 over the columns, each at 0 at the least. Errors have the units of
their columns and no largest value; a share of the variance is in 0..1, larger is better, and means
the same for angles and for counts, so that a limit in points is one. A network that says the mean
of all images has 0. Beside it stand the mean absolute and the root mean square error of each
column, in its own units.

A name may end in a unit in brackets, "angle [deg]": answers tell it apart. Where columns have
sizes far from 1, `offset` and `scale` (their mean and deviation, say) let the network itself
learn numbers near 1.

Pictures are not mirrored or shifted when it learns: most numbers change with that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from edgecv.errors import DataError, UnsupportedError
from edgecv.runtime.answers import Measured
from edgecv.tasks.base import Difference, Outputs, Parts, Score, Task

if TYPE_CHECKING:
    import torch

    from edgecv.data.annotations import Numbers
    from edgecv.methods.training.plan import Plan
    from edgecv.runtime.placement import Placement
    from edgecv.runtime.spec import TensorSpec

_WHERE = "task regression"
_UNIT = re.compile(r"(.*\S)\s*\[([^\[\]]*)\]\s*")


class Values(NamedTuple):
    """values: float64 (K,), in the columns' own units; nan: how many of them are no numbers"""

    values: np.ndarray
    nan: int = 0


@dataclass(frozen=True)
class RegressionTask(Task):
    """How a row of numbers is read.

    offset, scale: of each column; one number is of all of them

    Raises ValueError: a value that it cannot have.
    """

    name: ClassVar[str] = "regression"
    metric: ClassVar[str] = "r2"
    points: ClassVar[str] = "R2"
    truth: ClassVar[str] = "Numbers"
    rows: ClassVar[str] = "values"
    figures: ClassVar[str] = "MAE, RMSE: mean absolute and root mean square error of a column."
    augments: ClassVar[tuple[str, ...]] = ("colour",)
    amounts: ClassVar[tuple[str, ...]] = ("mae", "rmse")

    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for key in ("offset", "scale"):
            value = getattr(self, key)
            row = tuple(value) if isinstance(value, list | tuple) else (value,)
            if not row or not all(type(v) in (int, float) and np.isfinite(v) for v in row):
                raise ValueError(f"decode.{key} {value!r} is wrong: a number for each column")
            object.__setattr__(self, key, row)
        if 0 in self.scale:
            raise ValueError("decode.scale is 0: every answer would be the same")

    @classmethod
    def of_graph(
        cls,
        outputs: Sequence[TensorSpec],
        size: tuple[int, int],  # noqa: ARG003
        classes: int | None,
        said: Mapping[str, Any],
    ) -> RegressionTask:
        first = outputs[0]
        width = int(np.prod(first.shape[1:]))
        row = len(first.shape) > 1 and first.shape[0] == 1 and max(first.shape[1:]) == width
        if not row or classes not in (None, width):
            found = f"output {first.name} is {'x'.join(map(str, first.shape))}"
            what = f"{found}, expected a row of numbers 1x{classes or 'K'}"
            hint = "a name for each number: the table's columns, or --labels"
            raise UnsupportedError(_WHERE, what, hint if row else "name another task")
        made = cls.of_said(said)
        for key, given in (("offset", made.offset), ("scale", made.scale)):
            if len(given) not in (1, width):
                what = f"{key} has {len(given)} numbers, and the network {width}"
                raise UnsupportedError(_WHERE, what, "one, or one of each column")
        return made

    # --- on devices too

    def read(
        self,
        outputs: Outputs,
        lies: Placement,  # noqa: ARG002
        size: tuple[int, int],  # noqa: ARG002
        **asked: Any,
    ) -> Values:
        """asked: nothing."""
        if asked:
            raise TypeError(f"task regression takes an image alone, not {next(iter(asked))}")
        z = next(iter(outputs.values())).reshape(-1).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.asarray(self.offset) + np.asarray(self.scale) * z
        return Values(values, int(np.count_nonzero(~np.isfinite(values))))

    def answer(self, read: Values, labels: Sequence[str]) -> list[Measured]:
        """Every number with its name and its unit, in the order of the columns."""
        return [Measured(i, *named(labels, i), v) for i, v in enumerate(read.values.tolist())]

    def to_json(self, read: Values, labels: Sequence[str]) -> list[dict[str, Any]]:
        """value is null where it is no number."""
        rows = (m._asdict() for m in self.answer(read, labels))
        return [{**r, "value": r["value"] if np.isfinite(r["value"]) else None} for r in rows]

    # --- on the host

    def score(self, reads: Iterable[Values], truth: Numbers, classes: Sequence[str]) -> Score:
        """A number of the truth that is NaN is not judged; one that the network says so counts as
        if it had said the mean. A column whose true numbers are all the same has no R2: None.

        Raises DataError: not as many answers as images, rows of another length, no column that
        varies.
        """
        rows = [np.asarray(read.values, np.float64) for read in reads]
        true = np.asarray(truth.values, np.float64)
        if len(rows) != len(true):
            raise DataError(_WHERE, f"{len(rows)} answers for {len(true)} images")
        if {len(r) for r in rows} != {true.shape[1]}:
            what = f"the network says {len(rows[0])} numbers and the table {true.shape[1]}"
            raise DataError(_WHERE, what, "a column for each output, in their order")
        said, known = np.stack(rows), np.isfinite(true)
        mean = true.sum(0, where=known) / np.maximum(known.sum(0), 1)
        said = np.where(np.isfinite(said), said, mean)
        # centred: squares of large numbers that vary little would leave nothing of that
        parts = {"error": said - true, "true": true - mean}
        once = np.ones((len(rows), 1))
        each = explained(parts, once)[:, 0]
        if np.isnan(each).all():
            what = "no column of the table varies"
            raise DataError(_WHERE, what, "images with other numbers are needed to judge by")
        per_class = {n: None if np.isnan(v) else float(v)
                     for n, v in zip(classes, each, strict=True)}  # fmt: skip
        value = float(value_of(parts, once)[0])
        return Score(value, len(rows), per_class, _errors(parts["error"], known, classes), parts)

    def difference(self, before: Parts, after: Parts, alpha: float) -> Difference:
        """The drop of R2, by the paired bootstrap over images. Raises ValueError: other images."""
        from edgecv.tasks import paired

        a, b = before["true"], after["true"]
        if a.shape != b.shape or not np.array_equal(a, b, equal_nan=True):
            raise ValueError("measured on different test images")
        return paired.difference(value_of, before, after, len(a), alpha)

    def interval(self, parts: Parts, alpha: float) -> tuple[float, float]:
        from edgecv.tasks import paired

        return paired.interval(value_of, parts, len(parts["true"]), alpha)

    def augmented(
        self, pixels: np.ndarray, truths: Sequence[Any], plan: Plan, rng: np.random.Generator
    ) -> tuple[np.ndarray, Sequence[Any]]:
        """Recoloured alone."""
        from edgecv.tasks import augment

        return augment.recoloured_all(pixels, plan, rng), truths

    def loss(self, outputs: Any, truths: Sequence[np.ndarray]) -> torch.Tensor:
        """The mean square error of z, over all numbers that are known; 0 without any.

        outputs: (N, K); truths: of each image (K,), in the columns' units. Raises ModelError.
        """
        import torch

        from edgecv.errors import ModelError

        wanted = (np.stack(list(truths)) - np.asarray(self.offset)) / np.asarray(self.scale)
        if not isinstance(outputs, torch.Tensor) or outputs.flatten(1).shape != wanted.shape:
            shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs)
            raise ModelError("regression loss", f"outputs are {shape}, expected {wanted.shape}")
        known = torch.from_numpy(np.isfinite(wanted))
        y = torch.from_numpy(np.nan_to_num(wanted)).to(outputs)
        return ((outputs.flatten(1) - y) * known).square().sum() / known.sum().clamp(min=1)

    def drawn(self, image: np.ndarray, read: Values, labels: Sequence[str]) -> np.ndarray:
        from edgecv.tasks import drawing

        return drawing.numbers(image, self.answer(read, labels))


def named(labels: Sequence[str], index: int) -> tuple[str, str]:
    """(name, unit) of a column: "angle [deg]" is ("angle", "deg"); without labels its number."""
    label = labels[index] if index < len(labels) else str(index)
    parted = _UNIT.fullmatch(label)
    return (parted[1], parted[2]) if parted else (label, "")


def explained(parts: Parts, weights: np.ndarray) -> np.ndarray:
    """R2 of each column of the images taken so many times each, float64 (K, R), 0 at the least;
    NaN where the column does not vary.

    parts: error (N, K), said - true; true (N, K); NaN where nothing is known. weights: (N, R)
    """
    weights = np.asarray(weights, np.float64)
    known = np.isfinite(parts["true"])
    true = np.where(known, parts["true"], 0.0).astype(np.float64)
    error = np.where(known, parts["error"], 0.0).astype(np.float64)
    count = known.T.astype(np.float64) @ weights
    sums, squares = true.T @ weights, (true**2).T @ weights
    varying = squares - sums**2 / np.maximum(count, 1.0)
    wrong = (error**2).T @ weights
    least = 1e-12 * (true**2).sum(0)[:, None]  # rounding of sums
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.clip(1.0 - wrong / varying, 0.0, 1.0)
    return np.where((count > 1) & (varying > least), found, np.nan)


def value_of(parts: Parts, weights: np.ndarray) -> np.ndarray:
    """The mean of R2 over the columns that vary, float64 (R,); 0 where none does."""
    each = explained(parts, weights)
    count = (~np.isnan(each)).sum(0)
    return np.asarray(np.nansum(each, 0) / np.maximum(count, 1))


def _errors(error: np.ndarray, known: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """MAE and RMSE of each column that has a number."""
    found = {}
    for k, name in enumerate(classes):
        own = error[known[:, k], k]
        if len(own):
            found[f"mae {name}"] = float(np.abs(own).mean())
            found[f"rmse {name}"] = float(np.sqrt(np.square(own).mean()))
    return found
