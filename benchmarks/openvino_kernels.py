"""OpenVINO's own choice of kernels beside what edgecv's .xml names, int8, one thread.

    python benchmarks/openvino_kernels.py PHOTOS_DIR [FILE.onnx ...] [--calls N] [--out RESULTS]

Each network (the zoo's with random weights: times are real) becomes an int8 bundle for OpenVINO;
the same files run without the attribute that names kernels (`edgecv.backends.openvino.kernels`), in
turns, and must give the same bits. CPU time of the process, the least and the median of the calls.
Writes openvino_kernels.{json,md}.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record

from edgecv.backends.openvino.kernels import ATTRIBUTE
from edgecv.backends.openvino.run import Session
from edgecv.runtime.archive import read_bundle

ZOO = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_lite0", "shufflenet_v2", "resnet18")
SEED, SAMPLES = 0, "8"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    before, rows = record.load_average(), []
    for name in (*ZOO, *map(str, options.files)):
        with tempfile.TemporaryDirectory() as room:
            common = "--calibration", str(options.photos), "--samples", SAMPLES
            bundle = record.export(name, "openvino", "int8", Path(room), *common)
            rows.append({"network": Path(name).stem, **compared(bundle, options.calls)})
    data = {"circumstances": record.circumstances(1, SEED, before), "rows": rows}
    met = all(row["equal"] for row in rows)
    lines = ["# Kernels of narrow layers, OpenVINO int8", "", *table(rows), "",
             f"The same bits in all of them: {record.verdict(met)}."]  # fmt: skip
    record.write("openvino_kernels", options.out, data, lines)
    if not met:
        raise SystemExit(1)


def compared(bundle: Path, calls: int) -> dict[str, Any]:
    """Of one bundle: layers that name a kernel, milliseconds with and without, whether equal."""
    shipped = read_bundle(bundle).files
    attribute = ATTRIBUTE.encode()
    own = {name: content.replace(attribute, b"") for name, content in shipped.items()}
    sessions = {"named": Session(shipped), "own": Session(own)}
    rng = np.random.default_rng(SEED)
    feeds = {x.name: rng.random(x.shape).astype(x.dtype) for x in sessions["own"].inputs}
    spent: dict[str, list[float]] = {name: [] for name in sessions}
    answers: dict[str, Any] = {}
    for _ in range(calls):
        for name, session in sessions.items():
            began = time.process_time()
            answers[name] = session.run(feeds)
            spent[name].append(1e3 * (time.process_time() - began))
    equal = all(np.array_equal(v, answers["named"][k]) for k, v in answers["own"].items())
    return {
        "layers": sum(content.count(attribute) for content in shipped.values()),
        **{f"{k}_ms": [round(min(v), 3), round(float(np.median(v)), 3)] for k, v in spent.items()},
        "equal": bool(equal),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    head = ("network", "layers", "OpenVINO's own [ms]", "named [ms]", "ratio", "same bits")
    return record.table(
        head,
        (
            (
                row["network"], row["layers"], row["own_ms"][0], row["named_ms"][0],
                f"{row['named_ms'][0] / row['own_ms'][0]:.2f}", "yes" if row["equal"] else "**no**",
            )
            for row in rows
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
