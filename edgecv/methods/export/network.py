"""f(x) in PyTorch → the same f(x) as a file, compared with the network on real images."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.context import Context
from edgecv.graph_files import kind_of, reaches, reader
from edgecv.methods.export.roads import road
from edgecv.target import Target


def export_network(source: Any, context: Context, opset: int = 18) -> None:
    """Write the network as a graph in the format of context.target into context.out.

    source: (Model, module), or the Path of a user's graph file
    Raises ParityError: the file computes something else; UnsupportedError, ModelError.
    """
    from edgecv.methods.export.ends import with_kinds

    module = None if not isinstance(source, tuple) else source[1]
    target = context.target
    assert target is not None
    if module is None and (graph := _of_file(source, target, context)) is not None:
        graph = graph.knowing(source.parent)
        with_kinds(graph, context.labels, context.task).save_facts()
        return
    from edgecv.bundling.inference import judged, plain_answers, torch_answers
    from edgecv.bundling.steadiness import explained
    from edgecv.cores import beside
    from edgecv.errors import ParityError
    from edgecv.fidelity import EXPORT, EXPORT_ONE_BIT, check
    from edgecv.methods.binary.constants_for_export import frozen, one_bit
    from edgecv.methods.lowrank.structured import materialised
    from edgecv.runtime.fidelity import kinds

    if module is None:
        from edgecv.models.importing import onnx_to_torch

        module = onnx_to_torch(source, context.network)
    trained = _trained(source)
    module = trained.network if trained else frozen(materialised(module))
    bits = one_bit(module)
    takes = source[0].facts.get("takes", {}) if isinstance(source, tuple) else {}
    graph = _written(module, takes, context, target, opset, _named(source))
    graph = graph.knowing(context.out if isinstance(source, tuple) else source.parent)
    graph = with_kinds(graph, context.labels, context.task)
    images = context.images("train")
    pixels = judged(images.samples)
    answers = beside(lambda: plain_answers(graph, pixels, context.preprocess, keep=True))
    specs = {spec.name: spec for spec in graph.inputs}
    order = [n for n in _given(module, takes, context) if n in specs]
    inputs = [specs[n] for n in order] if len(order) == len(specs) else graph.inputs
    wanted = torch_answers(module, pixels, context.preprocess, inputs)
    found = answers()
    where = f"export of {context.where} to {target.graph}"
    tolerance = EXPORT_ONE_BIT if bits else EXPORT
    if bits:
        graph.facts["one_bit"] = bits
    try:
        named, made_up = kinds(graph.outputs), images.made_up
        parity = check(where, wanted, found, tolerance, named, made_up, graph.bounds)
    except ParityError as e:
        raise explained(e, graph, pixels, context.preprocess) from None
    graph.facts["parity"] = parity.to_json()
    if trained:
        graph.facts["learned"] = trained.table(graph, pixels.pixels[len(pixels) // 2], context)
    graph.save_facts()


def _written(
    module: Any, takes: dict[str, Any], context: Context, target: Target, opset: int, where: str
) -> Any:
    """The graph of a torch network by the road of its format."""
    import torch

    torch.set_num_threads(context.threads)
    given = _given(module, takes, context)
    example: Any = given
    if list(given) == ["input"] and given["input"].ndim == 4:
        example = given["input"]
    return road(target.graph).export(module.eval(), example, context, opset, where)


def _given(module: Any, takes: dict[str, Any], context: Context) -> dict[str, Any]:
    """A tensor for each input, in the order of the network's arguments."""
    from edgecv.examples import examples, imported

    return imported(module) or examples(module, takes, context.preprocess, context.network)


def _of_file(source: Path, target: Target, context: Context) -> Any:
    """The graph of a user's file in the format of the target; None where PyTorch lies between."""
    kind = kind_of(source)
    if reaches(target, kind) == kind:
        return road(kind).load(source, context.out)
    if not reader(kind):
        return None
    found = import_module(f"edgecv.models.importing.from_{kind}")
    return found.load(source, context.out, context.network, target.name)


def _named(source: Any) -> str:
    """What the user calls the network: its builder, or its file."""
    return str(source[0].builder) if isinstance(source, tuple) else Path(source).name


def _trained(source: Any) -> Any:
    """The float network inside one that `qat` trained, and what it learned; else None."""
    if not isinstance(source, tuple) or not any(e["op"] == "quantizers" for e in source[0].edits):
        return None
    from edgecv.methods.qat.learned_ranges import Trained

    return Trained(*source)
