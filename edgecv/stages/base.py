"""What every stage is: a checked set of recipe parameters with one `run`.

A stage is one file named by the word a recipe uses. Its fields are its recipe parameters; its
docstring opens with its equation and its paper; its class variables say what it takes and gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgecv import tasks
from edgecv.limits import NAMES, Limits
from edgecv.target import Target

if TYPE_CHECKING:
    from edgecv.data.images import Images
    from edgecv.edits import Edit
    from edgecv.measuring.run import Measuring
    from edgecv.runtime.preprocess import Preprocess


@dataclass(frozen=True)
class Verdict:
    """Yes when empty; otherwise the reasons for saying no, one sentence each."""

    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.reasons


def no_progress(done: int, total: int, note: str = "") -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True)
class Context:
    """What a stage may know of the run besides its own parameters and its inputs.

    out:        folder to write the result into; a resumable stage finds its checkpoint here
    preprocess: how pixels become network input, the same code as on the device
    images:     split name ("train", "test") -> uint8 NHWC images with labels
    folders:    split name -> where those images lie on disk, for processes of their own
    threads:    torch threads
    labels:     names of the classes, or None
    inputs:     what else the stage reads: role ("teacher", "student") -> Model folder or file
    alignment:  channel counts are kept a multiple of this (the targets' strictest)
    targets:    the recipe's own, for stages that measure on their engines
    progress:   called as progress(done, total, note)
    doing:      what does jobs in processes of their own; None where no stage measures
    task, decode: what the network is for and how its outputs are read, as the recipe says
    network:    what the user calls the network that came in: its file's name, or its builder
    """

    out: Path
    seed: int
    preprocess: Preprocess
    images: Callable[[str], Images]
    folders: Mapping[str, Path] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    inputs: Mapping[str, Path] = field(default_factory=dict)
    target: Target | None = None
    threads: int = 1
    alignment: int = 1
    targets: tuple[Target, ...] = ()
    progress: Callable[..., None] = no_progress
    where: str = "step"
    doing: Measuring | None = None
    network: str = "the network"
    task: str | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """What accuracy is called in facts: the task's metric."""
        return "top1" if self.task in (None, tasks.NONE) else tasks.task(self.task).metric

    @property
    def classifies(self) -> bool:
        """Whether what is learned and judged is one class an image."""
        return tasks.of_classes(self.task)

    def accuracy(self, value: float, when: str = "") -> dict[str, Any]:
        """It as facts hold it. when: "_before_finetuning", ..."""
        kind = {} if self.classifies else {"metric": self.metric}
        return {**kind, f"{self.metric}{when}": value}

    @property
    def measuring(self) -> Measuring:
        """What makes bundles and measures, for stages that do."""
        assert self.doing is not None, "this stage was not to measure"
        return self.doing


class Stage(BaseModel):
    """One step of a recipe."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )

    word: ClassVar[str] = ""
    produces: ClassVar[Literal["model", "graph"]] = "model"
    per_target: ClassVar[bool] = False
    compresses: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ()
    renames: ClassVar[bool] = False  # layers have other names behind it
    needs_labels: ClassVar[bool] = False  # learns from labels, or is judged by them
    fills: ClassVar[bool] = False  # trains weights that were zero, and does not keep them so

    name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$|^$",
        description="how other steps, files and tables call this step",
    )
    from_: str | None = Field(
        default=None, alias="from", description="the step it reads; default: the one before"
    )
    ship: bool = Field(
        default=False, description="compile and measure it although another step reads it"
    )

    def parameters(self) -> dict[str, Any]:
        """What the result depends on: every field that is not mere naming."""
        return self.model_dump(mode="json", exclude={"name", "from_", "ship"})

    def planned(self, step: str) -> Edit | None:  # noqa: ARG002
        """The edit that it will make, with the layers that the recipe names (`edgecv.edits`)."""
        return None

    def learns_labels(self) -> bool:
        """Whether it learns from labels or is judged by them, with these parameters."""
        return self.needs_labels

    def on_files(self) -> bool:
        """Whether it changes an .onnx file and gives one, with these parameters."""
        return False

    def modules(self) -> tuple[str, ...]:
        """Modules that run with these parameters, beside what its own imports."""
        return ()

    def unfit(self, task: str) -> str:  # noqa: ARG002
        """Why networks of that task, another than classification, cannot go through it with these
        parameters: the end of a sentence; "" where they can."""
        return ""

    def unread(self, task: str) -> str:  # noqa: ARG002
        """Which of these parameters training of that task does not read: the end of a sentence;
        "" where it reads all of them."""
        return ""

    def layer_names(self) -> tuple[str, ...]:
        """Layers that the recipe names, in the network as the step reads it."""
        return ()

    def target_key(self, target: Target) -> dict[str, Any]:
        """What of the target the result depends on (per-target stages only)."""
        return target.model_dump(mode="json", exclude={"device", "device_python"})

    def measures(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:  # noqa: ARG002
        """Those of the recipe's targets on whose engines a shared stage measures."""
        return ()

    def check(self, target: Target) -> Verdict:  # noqa: ARG002
        """Whether this stage can serve that target."""
        return Verdict()

    def run(self, source: Any, context: Context) -> None:  # noqa: ARG002
        """Read the input, write the result into context.out. Never change the input."""
        raise TypeError(f"{type(self).__name__} has no run")


class Limited(Stage):
    """A stage that searches for what meets the limits it is given."""

    accuracy_drop: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="points of the task's metric (top-1, mAP, mIoU) that may be lost at the most",
    )
    latency_ms: float | None = Field(default=None, gt=0, description="the median call, at the most")
    latency_ratio: float | None = Field(
        default=None, gt=0, description="of fp32's latency on the same engine, at the most"
    )
    size_mb: float | None = Field(
        default=None, gt=0, description="the engine's files, 10^6 bytes, at the most"
    )
    sqnr_db: float | None = Field(
        default=None, gt=0, le=100, description="of every output against float, at the least"
    )

    @property
    def limits(self) -> Limits:
        return Limits(**{name: getattr(self, name) for name in NAMES})

    def limited(self, limits: Limits) -> Limited:
        """The same stage under these limits as well, where it has none of that kind."""
        new = {k: v for k, v in limits.asked().items() if getattr(self, k) is None}
        return self.model_copy(update=new)
