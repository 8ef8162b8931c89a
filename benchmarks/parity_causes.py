"""Does `edgecv parity` name what is wrong? EfficientNet-Lite0, exported wrongly on purpose.

    python benchmarks/parity_causes.py PHOTOS_DIR_OR_ZIP [--out benchmarks/results]

Needs the extras [all,zoo]. The network with its ImageNet weights is exported in float and int8 for
three engines by `edgecv export`; each bundle is then broken in three ways (`broken_exports.py`):
a wrong layout, another network's mean and std, other weights in a quarter of the channels of one
convolution. `edgecv parity BUNDLE --against` the healthy float bundle is asked about each and about
the healthy one. Then one convolution after the other, from the first to the last, is corrupted.

Exit code 1 when a healthy bundle does not pass, or a broken one is not named: step, kind, layer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import broken_exports as broken
from efficientnet_lite0 import INPUT
from photographs import unpack
from record import RESULTS, ROOT, circumstances, export, load_average, table, verdict, write

from edgecv.runtime.archive import read_bundle

BUNDLES = ("fp32 cpu", "int8 cpu", "fp32 openvino", "int8 openvino", "fp32 tflite", "int8 tflite")
MIDDLE, CONVOLUTIONS, EACH = 24, 49, 6
SAMPLES, CALIBRATION, SEED = 16, 128, 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder or a .zip of photographs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        return run(options.photographs, options.out, Path(room))


def run(source: Path, out: Path, room: Path) -> int:
    load = load_average()
    photographs = unpack(source, room / "photographs")
    folder = photographs[0].parent
    healthy = {}
    for name in BUNDLES:
        precision, target = name.split()
        options = (*INPUT, "--calibration", str(folder), "--samples", str(CALIBRATION))
        healthy[name] = export(
            "efficientnet_lite0", target, precision, room / name.replace(" ", "-"), *options
        )
    cases = [case for name in BUNDLES for case in _cases(name, healthy, room)]
    rows = [_asked(case, folder) for case in cases]
    depth = [_asked(case, folder) for case in _depth(healthy["fp32 cpu"], room)]
    met = {
        "healthy_pass": all(r["named"] for r in rows if r["fault"] == "none"),
        "broken_named": all(r["named"] for r in rows if r["fault"] != "none"),
        "any_layer_named": all(r["named"] for r in depth),
    }
    data = {
        "schema": 1,
        "circumstances": circumstances(1, SEED, load),
        "network": "efficientnet_lite0",
        "samples": SAMPLES,
        "met": met,
        "results": rows,
        "any_layer": depth,
    }
    write("parity_causes", out, data, _markdown(data))
    return 0 if all(met.values()) else 1


Case = dict[str, Any]


def _cases(name: str, healthy: dict[str, Path], room: Path) -> list[Case]:
    """The healthy bundle and its three broken forms, with what is to be said of each."""
    precision, target = name.split()
    bundle = healthy[name]
    against = healthy["fp32 tflite" if target == "tflite" else "fp32 cpu"]
    step = "quantize" if precision == "int8" else "export"
    step = "compile" if target == "openvino" else step  # its file is no graph of its own
    given = room / name.replace(" ", "-")
    layout = "orientation" if target == "tflite" else "layout"
    content, layer = _corrupted(name, healthy, MIDDLE)
    one = {"bundle": name, "against": str(against)}
    return [
        {**one, "fault": "none", "path": str(bundle), "step": None, "kind": None, "layer": None},
        {**one, "fault": "wrong layout", "step": step, "kind": layout, "layer": "input",
         "path": str(_laid_out(name, healthy, given / "layout.edgecv"))},
        {**one, "fault": "wrong mean, std", "step": "preprocessing", "kind": "preprocessing",
         "layer": None,
         "path": str(broken.wrong_normalisation(bundle, given / "normalisation.edgecv"))},
        {**one, "fault": "corrupted layer", "step": step, "kind": "weights", "layer": layer,
         "path": str(broken.rewritten(bundle, given / "corrupted.edgecv", content))},
    ]  # fmt: skip


def _graph(name: str, healthy: dict[str, Path]) -> bytes:
    """The .onnx or .tflite file of a bundle; of OpenVINO, the one that it was compiled from."""
    bundle = healthy[name.replace("openvino", "cpu")]
    return next(iter(read_bundle(bundle).files.values()))


def _corrupted(name: str, healthy: dict[str, Path], index: int) -> tuple[dict[str, bytes], str]:
    content = _graph(name, healthy)
    if name.endswith("tflite"):
        changed, layer = broken.tflite_corrupted(content, index, SEED)
        return {"model.tflite": changed}, layer
    changed, layer = broken.onnx_corrupted(content, index, SEED)
    if name.endswith("openvino"):
        return broken.openvino_files(changed), layer
    return {"model.onnx": changed}, layer


def _laid_out(name: str, healthy: dict[str, Path], out: Path) -> Path:
    edit = broken.tflite_turned if name.endswith("tflite") else broken.onnx_layout
    if name.endswith("openvino"):
        files = broken.openvino_files(edit(_graph(name, healthy)))
        return broken.rewritten(healthy[name], out, files)
    return broken.edited(healthy[name], out, edit)


def _depth(bundle: Path, room: Path) -> list[Case]:
    """One convolution after the other, every EACH-th, in the float ONNX bundle."""
    found = []
    for index in range(0, CONVOLUTIONS, EACH):
        content, layer = broken.onnx_corrupted(_graph("fp32 cpu", {"fp32 cpu": bundle}), index)
        path = broken.rewritten(bundle, room / f"depth-{index}.edgecv", {"model.onnx": content})
        found.append({
            "bundle": "fp32 cpu", "against": str(bundle), "fault": f"convolution {index}",
            "path": str(path), "step": "export", "kind": "weights", "layer": layer,
        })  # fmt: skip
    return found


def _asked(case: Case, folder: Path) -> Case:
    """What `edgecv parity` says of a case."""
    print(f"parity {case['bundle']}: {case['fault']}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    command = [
        sys.executable, "-m", "edgecv", "parity", case["path"], "--against", case["against"],
        "--images", str(folder), "--samples", str(SAMPLES), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"edgecv parity: {done.stderr.strip()[-2000:]}")
    data = json.loads(done.stdout)
    first = next((r for r in data["rungs"] if not r["agrees"]), None)
    finding = (first or {}).get("finding") or {}
    said = {
        "step": first["step"] if first else None,
        "kind": finding.get("kind"),
        "layer": finding.get("layer"),
    }
    wanted = {k: case[k] for k in said}
    return {
        "bundle": case["bundle"],
        "fault": case["fault"],
        "wanted": wanted,
        "said": said,
        "named": said == wanted and done.returncode == (0 if first is None else 1),
        "cause": finding.get("cause", ""),
        "looked_at": finding.get("looked_at"),
        "layers": finding.get("layers"),
        "rungs": [[r["step"], r["parity"]["sqnr_db"]] for r in data["rungs"]],
        "seconds": round(time.perf_counter() - began, 1),
    }


def _markdown(data: dict[str, Any]) -> list[str]:
    rows = [
        [r["bundle"], r["fault"], r["said"]["step"] or "agrees", r["said"]["layer"] or "",
         r["cause"], verdict(r["named"]), r["seconds"]]
        for r in data["results"]
    ]  # fmt: skip
    depth = [
        [r["fault"], r["said"]["layer"], f"{r['looked_at']} of {r['layers']}",
         verdict(r["named"]), r["seconds"]]
        for r in data["any_layer"]
    ]  # fmt: skip
    return [
        "# What `edgecv parity` says of broken exports",
        "",
        f"EfficientNet-Lite0 with its ImageNet weights, {data['samples']} photographs, against the "
        "healthy float bundle. A row is met when the step, the kind of fault and the layer are "
        "named as they were broken; a healthy bundle must agree.",
        "",
        *table(("bundle", "fault", "step", "layer", "cause", "", "s"), rows),
        "",
        "One convolution of the float ONNX bundle corrupted, from the first to the last. "
        "Tensors compared until the layer was found, of the layers that both files have:",
        "",
        *table(("fault", "layer named", "tensors compared", "", "s"), depth),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
