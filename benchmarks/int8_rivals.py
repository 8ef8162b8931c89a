"""Other people's quantizers beside edgecv's in `int8_detectors.py`, and the files that they read.

A detector comes to them in two forms: `raw`, as its .onnx file is (for OpenVINO converted by its
own converter, for LiteRT by onnx2tf), and `rewritten`, edgecv's fp32 export for
that engine. Settings are those that the tools' own documentation has for x86 processors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from library_defaults import ai_edge_default, ai_edge_minmax, nncf_files, silent, static_onnx

Files = dict[str, bytes]
Samples = list[np.ndarray]
# (network's answer to sample i, samples that are asked for) -> the task's metric, 0..1
Metric = Callable[[Callable[[int], Mapping[str, np.ndarray]], Sequence[int]], float]
AT_ONCE = 8  # samples whose activations ONNX Runtime's calibrators hold at once
PER_AXIS = 13  # the first opset with scales along an axis
# where onnx2tf looks for pictures before it fetches its own, and of which shape
TRIES = "calibration_image_sample_data_20x128x128x3_float32.npy"
TRY = (20, 128, 128, 3)
MAX_DROP = 0.01  # of the metric, as edgecv's `--accuracy-drop 1.0`


@dataclass(frozen=True)
class Rival:
    """engine: whose files it reads and writes. told: its settings.
    make: (float files, engine-ready samples, input's name, metric of the calibrating images) to
    int8 files. openvino: its .onnx files also run there"""

    engine: str
    label: str
    told: str
    make: Callable[[Files, Samples, str, Metric], Files]
    openvino: bool = False


def no_telemetry() -> None:
    """NNCF and OpenVINO tell their maker of every use, unless the library that does it is not
    there."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


# --- ONNX Runtime


def _static(
    method: str, activations: str, files: Files, samples: Samples, name: str, _: Metric
) -> Files:
    from onnxruntime.quantization import CalibrationMethod, QuantType

    ((path, graph),) = files.items()
    options: dict[str, Any] = {}
    if method != "MinMax":  # they hold every activation of what they are given
        options["extra_options"] = {"CalibStridedMinMax": _stride(len(samples))}
    made = static_onnx(
        _prepared(graph), samples, name, per_channel=True, reduce_range=False,
        activation_type=QuantType[activations], weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method], **options,
    )  # fmt: skip
    return {path: made}


def _stride(samples: int) -> int:
    """The most samples at once that part them evenly, as the calibrators want it."""
    return next(n for n in range(AT_ONCE, 0, -1) if samples % n == 0)


def _prepared(graph: bytes) -> bytes:
    """What `quantize_static` asks for first: shapes inferred, and the optimiser's exact fusions;
    and the first opset that has scales along an axis, without which its files are refused."""
    import onnx
    from onnx.version_converter import convert_version
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load_model_from_string(graph)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < PER_AXIS:
        model = convert_version(model, PER_AXIS)
    with tempfile.TemporaryDirectory() as room:
        source, made = Path(room) / "float.onnx", Path(room) / "prepared.onnx"
        onnx.save_model(model, source)
        try:
            quant_pre_process(str(source), str(made))
        except Exception:  # its symbolic inference knows fewer operators than ONNX has
            quant_pre_process(str(source), str(made), skip_symbolic_shape=True)
        return made.read_bytes()


def openvino_of(graph: bytes) -> Files:
    """An .onnx file as OpenVINO's converter reads it, weights in the precision that they have."""
    import openvino as ov

    with tempfile.TemporaryDirectory() as room, silent():
        source = Path(room) / "network.onnx"
        source.write_bytes(graph)
        ov.save_model(
            ov.convert_model(str(source)), str(Path(room) / "model.xml"), compress_to_fp16=False
        )
        return {f"model.{k}": (Path(room) / f"model.{k}").read_bytes() for k in ("xml", "bin")}


# --- NNCF


def _nncf(preset: str, files: Files, samples: Samples, name: str, _: Metric) -> Files:
    import nncf

    asked = {"preset": nncf.QuantizationPreset[preset]} if preset else {}
    return nncf_files(files, samples, name, **asked)


def _nncf_controlled(files: Files, samples: Samples, name: str, metric: Metric) -> Files:
    """`nncf.quantize_with_accuracy_control`: layers go back to float until the metric is kept."""
    import nncf
    import openvino as ov

    def validated(compiled: Any, picked: Any) -> tuple[float, None]:
        def run(i: int) -> dict[str, np.ndarray]:
            return {port.any_name: v for port, v in compiled(samples[i]).items()}

        return metric(run, [int(i) for i in picked]), None

    with tempfile.TemporaryDirectory() as room:
        for path, content in files.items():
            (Path(room) / path).write_bytes(content)
        model = ov.Core().read_model(str(Path(room) / "model.xml"))
        data = nncf.Dataset(range(len(samples)), lambda i: {name: samples[i]})
        made = nncf.quantize_with_accuracy_control(
            model, data, data, validated, max_drop=MAX_DROP, drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.MIXED, subset_size=len(samples),
        )  # fmt: skip
        ov.save_model(made, str(Path(room) / "int8.xml"), compress_to_fp16=False)
        return {f"model.{k}": (Path(room) / f"int8.{k}").read_bytes() for k in ("xml", "bin")}


# --- AI Edge


def _ai_edge(
    quantize: Callable[[bytes, Samples, str], bytes],
    files: Files, samples: Samples, name: str, _: Metric,
) -> Files:  # fmt: skip
    ((path, graph),) = files.items()
    return {path: quantize(graph, samples, name)}


def tflite_of(file: Path, pixels: np.ndarray) -> Files:
    """An .onnx file through onnx2tf, which has TensorFlow and packages of its own versions, so it
    is a program on the PATH or in ONNX2TF. Raises RuntimeError: it is not there, or it failed.

    pixels: uint8 (N, H, W, 3), pictures that it compares its own answers on
    """
    program = shutil.which(os.environ.get("ONNX2TF", "onnx2tf"))
    if program is None:
        raise RuntimeError("onnx2tf is not on the PATH: pip install onnx2tf, in an environment")
    with tempfile.TemporaryDirectory() as room:
        corners = pixels[:, : TRY[1], : TRY[2]].astype(np.float32) / 255
        np.save(Path(room) / TRIES, np.resize(corners, TRY))  # else it is fetched from the network
        command = [program, "-i", str(file), "-o", room, "-osd", "-n"]
        done = subprocess.run(command, cwd=room, capture_output=True, text=True, check=False)
        made = next(iter(Path(room).glob("*_float32.tflite")), None)
        if made is None:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise RuntimeError(f"onnx2tf: {' '.join(last)}")
        return {"model.tflite": made.read_bytes()}


_U8S8 = "u8s8, per channel, reduce_range off"
_CONTROL = f"preset mixed, at most {100 * MAX_DROP:g} point of mAP on the calibrating half"
RIVALS = {
    "ort-minmax": Rival("onnxruntime", "ONNX Runtime, min-max", _U8S8,
                        partial(_static, "MinMax", "QUInt8"), True),
    "ort-percentile": Rival("onnxruntime", "ONNX Runtime, percentile", f"{_U8S8}, 99.999",
                            partial(_static, "Percentile", "QUInt8"), True),
    "ort-entropy": Rival("onnxruntime", "ONNX Runtime, entropy", _U8S8,
                         partial(_static, "Entropy", "QUInt8"), True),
    "ort-w8a16": Rival("onnxruntime", "ONNX Runtime, W8A16", "u16s8, per channel, min-max",
                       partial(_static, "MinMax", "QUInt16")),
    "nncf-default": Rival("openvino", "NNCF, default", "", partial(_nncf, "")),
    "nncf-mixed": Rival("openvino", "NNCF, preset mixed", "", partial(_nncf, "MIXED")),
    "ai-edge-default": Rival("tflite", "AI Edge, default", "static_wi8_ai8, moving averages",
                             partial(_ai_edge, ai_edge_default)),
    "ai-edge-minmax": Rival("tflite", "AI Edge, min-max", "static_wi8_ai8, min-max",
                            partial(_ai_edge, ai_edge_minmax)),
    "nncf-accuracy": Rival("openvino", "NNCF, accuracy control", _CONTROL, _nncf_controlled),
}  # fmt: skip
