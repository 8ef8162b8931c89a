"""The child process of `quantize_nncf`: an .onnx file and calibration arrays in, Q/DQ nodes out;
of an OpenVINO IR the same with FakeQuantize.

python -m edgecv.stages.quantize._nncf_child job.json answer.json
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.child import serve
from edgecv.errors import EdgecvError, EngineError, missing
from edgecv.graphs.openvino import files


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Write job["made"]; {"version": NNCF's}. Raises MissingExtraError, EngineError."""
    # NNCF and OpenVINO tell their maker of every use, from processes that they fork, unless the
    # library that does it is absent.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import nncf
    except ImportError as e:
        raise missing(e.name or "nncf", "nncf", "quantize: engine nncf") from None
    nncf.set_log_level(logging.ERROR)
    columns = {
        name: np.load(Path(job["out"]) / f"{i}.npy", mmap_mode="r", allow_pickle=False)
        for i, name in enumerate(job["inputs"])
    }
    count = len(next(iter(columns.values())))
    data = nncf.Dataset(
        range(count), lambda i: {name: np.array(rows[i]) for name, rows in columns.items()}
    )
    source, target = Path(job["model"]), Path(job["made"])
    read, write = _IR if source.suffix == ".xml" else _ONNX
    try:
        made = nncf.quantize(read(source), data, subset_size=count, **_settings(job))
    except EdgecvError:
        raise
    except Exception as e:
        what = " ".join(str(e).split())[:300] or type(e).__name__
        raise EngineError("quantize: nncf", what, "take engine edgecv") from None
    write(made, target)
    return {"version": nncf.__version__}


def _read_onnx(path: Path) -> Any:
    import onnx

    return onnx.load_model(str(path))


def _write_onnx(made: Any, path: Path) -> None:
    path.write_bytes(made.SerializeToString(deterministic=True))


def _read_ir(path: Path) -> Any:
    return files.read([path.read_bytes(), path.with_suffix(".bin").read_bytes()], path.name)


_ONNX, _IR = (_read_onnx, _write_onnx), (_read_ir, files.save)


def _settings(job: dict[str, Any]) -> dict[str, Any]:
    """Our options and grid in NNCF's words."""
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    options, grid = job["options"], job["grid"]
    mixed = options["preset"] == "mixed" and not grid["symmetric"]
    smooth = AdvancedSmoothQuantParameters()  # of matrix products alone
    if not options["smooth_quant"]:
        smooth = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    advanced = nncf.AdvancedQuantizationParameters(
        # weights of 7 bits, on processors whose u8*s8 products saturate
        overflow_fix=OverflowFix.ENABLE if grid["reduce_range"] else OverflowFix.DISABLE,
        disable_bias_correction=not options["bias_correction"],
        # A scale for each channel of what depthwise layers read wins nothing and is slower.
        activations_quantization_params=QuantizationParameters(
            per_channel=False, signedness_to_force=True if grid["activations"] == "int8" else None
        ),
        weights_quantization_params=QuantizationParameters(per_channel=grid["per_channel"]),
        activations_range_estimator_params={"minmax": Ranges.MINMAX, "mse": Ranges.HISTOGRAM}[
            options["calibration"]
        ],
        smooth_quant_alphas=smooth,
    )
    preset = nncf.QuantizationPreset
    return {
        "preset": preset.MIXED if mixed else preset.PERFORMANCE,
        "target_device": nncf.TargetDevice.CPU,
        "fast_bias_correction": options["fast_bias_correction"],
        # its rules for transformers want an attention to recognise
        "model_type": nncf.ModelType.TRANSFORMER if job["attention"] else None,
        "ignored_scope": nncf.IgnoredScope(names=job["ignored"], validate=False),
        "advanced_parameters": advanced,
    }


if __name__ == "__main__":
    serve(work)
