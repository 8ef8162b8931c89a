"""The door for a user's OpenVINO IR: an .xml with its .bin beside it, float or FakeQuantize.

What is written is the same network, static and with its own names. Weights that are only stored in
fewer bits become the floats that they stand for, as those of other formats do; FakeQuantize and the
int8 weights of layers behind it stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv import child
from edgecv.backends.openvino.run import Session
from edgecv.errors import EdgecvError, EngineError, ModelError
from edgecv.graph import Graph
from edgecv.graph_files import absent
from edgecv.graphs import groups
from edgecv.graphs.onnx.pins import Pins
from edgecv.graphs.openvino import groups as openvino_groups
from edgecv.graphs.openvino import nodes
from edgecv.graphs.openvino.constants import BYTES, FLOATS, HALVES, element, value
from edgecv.graphs.openvino.files import FILES, read, save
from edgecv.graphs.openvino.layers import LAYERS, quantized
from edgecv.methods.export import for_openvino
from edgecv.runtime.spec import TensorSpec

CHANNELS = (1, 3, 4)
LFS = b"version https://git-lfs"


def load(path: Path, out: Path, pins: Pins | None = None) -> Graph:
    """Check a user's IR and write out/model.xml, out/model.bin and out/graph.json, in a process of
    its own.

    pins: their size is taken where the file leaves it open
    precision is "int8" where activations go through a FakeQuantize, else "fp32"; facts["stored"] is
    "fp16" or "int8" where weights were kept so and are floats now.
    Raises ModelError: no such files, no IR, not of one pair, weights not finite, a batch of
    several, open dimensions.
    """
    where, beside = path.name, path.with_suffix(".bin")
    if not path.is_file():
        raise absent(path)
    head = path.read_bytes()[:4096]
    if head.startswith(LFS):
        raise ModelError(where, "is a git-lfs pointer, not the file", "git lfs pull")
    if b"<net" not in head:
        raise ModelError(where, "is no OpenVINO IR", "an .xml as `ovc` or `save_model` writes it")
    if not beside.is_file():
        what = f"its weights are not there: {beside.name}"
        raise ModelError(where, what, "put the .bin file beside the .xml")
    size = pins and pins.size
    job = {"path": str(path.resolve()), "out": str(out.resolve()), "size": size}
    try:
        child.call("edgecv.methods.export.openvino_file", job, where)
    except EngineError as e:
        what = f"OpenVINO cannot open it: {e.what}"
        raise ModelError(where, what, e.hint or "is it damaged? convert it again") from None
    return Graph.load(out)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """`load`, in the process that does it."""
    path, out = Path(job["path"]), Path(job["out"])
    where = path.name
    try:
        model = read((path.read_bytes(), path.with_suffix(".bin").read_bytes()), where)
    except EngineError as e:
        raise ModelError(where, f"OpenVINO cannot read it: {e.what}", e.hint) from None
    told = _told(model)
    _name(model)
    _pin(model, where, tuple(job["size"]) if job["size"] else None)
    stored = _unpacked(model)
    _check_finite(model, where)
    out.mkdir(parents=True, exist_ok=True)
    xml = out / FILES[0]
    save(model, xml)
    names = [t for n in model.get_ordered_ops() if (t := nodes.kind(n)) != "Result"]
    integer, floats = _integers(model)
    files = {name: (out / name).read_bytes() for name in FILES}
    try:
        session = Session(files)
        session.run({t.name: np.zeros(t.shape, t.dtype) for t in session.inputs})
    except EdgecvError as e:
        raise ModelError(where, f"does not run: {e.what}", "convert it again") from None
    inputs, outputs = session.inputs, session.outputs
    facts: dict[str, Any] = {
        "ops": {n: names.count(n) for n in sorted(set(names))},
        "notes": [],
        "own": {"inputs": [t.to_json() for t in inputs], "outputs": [t.to_json() for t in outputs]},
    }
    facts |= {"stored": stored} if stored else {}
    if stored == "int8":
        facts["notes"] = ["weights stored in int8 are the floats they stand for"]
    facts |= {"input": found} if (found := _of_input(told, inputs, outputs)) else {}
    facts |= {"float_ends": floats} if integer else {}
    parted = groups.told(outputs, openvino_groups.found(model))
    graph = Graph(xml, "openvino", "int8" if integer else "fp32", inputs, parted, facts)
    bounded = zip(outputs, for_openvino.ends(graph), strict=True)
    if bounds := {t.name: 1.0 for t, op in bounded if op in ("Sigmoid", "Softmax", "Tanh")}:
        facts["bounds"] = bounds
    graph.save_facts()
    return {}


def _name(model: Any) -> None:
    """Every input and output has one name: the file's, else that of its operator."""
    taken: set[str] = set()
    for port in (*model.inputs, *model.outputs):
        names = sorted(port.get_names())
        node = port.get_node()
        if nodes.kind(node) == "Result" and not names:
            node = nodes.source(node)
        name = names[0] if names else nodes.name(node)
        if name in taken:
            raise ModelError("OpenVINO IR", f"has two inputs or outputs called {name!r}",
                             "rename one")  # fmt: skip
        taken.add(name)
        port.get_tensor().set_names({name})


def _pin(model: Any, where: str, size: tuple[int, int] | None) -> None:
    """Static shapes, and the layout of the image written to its input."""
    from openvino import Layout

    shapes = {}
    for port in model.inputs:
        place = f"{where}: input {port.any_name!r}"
        dims = [d.get_length() if d.is_static else -1 for d in port.get_partial_shape()]
        if not dims or port.get_partial_shape().rank.is_dynamic:
            continue
        if dims[0] < 1:
            dims[0] = 1
        if len(dims) == 4:
            node = port.get_node()
            said = str(node.layout).replace(",", "")
            last = said == "[NHWC]" or (
                said in ("[...]", "") and dims[3] in CHANNELS and dims[1] not in CHANNELS
            )
            node.layout = Layout("NHWC" if last else "NCHW")
            for at, side in zip((1, 2) if last else (2, 3), size or (-1, -1), strict=True):
                dims[at] = side if dims[at] < 1 else dims[at]
        if min(dims) < 1:
            hint = (
                "give --input-size (data.size in a recipe)" if size is None else "convert it fixed"
            )
            what = f"dimension {dims.index(-1)} of {port.get_partial_shape()} is dynamic"
            raise ModelError(place, what, hint)
        shapes[port] = dims
    try:
        if any(port.get_partial_shape().is_dynamic for port in model.inputs):
            model.reshape(shapes)
    except Exception as e:
        said = " ".join(str(e).split())[-200:]
        raise ModelError(where, f"cannot be made static: {said}", "another size?") from None
    for port in model.outputs:
        if port.get_partial_shape().is_dynamic:
            what = f"output {port.any_name!r} {port.get_partial_shape()} has no fixed shape"
            raise ModelError(where, what, "convert it without what selects its results")


def _unpacked(model: Any) -> str:
    """Constants that are kept in fewer bits as float32, in place; "fp16" or "int8" where there were
    some. int8 ones stay where activations are quantized too: their layers compute on them."""
    from openvino import opset13 as opset

    kinds = HALVES if _integers(model)[0] else (*HALVES, *BYTES)
    found = ""
    for node in model.get_ordered_ops():
        if nodes.kind(node) not in ("Convert", "Multiply"):
            continue
        real, kept = value(node)
        if real is None or kept not in kinds:
            continue
        if any(value(reader)[0] is not None for reader in nodes.readers(node)):
            continue  # it is unpacked further on
        made = opset.constant(real.astype(np.float32), np.float32)
        made.set_friendly_name(f"{nodes.name(node)}/float")
        node.output(0).replace(made.output(0))
        found = "int8" if kept in BYTES else "fp16"
    return found


def _check_finite(model: Any, where: str) -> None:
    for node in model.get_ordered_ops():
        if nodes.kind(node) != "Constant":
            continue
        if element(node) not in FLOATS:
            continue
        if not np.isfinite(node.get_data(dtype=np.float32)).all():
            name = nodes.name(node)
            raise ModelError(f"{where}: {name}", "holds NaN or infinite values", "train it again")


def _integers(model: Any) -> tuple[bool, list[str]]:
    """Whether activations are quantized, and the layers whose own are not."""
    made, floats = False, []
    for node in model.get_ordered_ops():
        if nodes.kind(node) == "FakeQuantize":
            made |= nodes.kind(nodes.source(node)) != "Constant"
        if nodes.kind(node) in LAYERS and not quantized(nodes.source(node)):
            floats.append(nodes.name(node))
    return made, floats


def _told(model: Any) -> dict[str, str]:
    """What the file says of its image and classes: rt_info/model_info, as OpenVINO's Model API
    writes it."""
    found = {}
    for key in ("mean_values", "scale_values", "labels"):
        place = ["model_info", key]
        if model.has_rt_info(place):
            found[key] = model.get_rt_info(place).astype(str)
    return found


def _of_input(
    told: dict[str, str], inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> dict[str, Any]:
    """mean and std in units of 0..255, and labels that fit the first output."""
    found: dict[str, Any] = {}
    try:
        mean, std = ([float(v) for v in told.get(k, "").replace(",", " ").split()]
                     for k in ("mean_values", "scale_values"))  # fmt: skip
    except ValueError:
        mean, std = [], []
    if std and all(v > 0 for v in std):
        found = {"mean": mean or [0.0], "std": std}
    elif inputs[0].dtype == "uint8":
        found = {"mean": [0.0], "std": [1.0]}
    labels = told.get("labels", "").split()
    if labels and [n for n in outputs[0].shape[1:] if n > 1] == [len(labels)]:
        found["labels"] = labels
    return found


if __name__ == "__main__":
    child.serve(work)
