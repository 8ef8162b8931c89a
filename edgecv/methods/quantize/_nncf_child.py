"""The child process of `quantize_nncf`: an .onnx file and calibration arrays in, Q/DQ nodes out.

python -m edgecv.methods.quantize._nncf_child job.json answer.json
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.child import serve
from edgecv.errors import EdgecvError, EngineError, missing, one_line


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Write job["made"]; {"version": NNCF's}. Raises MissingExtraError, EngineError."""
    return quantize(job, _read, _write)


def quantize(
    job: dict[str, Any], read: Callable[[Path], Any], write: Callable[[Any, Path], None]
) -> dict[str, Any]:
    """`work` of files that are read and written so."""
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
    try:
        made = nncf.quantize(read(Path(job["model"])), data, subset_size=count, **_settings(job))
    except EdgecvError:
        raise
    except Exception as e:
        what = one_line(e)
        raise EngineError("quantize: nncf", what, "take engine edgecv") from None
    write(made, Path(job["made"]))
    return {"version": nncf.__version__}


def _read(path: Path) -> Any:
    import onnx

    return onnx.load_model(str(path))


def _write(made: Any, path: Path) -> None:
    path.write_bytes(made.SerializeToString(deterministic=True))


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
