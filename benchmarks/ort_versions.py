"""The same kernel library and the same file in several versions of ONNX Runtime.

    python benchmarks/ort_versions.py --work DIR [--versions 1.17.3 1.20.1 1.23.2]

Installs each version into a folder of its own (pip, the network) and runs the network of one-bit
layers of `binary_equal.py` there, beside the version that is installed: wanted are the same bits.
1.16 is wanted to say in a line that it is too old. Writes
benchmarks/results/ort_versions.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import record
import torch
from binary_equal import networks

from edgecv.benchmark.machine import load_average
from edgecv.binary import library
from edgecv.binary.lowering import lower
from edgecv.methods.binary.constants_for_export import frozen
from edgecv.methods.export.onnx import export_onnx

TOO_OLD = "1.16.3"
NUMPY_1 = ("1.16", "1.17", "1.18")  # built for numpy 1
ASK = """
import sys, numpy as np, onnxruntime as ort
o = ort.SessionOptions()
o.intra_op_num_threads, o.log_severity_level = 1, 4
try:
    o.register_custom_ops_library(sys.argv[1])
    s = ort.InferenceSession(sys.argv[2], o, providers=["CPUExecutionProvider"])
    (y,) = s.run(None, {s.get_inputs()[0].name: np.load(sys.argv[3])})
    np.save(sys.argv[4], y)
    print(ort.__version__, "ran")
except Exception as e:
    print(ort.__version__, " ".join(str(e).split())[-80:])
"""


def folder(work: Path, version: str) -> list[str]:
    """Folders for PYTHONPATH with that version in them."""
    wanted = {"ort-" + version: ["--no-deps", f"onnxruntime=={version}"]}
    if version.startswith(NUMPY_1):
        wanted["numpy-1"] = ["--no-deps", "numpy==1.26.4"]
    for name, what in wanted.items():
        if not (work / name).is_dir():
            command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(work / name)]
            subprocess.run([*command, *what], check=True)
    return [str(work / name) for name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the versions, reused")
    parser.add_argument("--versions", nargs="+", default=["1.17.3", "1.20.1", "1.23.2"])
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = load_average()
    module, size = networks()["residual"]
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, *size)).astype(np.float32))
    with torch.no_grad():
        wanted = module(x).numpy()
    model = onnx.load_model(str(export_onnx(frozen(module), x, options.work / "graph").path))
    layers = len(lower(model))
    files = [str(options.work / n) for n in ("model.onnx", "x.npy", "y.npy")]
    onnx.save(model, files[0])
    np.save(files[1], x.numpy())
    kernels = library.found()
    if kernels is None:
        raise SystemExit(f"no kernels: {library.CURE}")
    rows, good = [], True
    for version in (TOO_OLD, *options.versions, onnxruntime.__version__):
        here = version == onnxruntime.__version__
        paths = [] if here else folder(options.work, version)
        Path(files[2]).unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(kernels), *files], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, check=False,
        )  # fmt: skip
        said = done.stdout.strip().partition(" ")[2] or f"died ({done.returncode})"
        ran = Path(files[2]).is_file()
        equal = ran and np.array_equal(np.load(files[2]), wanted)
        as_wanted = equal if version != TOO_OLD else "needs ONNX Runtime" in said
        good &= as_wanted
        rows.append({"version": version, "said": said, "equal": equal, "as_wanted": as_wanted})
    lines: list[list[Any]] = [
        [
            r["version"],
            "PyTorch's bits" if r["equal"] else r["said"],
            record.verdict(r["as_wanted"]),
        ]
        for r in rows
    ]
    page = [
        "# One kernel library in several versions of ONNX Runtime",
        "",
        f"The same library and the same .onnx file ({layers} layers of one bit).",
        "",
        *record.table(["ONNX Runtime", "answers", "as wanted"], lines),
    ]
    data = {"circumstances": record.circumstances(1, 0, before), "rows": rows}
    record.write("ort_versions", options.out, data, page)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
