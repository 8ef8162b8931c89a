"""Signs and sums of one-bit layers with the engines held to one instruction set, in processes of
their own: what a processor with more of them gives is not what one with fewer gives by chance."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")
from edgecv.benchmark.machine import cpu_features
from edgecv.binary import library

# Instruction set -> what the processor must have, oneDNN's and OpenVINO's names, our kernels' name.
SETS = {
    "avx2": ("avx2", "AVX2", "AVX2", "avx2"),
    "avx512": ("avx512bw", "AVX512_CORE", "AVX512", "avx512"),
}
TESTS = (
    "test_openvino_one_bit.py::test_the_sign_of_zero_is_one",
    "test_openvino_one_bit.py::test_it_gives_pytorch_s_bits[{'kernel': 1}]",
)
ORT = "../binary/test_ort.py::test_a_packed_chain_is_equal_to_its_reference"
pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 alone")


@pytest.mark.parametrize("name", SETS)
def test_held_to_an_instruction_set(name: str) -> None:
    needed, onednn, openvino, kernels = SETS[name]
    if needed not in cpu_features():
        pytest.skip(f"this processor has no {needed}")
    held = {"ONEDNN_MAX_CPU_ISA": onednn, "OV_CPU_MAX_ISA": openvino}
    chosen = list(TESTS)
    if library.found() is not None and kernels in library.sets():
        held["EDGECV_KERNEL_SET"] = kernels
        chosen.append(ORT)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         *(str(here / t) for t in chosen)],
        env={**os.environ, **held}, cwd=here.parent.parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(chosen)} passed" in done.stdout, done.stdout[-300:]
