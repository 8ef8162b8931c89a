"""What a stage may know of the run, and how it says no: below stages and methods alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv import tasks

if TYPE_CHECKING:
    from edgecv.data.images import Images
    from edgecv.measuring.run import Measuring
    from edgecv.runtime.preprocess import Preprocess
    from edgecv.target import Target


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
