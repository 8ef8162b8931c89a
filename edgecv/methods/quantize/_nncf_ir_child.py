"""The child process of `quantize_ir`: float IR and calibration arrays in, IR with FakeQuantize out.

python -m edgecv.methods.quantize._nncf_ir_child job.json answer.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecv.child import serve
from edgecv.graphs.openvino import files
from edgecv.methods.quantize._nncf_child import quantize


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Write job["made"], and its weights beside it; {"version": NNCF's}. Raises MissingExtraError,
    EngineError."""
    return quantize(job, _read, files.save)


def _read(path: Path) -> Any:
    return files.read([path.read_bytes(), path.with_suffix(".bin").read_bytes()], path.name)


if __name__ == "__main__":
    serve(work)
