"""Graph → bundle: compile for the target, then prove what came out, in a process of its own.

    compile ─▶ load ─▶ precision read back ─▶ parity with the graph ─▶ accuracy ─▶ pack with goldens

Everything measured here is measured through the session of the compiled artifact itself. Where the
engine compiles but cannot run on this machine (no GPU, no Edge TPU), the bundle carries no golden
outputs and no accuracy, and says why.

Run by `edgecv.child`: `python -m edgecv.bundling.build JOB ANSWER`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecv import __version__, tasks
from edgecv.backends import Compiled, compile_module, facts, run_module
from edgecv.bundling.goldens import goldens, room
from edgecv.bundling.inference import (
    Answers,
    as_rows,
    graph_session,
    judged,
    saturated_here,
    session_outputs,
)
from edgecv.bundling.inferred_task import inferred
from edgecv.bundling.parity import bundle_parity
from edgecv.bundling.precision import check_precision, float_layers, meant_in_float
from edgecv.bundling.remarks import doubts, guesses, losses
from edgecv.bundling.task_score import graph_task, judge
from edgecv.child import serve
from edgecv.data.images import Images
from edgecv.errors import MissingExtraError, NoCudaDevice, ParityError
from edgecv.graph import Graph
from edgecv.measuring.facts import BundleFacts
from edgecv.measuring.jobs import PackJob
from edgecv.reading_graph import FOLDER as READING
from edgecv.reading_graph import put_behind
from edgecv.runtime.archive import write_bundle
from edgecv.runtime.fidelity import kinds, width
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import batch_of, image_of
from edgecv.samples import adapted
from edgecv.target import Target
from edgecv.tasks.base import Task
from edgecv.tasks.classification import ClassificationTask, scores_of

FAR, FAR_ONE_BIT = 0.02, 0.05  # of top-1: apart by less is rounding


def work(data: dict[str, Any]) -> dict[str, Any]:
    """A PackJob as JSON. Returns BundleFacts as JSON."""
    job = PackJob.from_json(data)
    graph, target, preprocess, out = Graph.load(job.graph), job.target, job.preprocess, job.out
    engine_files = out / "engine"
    compiled = compile_module(target.backend).compile(graph, target, engine_files)
    files = {name: (engine_files / name).read_bytes() for name in compiled.files}
    proof = _prove(job, graph, target, compiled, files, preprocess)
    if read := proof["reading"]:
        graph, compiled, files = read.graph, read.compiled, read.files
    manifest = _manifest(job, graph, target, compiled, preprocess, proof)
    bundle = out / f"{job.name}.edgecv"
    parts = proof["parts"]
    shutil.rmtree(out / READING, ignore_errors=True)
    write_bundle(bundle, manifest, files, {}, {}, proof["correct"], proof["goldens"], parts)
    facts = BundleFacts(
        bundle=bundle.name,
        size_bytes=bundle.stat().st_size,
        engine_bytes=sum(map(len, files.values())),
        engine=target.backend,
        compiled=compiled.compiled,
        notes=(*compiled.notes, *graph.facts.get("notes", [])),
        reason=proof["reason"],
        metric=proof["metric"],
        executed=proof["executed"],
        parity=proof["parity"],
        warnings=(*graph.facts.get("warnings", []), *proof["warnings"]),
        made_up=proof["made_up"],
        task=proof["task"].name if proof["task"] else None,
        fidelity=graph.facts.get("fidelity"),
        search=graph.facts.get("search"),
    )
    return facts.to_json()


def _prove(
    job: PackJob,
    graph: Graph,
    target: Target,
    compiled: Compiled,
    files: dict[str, bytes],
    preprocess: Preprocess,
) -> dict[str, Any]:
    """Load the artifact and measure it, as far as this machine can."""
    proof: dict[str, Any] = {
        "goldens": None, "metric": None, "executed": {}, "warnings": [],
        "reason": "", "correct": None, "parts": {}, "made_up": False,
        "task": _task(job, graph, None), "reading": None,
        "parity": {"graph": graph.facts.get("parity"), "compiled": None, "float": None},
    }  # fmt: skip
    images, compared = Images.load(job.images), Images.load(job.judged or job.images)
    proof["made_up"] = compared.made_up
    where = f"{job.name} ({target.backend})"
    try:
        session = run_module(target.backend).Session(files, threads=1)
    except (NoCudaDevice, MissingExtraError) as e:
        proof["reason"] = "; ".join([*compiled.notes, e.what])
        return proof
    try:
        proof["executed"] = session.executed()
        proof["warnings"] += check_precision(
            where, graph, proof["executed"], lambda: float_layers(session),
            facts(target.backend).floating,
        )  # fmt: skip
        _assert_counted(where, compiled, proof["executed"])
        floats = Graph.load(job.floats) if job.floats else None
        found, answers, told = bundle_parity(
            where, graph, floats, target, session, judged(compared.samples), preprocess,
            compared.made_up, files, _served(job, graph, preprocess),
        )  # fmt: skip
        proof["parity"] |= {k: v for k, v in found.items() if v}
        kind = next(iter(kinds(graph.outputs).values()))
        task = proof["task"] = _task(job, graph, answers)
        classifies = isinstance(task, ClassificationTask)
        if task and not classifies and not compared.made_up and graph.precision == "fp32":
            _check_reads(job, graph, task, answers)
        proof["warnings"] += told
        said = proof["parity"]["float"] or proof["parity"]["compiled"]
        proof["warnings"] += list(doubts(said, classifies))
        if not graph.facts.get("fidelity", {}).get("good"):  # by the task's own metric
            proof["warnings"] += list(losses(graph.precision, proof["parity"]["float"]))
        if task is not None and task.asks_graph():
            read = proof["reading"] = put_behind(
                where, graph, task, target, session, judged(compared.samples), preprocess, job.out
            )
            session.close()
            graph, compiled, files, session = read.graph, read.compiled, read.files, read.session
            task = proof["task"] = read.task
        if job.test:
            # the device's answers are those that count, and not those of another processor
            own = target.grid.reduce_range or facts(target.backend).exact
            away = saturated_here(graph) and not own
            ran = graph_session(graph) if away else session
            if task is None or classifies:
                proof["metric"], proof["correct"] = _accuracy(job, ran, preprocess, kind)
                one_bit = bool(graph.facts.get("one_bit"))
                check_trained(where, proof["metric"], job.trained, one_bit)
                proof["warnings"] += list(guesses(proof["metric"], width(graph.outputs[0])))
            elif (test := Images.load(job.test)).told is not None:
                judged_so = judge(task, ran, graph.shown, test, preprocess)
                proof["metric"], proof["parts"], why = judged_so
                proof["warnings"] += why
                proof["metric"]["images"] = job.test_digest
        about = _manifest(job, graph, target, compiled, preprocess, proof)
        bits = 0 if proof["correct"] is None else len(proof["correct"]) // 8
        bits += sum(values.nbytes for values in proof["parts"].values())
        most = room(sum(map(len, files.values())), len(json.dumps(about, indent=1)) + bits)
        proof["goldens"] = goldens(session, images.samples, preprocess, most)
    finally:
        session.close()
    if not compiled.compiled:
        proof["reason"] = "; ".join(compiled.notes)
    return proof


def _served(
    job: PackJob, graph: Graph, preprocess: Preprocess
) -> Callable[[Answers, Answers], bool] | None:
    """Whether answers serve the task as float's do, where the graph was judged by that."""
    if not graph.facts.get("fidelity", {}).get("good"):
        return None
    from edgecv.bundling.task_fidelity import FAITHFUL, TaskFidelity

    def served(reference: Answers, own: Answers) -> bool:
        task = _task(job, graph, own)
        if task is None:
            return False
        asked = TaskFidelity(task, graph.shown, preprocess, None, job.labels or ()).on(reference)
        return asked is not None and asked.enough and asked.score(own) >= FAITHFUL

    return served


def _check_reads(job: PackJob, graph: Graph, task: Task, answers: Answers) -> None:
    """Raises UnsupportedError: what the task reads of photographs cannot be. Of integers it is
    asked before they are made (`TaskFidelity.of`)."""
    from edgecv.bundling.task_fidelity import TaskFidelity

    if batch_of(graph.inputs) == 1:
        TaskFidelity(task, graph.shown, job.preprocess, None, job.labels or ()).check(answers)


def _task(job: PackJob, graph: Graph, answers: Answers | None) -> Task | None:
    """How the outputs are read. Raises UnsupportedError: they are not that task's.

    answers: on the images that are compared, where the engine runs here
    """
    if job.task == tasks.NONE:
        return None
    if job.task not in (None, ClassificationTask.name):
        return graph_task(job.task, graph, job.preprocess, job.labels, job.decode)
    if job.task is not None:  # said, not found: then it has to be so
        ClassificationTask.of_graph(graph.outputs, job.preprocess.size, None, {})
    kind = next(iter(kinds(graph.outputs).values()))
    known = answers is not None and kind == "classes"
    scores = scores_of(as_rows(answers[0])) if answers is not None and known else "logits"
    said = job.task is not None or inferred(graph.outputs, answers, bool(job.labels))
    return ClassificationTask(scores) if said else None


def check_trained(
    where: str, metric: Mapping[str, Any] | None, trained: float | None, one_bit: bool = False
) -> None:
    """Raises ParityError: a float bundle is right otherwise than its network was in PyTorch.

    trained: top-1 there, on the same images. Both may be apart by 2 points (one-bit layers: 5), and
    by three standard deviations of a share of that many images, which near ties do not reach.
    """
    if metric is None or trained is None:
        return
    images, found = metric["samples"], metric["value"]
    share = (trained * images + 2) / (images + 4)  # Agresti and Coull 1998: none is 0 or 1
    spread = 3 * (share * (1 - share) / images) ** 0.5
    if abs(found - trained) > max(FAR_ONE_BIT if one_bit else FAR, spread):
        raise ParityError(
            where,
            f"is right on {100 * found:.2f} % of {images:,} images, its network was on "
            f"{100 * trained:.2f} % of them in PyTorch",
            "its answers hang on the batch (a BatchNorm of the batch's own statistics), or on what "
            "its weights do not hold (a tensor that is no parameter and no persistent buffer)",
        )


def _accuracy(
    job: PackJob, session: Any, preprocess: Preprocess, kind: str
) -> tuple[dict[str, Any] | None, np.ndarray | None]:
    """Top-1 over the whole evaluation set, and which images were right, for paired comparisons.

    The answers are kept, and without labels the outputs, for `limits.expected_drop`.
    """
    if kind != "classes":
        return None, None
    assert job.test is not None
    test, out = Images.load(job.test), job.out
    outputs = session_outputs(session, test.samples, preprocess)
    best = outputs.argmax(1)
    np.save(out / "predictions.npy", best.astype(np.int32), allow_pickle=False)
    if not test.classes:
        np.save(out / "outputs.npy", outputs.astype(np.float32), allow_pickle=False)
        return None, None
    correct = best == test.labels
    value = int(correct.sum()) / len(best)
    metric = {"name": "top1", "value": value, "samples": len(best), "images": job.test_digest}
    return metric, correct


def _assert_counted(where: str, compiled: Compiled, executed: dict[str, int]) -> None:
    """What is said to count bits does. Raises ParityError."""
    if executed.get("binary", 0) < compiled.counted:
        what = f"of {compiled.counted} one-bit layers the engine ran {executed.get('binary', 0)}"
        raise ParityError(where, f"{what} as xnor and popcount", "report this")


def _manifest(
    job: PackJob,
    graph: Graph,
    target: Target,
    compiled: Compiled,
    preprocess: Preprocess,
    proof: dict[str, Any],
) -> dict[str, Any]:
    image = image_of(compiled.inputs)
    taken = image and {
        "name": image.name, "preprocess": adapted(preprocess, image).to_json()
    }  # fmt: skip
    return {
        "name": job.name,
        "task": proof["task"].name if proof["task"] else None,
        "target": target.name,
        "engine": target.backend,
        "precision": graph.precision,
        "grid": graph.facts.get("grid"),
        "keep_float": meant_in_float(graph),
        "compiled": compiled.compiled,
        "input": taken,
        "graph": graph.facts.get("own"),
        "inputs": [t.to_json() for t in compiled.inputs],
        "outputs": [t.to_json() for t in graph.told(compiled.outputs)],
        "labels": list(job.labels) if job.labels else None,
        "scores": "logits",
        **(proof["task"].manifest() if proof["task"] else {}),
        "metric": proof["metric"],
        "executed": proof["executed"],
        "parity": proof["parity"]["float"] or proof["parity"]["compiled"],
        "notes": [*compiled.notes, *graph.facts.get("notes", [])],
        "tools": {"edgecv": __version__, **compiled.versions},
        "recipe_digest": job.made_from,
    }


if __name__ == "__main__":
    serve(work)
