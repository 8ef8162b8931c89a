"""The door for a user's own .tflite file, float or integer.

A file that is static and stores what it computes with stays as it is, byte for byte. Otherwise a
clean copy is written: open dimensions pinned, stored weights unpacked (`_tflite_own.py`); then the
copy's answers are compared with the file's. Inputs and outputs are called as the file's signature
calls them, else by their tensors' names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import child
from edgecv.backends.tflite.custom import refuse_unknown
from edgecv.backends.tflite.run import Session, plain
from edgecv.errors import EdgecvError, EngineError, ModelError, UnsupportedError
from edgecv.graph import Graph
from edgecv.graph_files import absent
from edgecv.graphs.onnx.pins import Pins
from edgecv.graphs.tflite import flatbuffer, groups, metadata
from edgecv.methods.export import _tflite_own as own
from edgecv.methods.export import for_tflite
from edgecv.methods.export._tflite_mediapipe import said_plainly
from edgecv.runtime.outside import points_outside
from edgecv.runtime.spec import TensorSpec, image_of, on_grid

FILE = "model.tflite"
NEAR = 1e-4  # ‖a − b‖ / ‖a‖: weights that are unpacked are the same, kernels may sum otherwise
LARGEST = 1 << 31  # bytes: beyond them a flatbuffer has no offsets
DYNAMIC = "its int8 weights meet activations that are quantized as they come (dynamic range)"
_FIRST = {"uint8": 0, "int8": -128}  # the integer that a black pixel is
BOUNDED = ("LOGISTIC", "SOFTMAX", "TANH")  # operators that give numbers up to 1
CONTROL = ("WHILE", "IF", "CALL_ONCE", "CALL")
LFS = b"version https://git-lfs"


def load(path: Path, out: Path, pins: Pins | None = None) -> Graph:
    """Check a user's .tflite file and write out/model.tflite and out/graph.json, in a process of
    its own: LiteRT can die of a damaged file.

    pins: their size is taken where the file leaves it open
    precision is "int8" where layers compute in integers or hold int8 weights that they meet with
    activations quantized on the way (facts["notes"] says so), else "fp32"; facts["stored"] is what
    its weights were stored in, "fp16" or "int8", where they are floats now.
    Raises ModelError: no such file, damaged, a network in several subgraphs, weights elsewhere or
    not finite, a batch of several, open dimensions, outputs whose shape hangs on the image, a
    rewrite that would change what it answers; UnsupportedError: an operator that LiteRT has not.
    """
    where = path.name
    _read(path)  # what is no such file needs no process
    job = {"path": str(path.resolve()), "out": str(out.resolve()), "size": pins and pins.size}
    try:
        child.call("edgecv.methods.export.tflite_file", job, where)
    except EngineError as e:
        what = f"LiteRT cannot open it: {e.what}"
        raise ModelError(where, what, "is it damaged? convert it again") from None
    return Graph.load(out)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """`load`, in the process that does it."""
    size = tuple(job["size"]) if job["size"] else None
    _load(Path(job["path"]), Path(job["out"]), size)
    return {}


def _load(path: Path, out: Path, size: tuple[int, int] | None) -> None:
    where, content, model = path.name, *_read(path)
    original, read = content, flatbuffer.parse(content, where)
    graph = flatbuffer.graph_of(model)
    if said_plainly(model, where):
        content = flatbuffer.written(model)
        model = flatbuffer.parse(content, where)  # without the operator's code, which nobody has
        graph = flatbuffer.graph_of(model)
        _as_xnnpack(original, content, where)
    refuse_unknown(model, where)
    _check_finite(model, where)
    _check_names(model, where)
    changed = own.pin(content, model, where, size)
    first, notes, stored = content, list[str](), ""
    if changed:
        content = first = flatbuffer.written(model)
    if not own.has_integers(model):
        kinds = {own.kind(t) for t in graph.tensors if not flatbuffer.is_activation(model, t)}
        if own.unpacked(content, model, where):
            stored = "fp16" if "FLOAT16" in kinds else "int8"
            content = flatbuffer.written(model)
            _same(first, content, where)
            notes = [f"weights stored in {stored} are the floats they stand for"] * (
                stored == "int8"
            )
    layers = own.computes(model)
    if "int16" in layers:
        what = f"layer {layers['int16'][0]!r} computes on 16-bit activations"
        raise UnsupportedError(where, what, "quantize it to 8 bits, or bring the float file")
    if "dynamic" in layers:
        notes.append(f"{DYNAMIC}: {len(layers['dynamic'])} layers, which LiteRT counts as fp32")
    integer = own.has_integers(model) or "dynamic" in layers or "int8" in layers
    inputs, outputs = _run_once(content, where)
    out.mkdir(parents=True, exist_ok=True)
    made = out / FILE
    made.write_bytes(content)
    own_ = {"inputs": _real(inputs), "outputs": _real(outputs)}
    facts: dict[str, Any] = {"ops": flatbuffer.op_counts(model), "notes": notes, "own": own_}
    if stored:
        facts["stored"] = stored
    if told := _told(metadata.said(original, read), inputs, outputs):
        facts["input"] = told
    if integer:
        facts["float_ends"] = [*layers.get("dynamic", ()), *layers.get("fp32", ())]
    found = Graph(made, "tflite", "int8" if integer else "fp32", inputs, outputs, facts)
    ends = zip(outputs, for_tflite.ends(found), strict=True)
    if bounds := {spec.name: 1.0 for spec, op in ends if op in BOUNDED}:
        facts["bounds"] = bounds
    replace(found, outputs=groups.told(outputs, flatbuffer.read(made))).save_facts()


def _real(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    """What the file takes or answers in real numbers, in its own layout."""
    made = (
        replace(s, dtype="float32", scale=None, zero_point=None) if on_grid(s) else s for s in specs
    )
    return [s.to_json() for s in made]


def _told(
    said: metadata.Said, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> dict[str, Any]:
    """How the file itself wants pixels, {"mean", "std"} in units of 0..255, and what its classes
    are called ("labels"), as far as it says.

    What it says of a quantized input counts for the real numbers behind its grid. Where it says
    nothing an integer input takes pixels as they are: q = p, or p - 128 where it is signed.
    """
    spec, told = image_of(inputs) or inputs[0], dict[str, Any]()
    if said.mean is not None and said.std is not None:
        told = {"mean": list(said.mean), "std": list(said.std)}
    elif spec.scale is not None and spec.zero_point is not None and spec.dtype in _FIRST:
        zero = spec.zero_point - _FIRST[spec.dtype]
        told = {"mean": [float(zero)], "std": [1.0 / spec.scale]}
    classes = [n for n in outputs[0].shape[1:] if n > 1]
    if said.labels and classes in ([len(said.labels)], [] if len(said.labels) == 1 else None):
        told["labels"] = list(said.labels)
    return told


def _read(path: Path) -> tuple[bytes, Any]:
    """A file's bytes and the same as a ModelT, whose one subgraph holds all of its network."""
    where = path.name
    if not path.is_file():
        raise absent(path)
    if path.stat().st_size >= LARGEST:
        raise ModelError(where, "is larger than 2 GB, which no .tflite file with its weights is")
    content = path.read_bytes()
    if content.startswith(LFS):
        raise ModelError(where, "is a git-lfs pointer, not the file", "git lfs pull")
    model = flatbuffer.parse(content, where)
    if found := points_outside("tflite", where, content):
        raise ModelError(where, found, "convert it with its weights inside")
    if not model.subgraphs or not model.subgraphs[0].operators or not model.operatorCodes:
        raise ModelError(where, "holds no operators", "convert it again")
    if len(model.subgraphs) > 1:
        held = {flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators}
        named = sorted(n for n in held if n in CONTROL or n.startswith("STABLEHLO"))
        what = f"has {len(model.subgraphs)} graphs" + (f" ({', '.join(named)})" if named else "")
        raise ModelError(where, f"{what}, one is taken",
                         "convert it with one signature and without control flow")  # fmt: skip
    return content, model


def _check_finite(model: Any, where: str) -> None:
    """Raises ModelError naming a constant that holds NaN or infinity, or is no array at all."""
    for tensor in flatbuffer.graph_of(model).tensors:
        kind = {"FLOAT32": np.float32, "FLOAT16": np.float16}.get(own.kind(tensor))
        if kind is None or flatbuffer.is_activation(model, tensor):
            continue
        name = (tensor.name or b"").decode(errors="replace")
        data = bytes(model.buffers[tensor.buffer].data)
        if len(data) % np.dtype(kind).itemsize:
            raise ModelError(where, f"tensor {name!r} is cut off", "copy or convert it again")
        if not np.isfinite(np.frombuffer(data, kind)).all():
            raise ModelError(f"{where}: {name}", "holds NaN or infinite values", "train it again")


def _check_names(model: Any, where: str) -> None:
    """Raises ModelError: an output that is an input, or two outputs of one name."""
    graph = flatbuffer.graph_of(model)
    if not len(graph.inputs) or not len(graph.outputs):
        raise ModelError(where, "has no input or no output", "convert it again")
    for index in {int(i) for i in graph.inputs} & {int(i) for i in graph.outputs}:
        name = graph.tensors[index].name.decode(errors="replace")
        raise ModelError(f"{where}: output {name!r}", "is the image that came in",
                         "leave it out of the graph's outputs")  # fmt: skip


def _run_once(content: bytes, where: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The tensors of the network, proved by one run on zeros."""
    try:
        session = Session({FILE: content})
        found = session.run({t.name: np.zeros(t.shape, t.dtype) for t in session.inputs})
    except EdgecvError as e:
        raise ModelError(where, e.what if "LiteRT" in e.what else f"does not run: {e.what}",
                         "convert it again") from None  # fmt: skip
    names = [t.name for t in (*session.inputs, *session.outputs)]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(where, f"has two inputs or outputs called {name!r}", "rename one")
    for spec in session.outputs:
        shape = found[spec.name].shape
        if tuple(shape) != spec.shape:
            what = f"output {spec.name!r} has another shape for every image ({shape} of zeros)"
            raise ModelError(where, what, "convert it without what selects its results")
    inputs, outputs = session.inputs, session.outputs
    session.close()
    return inputs, outputs


def _same(first: bytes, second: bytes, where: str) -> None:
    """Raises ModelError unless both files answer the same, node by node, to random numbers."""
    rng = np.random.default_rng(0)
    sessions = [plain({FILE: first}), plain({FILE: second})]
    feeds = {
        t.name: rng.uniform(-1, 1, t.shape).astype(t.dtype)
        if np.dtype(t.dtype).kind == "f"
        else rng.integers(0, 127, t.shape).astype(t.dtype)
        for t in sessions[0].inputs
    }
    a, b = (list(s.run(feeds).values()) for s in sessions)
    for x, y in zip(a, b, strict=True):
        x, y = x.astype(np.float64), y.astype(np.float64)
        if not np.linalg.norm(x - y) <= NEAR * max(float(np.linalg.norm(x)), 1e-30):
            raise ModelError(where, "would answer differently with its weights unpacked",
                             "bring the file with float weights")  # fmt: skip


def _as_xnnpack(first: bytes, second: bytes, where: str) -> None:
    """Raises ModelError unless the second answers plainly as XNNPACK answers the first; a sigmoid's
    answers near nothing within a rounding of 1."""
    before, after = Session({FILE: first}), plain({FILE: second})
    rng = np.random.default_rng(0)
    feeds = {t.name: rng.uniform(0, 1, t.shape).astype(t.dtype) for t in before.inputs}
    for x, y in zip(before.run(feeds).values(), after.run(feeds).values(), strict=True):
        if not np.allclose(x, y, rtol=1e-3, atol=max(1e-6, NEAR * float(np.abs(x).max()))):
            raise ModelError(where, "would answer differently with builtin operators alone",
                             "convert it without MediaPipe's")  # fmt: skip


if __name__ == "__main__":
    child.serve(work)
