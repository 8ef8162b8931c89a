"""f(x) in PyTorch → the same f(x) as a file: ONNX for ONNX engines, NHWC TFLite for TFLite ones.

The file's outputs are compared with the network's on real images; a file that computes something
else is a ParityError, not a bundle. A graph file that the user brought passes through as it is; an
.onnx file is read into PyTorch first for a TFLite target (`edgecv.models.importing`).

edgecv/methods/export/ holds the roads (onnx.py, tflite.py) and the doors for a user's files; a
target profile says by its format which road it needs: for_<format>.py there.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from edgecv.context import Context
from edgecv.stages.base import Stage
from edgecv.target import Target


class Export(Stage):
    """Write the network as the graph file that a target's engine reads."""

    word: ClassVar[str] = "export"
    produces: ClassVar[Literal["model", "graph"]] = "graph"
    per_target: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train",)

    opset: int = Field(default=18, ge=18, le=24, description="ONNX opset of the file")

    def target_key(self, target: Target) -> dict[str, Any]:
        """What of the target changes the result: shared by all that read the same format."""
        return {"graph": target.graph}

    def run(self, source: Any, context: Context) -> None:
        """source: (Model, module), or the Path of a user's graph file."""
        from edgecv.methods.export.network import export_network

        export_network(source, context, self.opset)
