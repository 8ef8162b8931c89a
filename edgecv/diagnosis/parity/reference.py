"""What a bundle was made of, as forms from the first to the last.

a run's folder   PyTorch (its Model), the float graph, the quantized graph: results.json says
                 which nodes, store/ holds them
--against        a Model folder, an .onnx or .tflite file, or another bundle
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.backends import facts, has
from edgecv.diagnosis.parity import images
from edgecv.diagnosis.parity.images import Samples
from edgecv.diagnosis.parity.layers import Form
from edgecv.errors import DataError, EdgecvError
from edgecv.report.folder import Run, load
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.runtime.preprocess import Preprocess

Opener = Callable[[], Form]


@dataclass
class Reference:
    """What came before the compiled bundle.

    forms:      (step, opener), the first compared with nothing; step is how a form was made
    preprocess: what the reference does with pixels; None where it does not say
    images:     its test data; None where it has none
    complete:   the last form is the graph that the bundle was compiled from
    notes:      what could not be compared, a sentence each
    """

    what: str
    forms: list[tuple[str, Opener]] = field(default_factory=list)
    preprocess: Preprocess | None = None
    images: Samples | None = None
    complete: bool = False
    notes: list[str] = field(default_factory=list)


def find(contents: Contents, against: Path | None) -> Reference:
    """Raises DataError where there is nothing to compare with, EdgecvError for what is damaged."""
    if against is not None:
        return _given(contents, against)
    for folder in contents.path.resolve().parents:
        if (folder / "results.json").is_file():
            found = _of_run(contents, Run(folder, load(folder)))
            if found:
                return found
    raise DataError(
        str(contents.path),
        "what it was made from is not here: no run's folder around it holds it",
        "give --against: a Model folder, an .onnx or .tflite file, or another bundle",
    )


def _of_run(contents: Contents, run: Run) -> Reference | None:
    node = next((n for n in run.nodes.values() if _made(n, contents, run)), None)
    if node is None:
        return None
    reference = Reference(str(run.folder), complete=True)
    graph, source = run.nodes[node["inputs"]["graph"]], run.float_graph(node)
    exported = run.nodes.get(source or "", {})
    model = run.place(exported.get("inputs", {}).get("model"))
    if model and (model / "model.json").is_file():
        reference.forms.append(("train", partial(torch_form, model, contents)))
    elif model and (model / "source.onnx").is_file():
        reference.forms.append(("train", partial(graph_form, model / "source.onnx", "the .onnx")))
    for name, title in dict.fromkeys([(source, "float graph"), (graph["id"], "graph")]):
        if path := run.graph(name):
            step = str(run.nodes[str(name)]["kind"])
            title = "quantized graph" if step == "quantize" else title
            if title == "graph":  # the float graph is the graph
                continue
            reference.forms.append(
                (step, partial(graph_form, path, f"{title} ({path.suffix[1:]})"))
            )
    if not reference.forms:
        raise DataError(str(run.folder), "the run's store no longer holds its graphs",
                        "run the recipe again, or give --against")  # fmt: skip
    key = run.json(node["id"], "key.json").get("key", {}).get("input")
    if key:
        reference.preprocess = Preprocess.from_json(
            {**key, "channels": contents.preprocess.channels}
        )
    folder = run.place(node["inputs"].get("test"))
    reference.images = images.of_run(folder) if folder else None
    return reference


def _made(node: dict[str, Any], contents: Contents, run: Run) -> bool:
    """Whether a node made this bundle: by the digest of the graph that it was made from."""
    graph = run.nodes.get(node["inputs"].get("graph", ""))
    if node["kind"] != "bundle" or graph is None:
        return False
    made_from = contents.manifest.get("recipe_digest")
    named = contents.manifest["name"] == f"{node.get('step')}.{node.get('target')}"
    return named if not made_from else named and graph["digest"] == made_from


def _given(contents: Contents, path: Path) -> Reference:
    if path.is_dir():
        from edgecv.models.model import Model

        model = Model.read(path)
        pre = Preprocess.from_json(model.input) if model.input else None
        return Reference(str(path), [("train", lambda: torch_form(path, contents))], pre)
    if path.suffix in (".onnx", ".tflite"):
        return Reference(str(path), [("train", partial(graph_form, path, path.name))])
    other = read_bundle(path)
    reference = Reference(str(path), [("train", lambda: bundle_form(other, path.name))])
    reference.preprocess = replace(
        other.preprocess, layout="NCHW", dtype="float32", scale=None, zero_point=None
    )
    if other.golden_inputs:
        reference.images = images.of_goldens(other)
    return reference


def graph_form(path: Path, title: str) -> Form:
    """An .onnx or .tflite file as it means, on plain kernels."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise DataError(str(path), f"cannot be read: {e.strerror}") from None
    return _content_form(content, path.suffix, title)


def _content_form(content: bytes, suffix: str, title: str, compiled: bool = False) -> Form:
    if suffix == ".tflite":
        from edgecv.diagnosis.parity.tflite_network import TfliteNetwork

        return TfliteNetwork(content, title, delegated=compiled)
    from edgecv.diagnosis.parity.onnx_network import OnnxNetwork

    return OnnxNetwork(content, title, optimised=compiled)


def torch_form(folder: Path, contents: Contents) -> Form:
    """A Model folder, for images of the size that it says, or else the bundle's.

    Of one that learnt its grids, the float network that was exported: its weights on their grid.
    """
    from edgecv.diagnosis.parity.torch_network import TorchNetwork
    from edgecv.methods.lowrank.structured import materialised
    from edgecv.methods.qat.attach import has_quantizers
    from edgecv.methods.qat.learned_ranges import Trained
    from edgecv.models.model import Model

    model, module = Model.load(folder)
    title = "PyTorch"
    if has_quantizers(module):
        module, title = Trained(model, module).network, "PyTorch, weights on their grid"
    size = model.input.get("size", contents.preprocess.size)
    channels = model.input.get("channels", contents.preprocess.channels)
    return TorchNetwork(materialised(module), (1, channels, *size), title)


def simulated(contents: Contents) -> Opener | None:
    """The bundle's own graph on plain kernels; None where what it holds is no graph file."""
    name = next(iter(contents.files))
    if Path(name).suffix not in (".onnx", ".tflite") or facts(contents.manifest["engine"]).sealed:
        return None
    content, suffix = contents.files[name], Path(name).suffix
    return lambda: _content_form(content, suffix, f"the bundle's graph ({suffix[1:]})")


def bundle_form(contents: Contents, title: str = "") -> Form:
    """What a bundle holds, on the engine that it was compiled for.

    Raises NoCudaDevice, MissingExtraError, EngineError: it does not run here.
    """
    engine = contents.manifest["engine"]
    title = title or f"compiled ({engine})"
    if not contents.manifest.get("compiled", True):
        name = next(iter(contents.files))
        return _content_form(contents.files[name], Path(name).suffix, title, compiled=True)
    if has(engine, "inside"):
        form: Form = import_module(f"edgecv.backends.{engine}.inside").opened(contents.files, title)
        return form
    from edgecv.diagnosis.parity.session_network import SessionNetwork

    return SessionNetwork(contents, title)


def opened(reference: Reference) -> list[tuple[str, Form]]:
    """The forms, opened; a PyTorch network that cannot be built here is a note, not an error,
    where a graph that was made of it is there."""
    found: list[tuple[str, Form]] = []
    for i, (step, opener) in enumerate(reference.forms):
        try:
            found.append((step, opener()))
        except EdgecvError as e:
            if i or len(reference.forms) == 1:
                raise
            reference.notes.append(f"PyTorch is not compared: {e}")
    return found


__all__ = ["Reference", "bundle_form", "find", "graph_form", "opened", "simulated"]
