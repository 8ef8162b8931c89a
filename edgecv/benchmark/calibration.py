"""A fixed piece of work to hold a machine's pace against: VERSION says which.

    C = A B,  Y = W X        in numpy, float32, one thread

Half of its time goes into products of 128 x 128 matrices, half into one the shape of a 3 x 3
convolution (64 x 576 x 196). A latency divided by this workload's time, measured in turns with it,
can be compared with another day's on the same kind of processor; engines change, numpy's kernels
hardly do. On two kinds of processor the quotient means two things.

Convolutions by im2col, element-wise passes and plain Python were tried beside products: their own
time moved by 1-7% from one process to the next against every network's, where the products' moved
by 0.2-0.6% (docs/decisions/003-what-a-ratio-is-worth.md).

All arrays lie in one arena at fixed distances: where an allocator happens to put them would move
its time by several percent from one process to the next.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence

import numpy as np

VERSION = 1
# BLAS starts threads of its own, which then spin: set these before numpy is imported.
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# (times in a call, rows, inner, columns)
PRODUCTS = ((10, 128, 128, 128), (3, 64, 576, 196))


class Calibration:
    """The workload as a subject of `edgecv.benchmark.sampling`."""

    def __init__(self, name: str = "calibration") -> None:
        self.name = name

    def open(self) -> Callable[[], object]:
        """The function that does the work once; its arrays lie in fresh memory."""
        take, rng = _arena(), np.random.default_rng(VERSION)
        jobs = []
        for times, rows, inner, columns in PRODUCTS:
            a, b, c = take((rows, inner)), take((inner, columns)), take((rows, columns))
            a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
            jobs += [(a, b, c)] * times

        def work() -> None:
            for a, b, c in jobs:
                np.matmul(a, b, out=c)

        return work

    def close(self) -> None:
        """Nothing to do: the arena goes with its arrays."""


def _arena(size: int = 4 << 20) -> Callable[[Sequence[int]], np.ndarray]:
    """A function that hands out float32 arrays from one page-aligned block of memory."""
    block = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    used = 0

    def take(shape: Sequence[int]) -> np.ndarray:
        nonlocal used
        count = 4 * int(np.prod(shape))
        array = block[used : used + count].view(np.float32).reshape(shape)
        # to the next page and a few cache lines on, so that no two arrays share cache sets
        used += -(-count // 4096) * 4096 + 320
        return array

    return take
