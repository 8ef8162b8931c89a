"""What the engines' own quantizers make of the same float graph at their defaults, as bundles.

A bundle, so that they are judged and timed by the same code as edgecv's own.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record  # noqa: F401  (it puts the checkout's edgecv on the path)

from edgecv.backends import run_module
from edgecv.backends.tflite.run import quiet
from edgecv.runtime.archive import Contents, read_bundle, write_bundle
from edgecv.samples import adapted
from edgecv.target import saturates

Files = dict[str, bytes]
Quantizer = Callable[[Files, list[np.ndarray], str], Files]
OneFile = Callable[[bytes, list[np.ndarray], str], bytes]


@dataclass(frozen=True)
class Library:
    """A quantizer: (float engine files, engine-ready float samples, input name) to int8 files."""

    target: str
    quantize: Quantizer

    def make(self, fp32: Path, images: list[np.ndarray], out: Path) -> Path:
        """The int8 bundle that this quantizer makes of an fp32 bundle. images: uint8 (H, W, 3)."""
        contents = read_bundle(fp32)
        (source,) = contents.inputs
        samples = [contents.preprocess(image) for image in images]
        files = self.quantize(dict(contents.files), samples, source.name)
        return pack(contents, files, images[0], out)


def one_file(quantize: OneFile) -> Quantizer:
    """Of engines whose network is one file."""

    def quantized(files: Files, samples: list[np.ndarray], name: str) -> Files:
        ((path, graph),) = files.items()
        return {path: quantize(graph, samples, name)}

    return quantized


def onnxruntime_default(graph: bytes, samples: list[np.ndarray], name: str) -> bytes:
    """`quantize_static` as it comes: s8s8, per tensor, MinMax."""
    return static_onnx(graph, samples, name)


def onnxruntime_x86(graph: bytes, samples: list[np.ndarray], name: str) -> bytes:
    """`quantize_static` as its documentation advises for x86: u8s8, per channel, MinMax."""
    from onnxruntime.quantization import QuantType

    return static_onnx(
        graph, samples, name, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def onnxruntime_reduced(graph: bytes, samples: list[np.ndarray], name: str) -> bytes:
    """The same with 7-bit weights, as its documentation advises for x86 without VNNI."""
    from onnxruntime.quantization import QuantType

    return static_onnx(
        graph, samples, name, per_channel=True, reduce_range=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def static_onnx(graph: bytes, samples: list[np.ndarray], name: str, **options: Any) -> bytes:
    """`quantize_static` with those options."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(samples)

        def __len__(self) -> int:
            return len(samples)

        def set_range(self, start_index: int, end_index: int) -> None:  # of CalibStridedMinMax
            self.left = iter(samples[start_index:end_index])

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.left, None)
            return None if sample is None else {name: sample}

    with tempfile.TemporaryDirectory() as room:
        source, made = Path(room) / "float.onnx", Path(room) / "int8.onnx"
        source.write_bytes(graph)
        quantize_static(source, made, Reader(), **options)
        return made.read_bytes()


def ai_edge_default(graph: bytes, samples: list[np.ndarray], name: str) -> bytes:
    """`static_wi8_ai8` with the quantizer's own calibration (moving averages of the ranges)."""
    from ai_edge_quantizer import quantizer, recipe

    with tempfile.TemporaryDirectory() as room, silent():
        source = Path(room) / "float.tflite"
        source.write_bytes(graph)
        work = quantizer.Quantizer(str(source))
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        ranges = work.calibrate({"serving_default": [{name: s} for s in samples]})
        return bytes(work.quantize(ranges).quantized_model)


def ai_edge_minmax(graph: bytes, samples: list[np.ndarray], name: str) -> bytes:
    """`static_wi8_ai8` with ranges that keep every value seen: what serves best of its settings."""
    from ai_edge_quantizer import calibrator, quantizer, recipe
    from ai_edge_quantizer.utils import qsv_utils

    with tempfile.TemporaryDirectory() as room, silent():
        source = Path(room) / "float.tflite"
        source.write_bytes(graph)
        work = quantizer.Quantizer(str(source))
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        seen = calibrator.Calibrator(graph, qsv_update_func=qsv_utils.min_max_update)
        data = {"serving_default": [{name: s} for s in samples]}
        seen.calibrate(data, work._recipe_manager)
        return bytes(work.quantize(seen.get_model_qsvs()).quantized_model)


def nncf_default(files: Files, samples: list[np.ndarray], name: str) -> Files:
    """`nncf.quantize` as it comes."""
    return nncf_files(files, samples, name)


def nncf_tuned(files: Files, samples: list[np.ndarray], name: str) -> Files:
    """The mixed preset, minimum and maximum, the slower bias correction, no 7-bit weights on VNNI.

    With the bias correction off it loses 10 dB on this network.
    """
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if saturates() else OverflowFix.DISABLE,
        activations_range_estimator_params=Ranges.MINMAX,
    )
    return nncf_files(
        files, samples, name, preset=nncf.QuantizationPreset.MIXED, fast_bias_correction=False,
        advanced_parameters=advanced,
    )  # fmt: skip


def nncf_files(files: Files, samples: list[np.ndarray], name: str, **options: Any) -> Files:
    """`nncf.quantize` of model.xml and model.bin with those options."""
    with tempfile.TemporaryDirectory() as room, silent():
        import nncf
        import openvino as ov

        for path, content in files.items():
            (Path(room) / path).write_bytes(content)
        model = ov.Core().read_model(str(Path(room) / "model.xml"))
        data = nncf.Dataset(samples, lambda x: {name: x})
        made = nncf.quantize(model, data, subset_size=len(samples), **options)
        ov.save_model(made, str(Path(room) / "int8.xml"), compress_to_fp16=False)
        return {f"model.{k}": (Path(room) / f"int8.{k}").read_bytes() for k in ("xml", "bin")}


LIBRARIES = {
    "onnxruntime quantize_static, u8s8 per channel": Library("cpu", one_file(onnxruntime_x86)),
    "onnxruntime quantize_static, default": Library("cpu", one_file(onnxruntime_default)),
    "ai_edge_quantizer static_wi8_ai8, default": Library("tflite", one_file(ai_edge_default)),
}

# NNCF, and the same libraries at the settings that served them best.
TUNED = {
    "onnxruntime quantize_static, u8s8 per channel, reduce_range": Library(
        "cpu", one_file(onnxruntime_reduced)
    ),
    "nncf, default": Library("openvino", nncf_default),
    "nncf, mixed preset, min-max, slow bias correction": Library("openvino", nncf_tuned),
    "ai_edge_quantizer static_wi8_ai8, min-max": Library("tflite", one_file(ai_edge_minmax)),
}


def pack(contents: Contents, files: dict[str, bytes], image: np.ndarray, out: Path) -> Path:
    manifest = contents.manifest
    session = run_module(manifest["engine"]).Session(files)
    (source,), (result,) = session.inputs, session.outputs
    preprocess = adapted(contents.preprocess, source)
    golden = preprocess(image)
    answer = session.run({source.name: golden})
    manifest = {
        **manifest,
        "precision": "int8",
        "input": {"name": source.name, "preprocess": preprocess.to_json()},
        "inputs": [source.to_json()],
        "outputs": [result.to_json()],
        "executed": session.executed(),
        "metric": None,
    }
    session.close()
    out.mkdir(parents=True)
    return write_bundle(out / "library.edgecv", manifest, files, {source.name: golden}, answer)


@contextlib.contextmanager
def silent() -> Any:
    with warnings.catch_warnings(), quiet(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            yield
