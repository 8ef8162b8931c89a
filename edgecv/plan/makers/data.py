"""Images, decoded."""

from __future__ import annotations

from edgecv import data as datasets
from edgecv.data.images import Images
from edgecv.plan.makers.work import Work


def make(work: Work) -> None:
    options = work.expansion.recipe.data
    split = work.node.facts["split"]
    datasets.materialise(
        work.expansion.source(split),
        split,
        options.height_width,
        options.channels,
        options.geometry(),
        work.out,
        work.progress,
    )
    if split == "test":
        train, test = Images.load(work.images["train"]), Images.load(work.out)
        if train.classes or not test.classes:
            datasets.check_same_classes(train, test)
        else:  # images that only calibrate say nothing of the network's outputs
            named = datasets.as_outputs(test, work.expansion.recipe.labels)
            named.save_labels(work.out)
            if named.truth is not None and named.truth is not test.truth:
                named.truth.save(work.out)  # boxes and maps hold their classes themselves
