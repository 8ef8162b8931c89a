"""A stage of a recipe, run on what it reads."""

from __future__ import annotations

import logging
from typing import Any

from edgecv.graph_files import graph_file
from edgecv.models import edits
from edgecv.plan.makers.work import Work

log = logging.getLogger(__name__)


def make(work: Work) -> None:
    stage = work.node.stage
    assert stage is not None
    source: Any
    if "graph" in work.inputs:
        from edgecv.graph import Graph

        source = Graph.load(work.inputs["graph"])
    elif (file := graph_file(work.inputs["model"])) is not None:
        source = file
    else:
        from edgecv.models.model import Model

        source = Model.load(work.inputs["model"])
        if planned := stage.planned(work.node.step):
            edits.check(planned, source[0].edits)
        if stage.fills and any(edit["op"] == "connections" for edit in source[0].edits):
            log.warning("%s: trains what sparsify took out again: sparsify last", work.node.step)
    stage.run(source, work.context())
