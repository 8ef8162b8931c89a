"""A program that uses all that edgecv promises, for `mypy --strict`; nobody runs it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

import edgecv


def told(done: float, total: float, note: str) -> None:
    print(f"edgecv {edgecv.__version__}: {done:.1f} of {total:g} {note}")


def exported(net: nn.Module, photos: np.ndarray) -> list[edgecv.Bundle]:
    failed: dict[str, edgecv.errors.EdgecvError] = {}
    made = edgecv.export(
        net, ["cpu", "tflite"], out="out", calibration=photos, evaluate="imagefolder:test",
        input_size=(224, 224), mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4],
        keep_float=["stem"], accuracy_drop=0.5, failed=failed, progress=told,
    )  # fmt: skip
    for target, error in failed.items():
        print(target, error.where, error.what, error.hint, error.exit_code)
    for bundle in made:
        print(bundle.path, bundle.size_bytes, bundle.sqnr_db, bundle.executed.get("int8"))
    return made


def of_a_file() -> str:
    (bundle,) = edgecv.export("net.onnx", "openvino", out="out", input={"image": (1, 3, 64, 64)})
    answers = edgecv.open_bundle(bundle, threads=2)
    outputs = answers.run({"image": np.zeros((1, 3, 64, 64), np.float32)})
    print({name: values.shape for name, values in outputs.items()})
    return bundle.open().labels[0]


def own_loop(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[edgecv.Bundle]:
    small = edgecv.compress(net, images, latency_ratio=0.5, targets="cpu", quantize=True)
    optimizer = torch.optim.SGD(small.parameters(), lr=0.01)
    for _ in range(10):
        loss: torch.Tensor = nn.functional.cross_entropy(small(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return edgecv.finish(small, ["cpu"], out="out", mean=0.5, std=0.5, labels=["ant", "bee"])


def recipe() -> edgecv.Results:
    checked = edgecv.Recipe.load("shoe.yaml", {"prune.ratio": 0.4}, ["cpu"])
    found = edgecv.run(checked, out="runs/shoe", progress=told)
    best = min((row for row in found.rows if row.p50_ms is not None), key=lambda r: r.p50_ms or 0)
    print(best.step, best.value, best.latency_ratio, found.ok, found.to_pandas())
    return edgecv.run({"model": "resnet8", "targets": ["cpu"]}, accuracy_drop=0.5)


def looked_at(before: edgecv.Bundle, after: edgecv.Bundle) -> bool:
    timed: edgecv.Benchmark = edgecv.bench([before, after], budget=10.0, device="rpi5")
    ratio: float = timed.rows[1].latency_ratio
    judged: edgecv.Verdict = edgecv.gate(before, after, max_slowdown=3.0, max_sqnr_drop=None)
    compared: edgecv.Parity = edgecv.parity(after, against=before, images="photos", samples=32)
    if compared.first is not None:
        print(compared.first.step, compared.first.cause)
    reasons: edgecv.Diagnosis = edgecv.why(after, against=before, budget=5.0)
    for finding in reasons.findings:
        print(finding.kind, finding.ms, finding.change)
    return ratio < 1 and bool(judged) and judged.pairs[0].checks[0].verdict == "pass"


def answered(bundle: edgecv.Bundle) -> Iterator[edgecv.Answer]:
    try:
        yield from edgecv.predict(bundle, ["street.jpg", "film.mp4"], confidence=0.4, save="drawn")
    except edgecv.errors.DataError as error:
        print(error)
