"""w ← s · round(w / s),  s = max|w| / (2^(bits−1) − 1): weights on a grid of few levels."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from edgecv.context import Context
from edgecv.stages.base import Stage


class Coarsen(Stage):
    """Round the weights to few levels."""

    word: ClassVar[str] = "coarsen"
    compresses: ClassVar[bool] = True

    bits: int = Field(default=6, ge=2, le=8, description="of a weight's grid")

    def run(self, source: Any, context: Context) -> None:
        model, module = source
        for weight in module.parameters():
            step = weight.data.abs().max() / (2 ** (self.bits - 1) - 1)
            if step > 0:
                weight.data = (weight.data / step).round() * step
        made = model.with_facts(context.where, {"bits": self.bits})
        made.save(context.out, module.eval())
