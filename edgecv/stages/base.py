"""What every stage is: a checked set of recipe parameters with one `run`.

A stage is one file named by the word a recipe uses. Its fields are its recipe parameters; its
docstring opens with its equation and its paper; its class variables say what it takes and gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgecv.context import Context, Verdict
from edgecv.limits import NAMES, Limits
from edgecv.target import Target

if TYPE_CHECKING:
    from edgecv.models.edits import Edit


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
        """The edit that it will make, with the layers that the recipe names
        (`edgecv.models.edits`)."""
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
