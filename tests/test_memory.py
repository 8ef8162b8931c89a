"""What is freed stays with the process that asks for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Faults of pages while an array of 8 MiB is made and freed again and again.
FAULTS = """
import resource, sys
import numpy as np
from edgecv.memory import keep_freed

if sys.argv[1] == "keep":
    keep_freed()
for _ in range(3):
    held = [np.ones(1 << 20) for _ in range(8)]  # larger than what glibc keeps by itself
    del held
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    held = [np.ones(1 << 20) for _ in range(8)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_arrays_of_one_size_come_in_the_same_pages() -> None:
    faults = {}
    for how in ("keep", "leave"):
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < 2000 < faults["leave"]
