"""What glibc does with memory that is freed.

By its own choice large pieces go back to the system at once, and the next array of that size comes
in new pages, each cleared when it is first touched: a tenth of the time that training and
calibration take, whose arrays have the same few sizes in every step. What is computed is the same.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Parameters of mallopt(3), and what they are set to, in bytes.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
KEPT, AHEAD, LARGEST = 1 << 30, 1 << 26, 1 << 25  # the last is the most that glibc takes


def keep_freed() -> None:
    """Let this process keep up to KEPT of what it frees. Other C libraries do as they do."""
    with suppress(OSError, AttributeError, TypeError):  # no glibc, or no way to its functions
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (TRIM_THRESHOLD, KEPT), (TOP_PAD, AHEAD), (MMAP_THRESHOLD, LARGEST),
        ):  # fmt: skip
            mallopt(parameter, value)
