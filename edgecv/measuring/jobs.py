"""What a process of its own is asked to do, as types: what it reads is what was written.

Paths are of folders and files on this machine; times are milliseconds, budgets seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from edgecv.measuring.product import Product
from edgecv.runtime.preprocess import Preprocess
from edgecv.target import Target

if TYPE_CHECKING:
    from edgecv.context import Context

# Enough to tell candidates apart; a run measures what it ships by itself, and longer.
TRIAL_PLAN = {"rounds": 24, "precision": 0.01, "budget_s": 8.0, "burst_ms": 5.0}


class Job:
    """A job that travels as JSON."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dict(TypeAdapter(type(self)).dump_python(self, mode="json"))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises pydantic.ValidationError: an older or newer edgecv wrote it."""
        return TypeAdapter(cls).validate_python(dict(data))


@dataclass(frozen=True)
class PackJob(Job):
    """Make a graph into a bundle and prove it (`edgecv.bundling.build`).

    graph:       folder of a Graph
    images:      folder of decoded images that calibrate
    test:        folder of those that accuracy is measured on, or None
    judged:      folder of those that answers are compared on; None takes images
    floats:      folder of the float Graph that an int8 or fp16 one was made of, or None
    test_digest: of the latter, which two bundles' answers are compared by
    made_from:   digest of what the graph was made from
    trained:     top-1 of a float graph's network in PyTorch, on the images of test, or None
    task:        what the network is for, as the user says; "none", or None where nobody did
    decode:      what the user says of how the task reads its outputs
    out:         folder for name.edgecv
    """

    graph: Path
    target: Target
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    images: Path
    test: Path | None
    name: str
    out: Path
    test_digest: str = ""
    made_from: str = ""
    judged: Path | None = None
    floats: Path | None = None
    trained: float | None = None
    task: str | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(context: Context, graph: Path, name: str, out: Path, test: bool = True) -> PackJob:
        """The job of a stage, for its own target. test: also judge the answers"""
        assert context.target is not None
        folders = context.folders
        return PackJob(
            graph, context.target, context.preprocess, context.labels,
            folders["train"], folders["test"] if test else None, name, out,
            judged=folders["test"] if test else None, task=context.task, decode=context.decode,
        )  # fmt: skip


@dataclass(frozen=True)
class MeasureJob(Job):
    """Bundles side by side (`edgecv.benchmark.measure`). plan: fields of its Plan"""

    bundles: tuple[Path, ...]
    plan: Mapping[str, Any]
    reference: int = 0
    starts: bool = True


@dataclass(frozen=True)
class ProfileJob(Job):
    """Every layer of bundles (`edgecv.benchmark.profile`)."""

    bundles: tuple[Path, ...]
    threads: int = 1


@dataclass(frozen=True)
class LayersJob(Job):
    """Lines of single layers, each beside the first of its line (`edgecv.measuring.layer_times`).

    integer: in int8, and not in float
    """

    engine: str
    threads: int
    integer: bool
    seed: int
    lines: tuple[tuple[Product, ...], ...]


@dataclass(frozen=True)
class RowsJob(Job):
    """Layers beside the rows of layers that could replace them (`edgecv.measuring.row_times`).

    layers: name -> options, each a row of layers; the first is the layer as it is
    """

    engine: str
    threads: int
    integer: bool
    seed: int
    budget_s: float
    layers: Mapping[str, tuple[tuple[Product, ...], ...]]


@dataclass(frozen=True)
class Times:
    """What a RowsJob found of one layer.

    ms:     of the whole layer
    ratios: of every option to it; the first is 1. Empty where it could not be measured
    highs:  the upper ends of the ratios' 95% intervals
    """

    ms: float = 0.0
    ratios: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    refusal: str = ""
