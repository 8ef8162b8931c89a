"""The ladder, rung by rung: what each step changed, where it first went wrong, and the likely why.

    image ─ preprocessing ─▶ PyTorch ─ export ─▶ float graph ─ quantize ─▶ int8 graph
                                        compile ─▶ engine ─ runtime ─▶ answers

Every rung is compared with the one before it on the same images, within `tolerances`. Graph rungs
are fed the same normalised image, so that a wrong preprocessing shows on its own rung and nowhere
else. Memory holds the activations of one image in two forms.

Runs engines: `python -m edgecv.diagnosis.parity.compare JOB ANSWER`, by `edgecv.child`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import child, tasks
from edgecv.bundling.inference import JUDGED, Answers, as_rows
from edgecv.diagnosis.parity import causes, images, reference, tolerances
from edgecv.diagnosis.parity.answered import Answered
from edgecv.diagnosis.parity.distance import Energy, answers, outputs
from edgecv.diagnosis.parity.images import Inputs, Samples
from edgecv.diagnosis.parity.layers import Form, image_in
from edgecv.diagnosis.parity.noise import per_layer
from edgecv.diagnosis.parity.report_rows import Rung, rung
from edgecv.errors import MissingExtraError, ModelError, NoCudaDevice, UnsupportedError
from edgecv.fidelity import Parity
from edgecv.runtime.archive import Contents, read_bundle, write_bundle
from edgecv.runtime.bundle import Bundle, opened
from edgecv.runtime.fidelity import kinds as kinds_of
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import channels_first, channels_last, joined, joined_shape

SENT, SENT_BYTES = 64, 8 << 20  # images for a device


def work(job: dict[str, Any]) -> dict[str, Any]:
    """job: bundle, against (path or None), images (folder or None), samples (count or None),
    send (where to write a bundle for a device, or absent).

    Returns {"bundle", "against", "task": the bundle's, "images", "samples", "agrees", "rungs",
    "whole": the bundle against the first float form, "layers", "accuracy", "notes", "sent": what a
    device should answer to the bundle written for it}.
    Raises EdgecvError: nothing to compare with, different networks.
    """
    contents = read_bundle(job["bundle"])
    found = reference.find(contents, Path(job["against"]) if job["against"] else None)
    pictures = _pictures(job, contents, found)
    own = replace(contents.preprocess, layout="NCHW", dtype="float32", scale=None, zero_point=None)
    theirs = found.preprocess or own
    forms = _forms(contents, found)
    pictures = pictures.spread(job["samples"] or JUDGED)
    if not tasks.of_classes(contents.manifest.get("task")):
        pictures = replace(pictures, labels=None)  # its best output is no class
    kinds = kinds_of(contents.outputs)
    try:
        prepared = found.preprocess is not None and pictures.feeds is None
        rungs = [_preprocessing(theirs, own, pictures)] if prepared else []
        try:
            graphs, logits = _graphs(forms, Inputs(pictures, theirs), theirs, kinds)
        except ModelError as e:
            raise _of_boxes(contents) or e from None
        rungs += graphs
        if forms[-1][0] == "compile":
            engine = forms[-1][1]
            same = theirs == own
            direct = logits[engine.title] if same else answers(engine, Inputs(pictures, own))
            rungs.append(_runtime(contents, engine.title, direct, pictures, logits, kinds))
        whole = _whole(forms, logits, kinds)
        _share(contents, [*rungs, *([whole] if whole else [])], logits)
        layers = _noise(forms, Inputs(pictures, theirs), found.notes)
        accuracy = _accuracy(forms, logits, pictures)
        path = job.get("send")
        sent = send(contents, own, forms[-1][1], pictures, Path(path)) if path else None
    finally:
        for _, form in forms:
            form.close()
    if found.preprocess is None and contents.image is not None:
        found.notes.append("the reference does not say how it normalises: the bundle's is used")
    return {
        "schema": 1,
        "bundle": str(contents.path),
        "against": found.what,
        "task": contents.manifest.get("task"),
        "images": pictures.where,
        "samples": pictures.count,
        "agrees": all(r["agrees"] for r in rungs),
        "rungs": rungs,
        "whole": whole,
        "layers": layers,
        "accuracy": accuracy,
        "sent": sent,
        "notes": found.notes,
    }


def _of_boxes(contents: Contents) -> UnsupportedError | None:
    """What is said where the bundle's file gives boxes and what it was made from the heads."""
    if (contents.manifest.get("decode") or {}).get("nms") != "graph":
        return None
    what = "its file suppresses its own boxes (--nms graph), which nothing before it gives"
    hint = "they were compared with the runtime's when it was made; edgecv verify replays them"
    return UnsupportedError(str(contents.path), what, hint)


def _pictures(job: dict[str, Any], contents: Contents, found: reference.Reference) -> Samples:
    if job["images"]:
        labels, channels = contents.manifest.get("labels"), contents.preprocess.channels
        return images.of_folder(Path(job["images"]), labels, channels)
    return found.images or images.of_goldens(contents)


def _forms(contents: Contents, found: reference.Reference) -> list[tuple[str, Form]]:
    """Everything from the reference to the compiled bundle, opened."""
    forms = reference.opened(found)
    graph = None if found.complete else reference.simulated(contents)
    if graph:
        form = graph()
        step = "quantize" if form.precision != forms[-1][1].precision else "export"
        forms.append((step, form))
    try:
        forms.append(("compile", reference.bundle_form(contents)))
    except (MissingExtraError, NoCudaDevice) as e:
        found.notes.append(f"the compiled bundle is not compared here: {e.what}")
    return forms


def _preprocessing(theirs: Preprocess, own: Preprocess, pictures: Samples) -> Rung:
    energy = Energy()
    some = pictures.spread(causes.IMAGES)
    one, two = Inputs(some, theirs), Inputs(some, own)
    shapes = theirs.size == own.size and theirs.channels == own.channels
    if shapes:
        for a, b in zip(one, two, strict=True):
            energy.add(image_in(a), image_in(b))
    parity = Parity(energy.cosine, 0.0, energy.sqnr_db if shapes else -200.0, 1.0, some.count)
    finding = causes.of_preprocessing(theirs, own, some)
    return rung("preprocessing", "image", "input", parity, tolerances.PREPROCESSING, finding)


def _graphs(
    forms: list[tuple[str, Form]], xs: Inputs, preprocess: Preprocess, kinds: dict[str, str]
) -> tuple[list[Rung], dict[str, Answers]]:
    rungs, logits = [], {}
    before: Answers | None = None
    for i, (step, form) in enumerate(forms):
        child.report(i, len(forms) + 1, form.title)
        found = answers(form, xs)
        logits[form.title] = found
        if before is not None:
            last = forms[i - 1][1]
            rows = as_rows(before[0])
            causes.check_classes(last, form, rows, as_rows(found[0]))
            compiled = step == "compile" and last.precision == form.precision
            limit = tolerances.between(last.precision, form.precision, compiled)
            parity = outputs(before, found, kinds)
            finding = None
            if not tolerances.holds(parity, limit):
                finding = causes.of_graph(last, form, xs, rows, preprocess, limit, parity)
            rungs.append(rung(step, last.title, form.title, parity, limit, finding))
        before = found
    return rungs, logits


def _runtime(
    contents: Contents,
    engine: str,
    direct: Answers,
    pictures: Samples,
    logits: dict[str, Answers],
    kinds: dict[str, str],
) -> Rung:
    """The bundle as an application calls it, beside the same engine fed directly."""
    bundle = opened(contents)
    rows = []
    try:
        for i in range(pictures.count):
            found = bundle.run(_given(bundle, pictures, i))
            rows.append([channels_first(found[t.name], t) for t in bundle.outputs])
    finally:
        bundle.close()
    logits["runtime"] = tuple(joined(column) for column in zip(*rows, strict=True))
    parity = outputs(direct, logits["runtime"], kinds)
    finding = None
    if not tolerances.holds(parity, tolerances.RUNTIME):
        finding = {
            "cause": "the runtime feeds the engine something else than its preprocessing says",
            "kind": "runtime", "layer": None,
        }  # fmt: skip
    return rung("runtime", engine, "runtime", parity, tolerances.RUNTIME, finding)


def _given(bundle: Bundle, pictures: Samples, index: int) -> dict[str, np.ndarray]:
    """What an application passes to `Bundle.run`."""
    if pictures.feeds is not None:
        values = zip(bundle.inputs, pictures.feeds[index].values(), strict=True)
        return {own.name: channels_last(v, own) for own, v in values}
    image = pictures.image(index)
    # what is of the network's size already would be cropped once more
    prepare = bundle.preprocess.normalise if pictures.ready else bundle.preprocess
    return {bundle.inputs[0].name: prepare(np.ascontiguousarray(image))}


def _whole(
    forms: list[tuple[str, Form]], logits: dict[str, Answers], kinds: dict[str, str]
) -> dict[str, Any] | None:
    """The compiled bundle against the last float graph before it, on the same images: what
    `edgecv export` prints and results.json keeps. None where either is missing."""
    floats = [f for step, f in forms if f.precision == "fp32" and step != "compile"]
    if not floats or forms[-1][0] != "compile":
        return None
    first, last = floats[-1].title, forms[-1][1].title
    found = outputs(logits[first], logits[last], kinds)
    return {"from": first, "to": last, "parity": found.to_json()}


def _share(contents: Contents, compared: list[dict[str, Any]], logits: dict[str, Answers]) -> None:
    """Add "shared" to what compares two forms: how many answers both of them give."""
    answered = Answered(contents)
    for one in compared:
        pair = [logits.get(one[key]) for key in ("from", "to")]
        if None not in pair and (shared := answered.shared(*pair)):  # type: ignore[arg-type]
            one["shared"] = shared


def _noise(forms: list[tuple[str, Form]], xs: Inputs, notes: list[str]) -> list[dict[str, Any]]:
    """SQNR of every layer of the first quantized form against the float one before it."""
    for (_, a), (_, b) in pairwise(forms):
        if a.precision == "fp32" and b.precision == "int8":
            rows = per_layer(a, b, xs)
            if weak := causes.weakest(a, b, rows):
                notes.append(weak)
            return [row.to_json() for row in rows]
    return []


def _accuracy(
    forms: list[tuple[str, Form]], logits: dict[str, Answers], pictures: Samples
) -> list[dict[str, Any]]:
    """Top-1 of each form on the same images; [] without labels. role: "simulated" is the last
    graph on plain kernels, "measured" the bundle through the runtime."""
    if pictures.labels is None:
        return []
    graphs = [form.title for step, form in forms if step != "compile"]
    quantized = any(form.precision == "int8" for _, form in forms)
    roles = {graphs[-1]: "simulated"} if quantized and len(graphs) > 1 else {}
    roles |= {graphs[0]: "float", "runtime": "measured"}
    return [
        {
            "form": title,
            "role": roles.get(title, ""),
            "top1": float((as_rows(z[0]).argmax(1) == pictures.labels).mean()),
        }
        for title, z in logits.items()
    ]


def send(contents: Contents, own: Preprocess, engine: Form, pictures: Samples, path: Path) -> Any:
    """Write the bundle with these images in place of its golden inputs, for a device; what the
    last form here answers, (images, classes)."""
    if pictures.feeds is not None:
        write_bundle(path, contents.manifest, contents.files, contents.golden_inputs,
                     contents.golden_outputs, contents.correct)  # fmt: skip
        return as_rows(answers(engine, Inputs(pictures, own))[0]).tolist()
    into = contents.preprocess
    size = int(np.prod(into.size)) * into.channels * np.dtype(into.dtype).itemsize
    some = pictures.spread(int(np.clip(SENT_BYTES // size, 1, SENT)))
    arrays = [into.normalise(some.pixels(i, own)) for i in range(some.count)]
    given = {str(contents.image): np.concatenate(arrays)}
    # a bundle's golden outputs go with its inputs; nobody reads these
    blank = {s.name: np.zeros((some.count, *joined_shape(s)), s.dtype) for s in contents.outputs}
    write_bundle(path, contents.manifest, contents.files, given, blank, contents.correct)
    return as_rows(answers(engine, Inputs(some, own))[0]).tolist()


if __name__ == "__main__":
    child.serve(work)
