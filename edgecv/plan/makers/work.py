"""One node to make: what it is made of, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecv.context import Context
from edgecv.data.images import Images
from edgecv.errors import RecipeError
from edgecv.measuring.run import Measuring
from edgecv.plan.graph import Expansion
from edgecv.plan.node import Node
from edgecv.runtime.preprocess import Preprocess
from edgecv.target import Target


@dataclass(frozen=True)
class Work:
    """One node to make.

    inputs:   role -> folder of a finished result
    images:   split -> folder of decoded images
    progress: called as progress(done, total, note)
    """

    expansion: Expansion
    node: Node
    inputs: dict[str, Path]
    images: dict[str, Path]
    out: Path
    progress: Callable[..., None]

    def preprocess(self) -> Preprocess:
        pixels = Images.load(self.images["train"]).pixels
        given = self.expansion.input()
        channels = int(pixels.shape[-1])
        for key in ("mean", "std"):
            if len(given[key]) not in (1, channels):
                what = f"{len(given[key])} values for images of {channels} channels"
                raise RecipeError(f"data.{key}", what, "give one value, or one per channel")
        return Preprocess(channels=channels, **given)

    def context(self) -> Context:
        recipe = self.expansion.recipe
        return Context(
            out=self.out,
            seed=recipe.seed,
            preprocess=self.preprocess(),
            images=lambda split: Images.load(self.images[split]),
            folders=self.images,
            labels=recipe.labels or Images.load(self.images["train"]).classes or self._judged(),
            inputs={r: self.inputs[r] for r in ("teacher", "student") if r in self.inputs}
            | self.node.facts.get("files", {}),
            target=self.node.target,
            threads=recipe.threads,
            alignment=recipe.alignment,
            targets=recipe.listed,
            progress=self.progress,
            where=self.node.step or self.node.id,
            doing=Measuring(),
            network=Path(recipe.model.name).name,
            task=recipe.task,
            decode=recipe.decode,
        )

    def _judged(self) -> tuple[str, ...] | None:
        """Names of what boxes, maps or numbers are judged by, where nothing else says them."""
        folder = self.images.get("test")
        test = Images.load(folder) if folder and self.expansion.recipe.task else None
        return (test.classes or None) if test is not None and test.truth is not None else None

    @property
    def on(self) -> Target:
        """The target of a node that has one."""
        assert self.node.target is not None
        return self.node.target
