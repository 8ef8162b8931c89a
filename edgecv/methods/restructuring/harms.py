"""What each replaced activation alone does to a network's answers.

    harm_a = mean over quantities of Σ w (t − t_a)² / Σ w t²     t_a: activation a replaced, matched

One session tells them all: each activation becomes an `If`, whose branches are the function that
was and the one that would be, and the graph takes the number of the one that is replaced. A model
for each would be built and optimised a hundred times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.backends.onnxruntime.tensors import runner
from edgecv.graphs.onnx.draft import Draft
from edgecv.graphs.onnx.epilogues import Epilogue, epilogues
from edgecv.methods.restructuring import Activation
from edgecv.methods.restructuring.activations import Answers, Place, cheaper_node, ended
from edgecv.methods.restructuring.matching import Match

NUMBER = "edgecv/replaced"  # the graph's input: the place of what is replaced; -1 is nothing


def harms(
    model: Any,
    found: Sequence[Place],
    into: Activation,
    known: Mapping[str, Match],
    images: Sequence[np.ndarray],
) -> dict[str, float]:
    """The harm of each replacement, by the tensor that the activation gives.

    model: onnx.ModelProto. known: matches; what has none is only replaced. images: float32
    (C, H, W); a few are enough to tell the orders of magnitude
    """
    answers = Answers(model, images)
    run = runner(switched(ended(model, answers.ends), found, into, known))
    taken = model.graph.input[0].name
    feeds = [{taken: np.ascontiguousarray(image[None], np.float32)} for image in images]
    return {
        place.tensor: answers.error_of([run(feed | {NUMBER: np.array(i)}) for feed in feeds])
        for i, place in enumerate(found)
    }


def switched(
    model: Any, found: Sequence[Place], into: Activation, known: Mapping[str, Match]
) -> Any:
    """A copy of an onnx.ModelProto that takes NUMBER too, int64 (): which of those is replaced."""
    import onnx
    from onnx import TensorProto, helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    draft = Draft(made, "activations")
    own = {one.output: one for one in epilogues(made)}
    for i, place in enumerate(found):
        one = own.get(place.tensor)
        if one is None:  # the answers do not come of it
            continue
        at = draft.hold(f"{place.tensor}/number", np.array(i))
        asked = draft.unique(f"{place.tensor}/asked")
        test = helper.make_node("Equal", [NUMBER, at], [asked])
        new = _new(draft, one, into, known.get(place.tensor))
        switch = helper.make_node(
            "If", [asked], [place.tensor], then_branch=new, else_branch=_old(one)
        )
        draft.before(one.nodes[-1], test, switch)
        for node in one.nodes:
            draft.remove(node)
    number = helper.make_tensor_value_info(NUMBER, TensorProto.INT64, ())
    made.graph.input.append(number)
    return made


def _old(one: Epilogue) -> Any:
    """The activation as it was, its tensors under names of the branch."""
    import onnx

    renamed = {name: f"{name}/as_it_was" for node in one.nodes for name in node.output}
    nodes = []
    for node in one.nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for side in (copy.input, copy.output):
            for i, name in enumerate(side):
                side[i] = renamed.get(name, name)
        nodes.append(copy)
    return _branch(nodes, renamed[one.output])


def _new(draft: Draft, one: Epilogue, into: Activation, match: Match | None) -> Any:
    """c g(b x + a) + d, by `match`; g(x) without one."""
    name, nodes = one.output, list[Any]()

    def step(op: str, value: str, by: np.ndarray, what: str) -> str:
        held = draft.hold(f"{name}/{what}", by.reshape(1, -1, 1, 1).astype(np.float32))
        nodes.append(draft.make(op, [value, held], draft.unique(f"{name}/by_{what}")))
        return str(nodes[-1].output[0])

    x = one.input
    if match is not None:
        x = step("Add", step("Mul", x, match.b, "b"), match.a, "a")
    given = draft.unique(f"{name}/cheaper")
    nodes.append(cheaper_node(draft, into, x, given, name))
    if match is not None and match.scaled:
        given = step("Add", step("Mul", given, match.c, "c"), match.d, "d")
    return _branch(nodes, given)


def _branch(nodes: Sequence[Any], output: str) -> Any:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), f"{output}/branch", [], [value])
