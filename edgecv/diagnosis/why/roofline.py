"""What bounds a layer: arithmetic, memory, or the call itself.

    t_compute = MACs / peak        peak: a 64-channel 3x3 convolution on this engine, measured
    t_memory  = bytes / bandwidth  bandwidth: a copy of as many bytes, in cache or not, measured
    t_call    = t_1 + (n - 1) t_n  a network of one tiny layer, and of many, measured

The roofline of Williams et al., "Roofline: an insightful visual performance model" (CACM 2009).
A layer is memory-bound when t_memory is the larger and at least half of what it took.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgecv.diagnosis.why.case import Case
from edgecv.diagnosis.why.findings import TWIN, Finding
from edgecv.errors import EdgecvError
from edgecv.measuring.clock import Clock
from edgecv.measuring.product import Product
from edgecv.measuring.single_layer_graphs import trial
from edgecv.runtime.spec import Layer

SHARE = 0.1  # of the budget that is left, for one measurement
MUCH_MEMORY, MUCH_CALL = 0.3, 0.5  # shares of a call from which on they are a cause
CHAIN = 17
_PEAK = Product("peak", "conv", (64, 64), (28, 28), (28, 28), (3, 3), pads=(1, 1, 1, 1))
_TINY = Product("tiny", "conv", (4, 4), (2, 2), (2, 2), (1, 1))


@dataclass
class Limits:
    """What this engine reaches on this machine.

    peaks:   precision -> multiply-accumulates per millisecond
    call_ms: of a network of one tiny layer; layer_ms: what one more tiny layer adds
    """

    peaks: dict[str, float] = field(default_factory=dict)
    call_ms: float = 0.0
    layer_ms: float = 0.0
    _copies: dict[int, float] = field(default_factory=dict)

    def memory_ms(self, size_bytes: int) -> float:
        """What moving so many bytes takes, from a copy of about that size."""
        near = 1 << max(12, (size_bytes - 1).bit_length())
        if near not in self._copies:
            self._copies[near] = _copy_ms(near)
        return self._copies[near] * size_bytes / near

    def bound(self, row: Layer, macs: int) -> str:
        """ "memory", "compute" or "": what holds a layer up, by these limits."""
        took = row.time_ms or 0.0
        if not took or not row.precision:
            return ""
        compute = macs / self.peaks[row.precision] if self.peaks.get(row.precision) else 0.0
        memory = self.memory_ms(row.bytes or 0)
        if memory > compute and memory >= 0.5 * took:
            return "memory"
        return "compute" if compute >= 0.5 * took else ""


def measured(case: Case) -> Limits | None:
    """The limits of a case's engine; None where nothing runs or the budget is spent."""
    if case.clock is None or not case.layers:
        return None
    found = Limits()
    try:
        for precision in {r.precision for r in case.layers} & {"int8", "fp32"}:
            one = trial(_PEAK, case.engine, precision == "int8", case.threads)
            rounds = case.clock.rounds([one], SHARE)
            if rounds is None:
                return None
            found.peaks[precision] = _PEAK.macs / float(np.median(rounds.ms))
        return found if _overhead(case, case.clock, found) else None
    except EdgecvError:
        return None


def _overhead(case: Case, clock: Clock, found: Limits) -> bool:
    trials = [trial(_TINY, case.engine, False, case.threads, n) for n in (1, CHAIN)]
    rounds = clock.rounds(trials, SHARE)
    if rounds is None:
        return False
    one, many = np.median(rounds.ms, 0)
    found.call_ms, found.layer_ms = float(one), max(0.0, float(many - one) / (CHAIN - 1))
    return True


def check(case: Case, limits: Limits | None) -> Iterator[Finding]:
    """Memory-bound layers, and networks whose calls are mostly overhead."""
    if limits is None or not case.call_ms:
        return
    macs = {p.layer: p.macs for p in case.products}
    rows = [r for r in case.layers if limits.bound(r, macs.get(r.layer, 0)) == "memory"]
    took = sum(r.time_ms or 0.0 for r in rows)
    if took >= MUCH_MEMORY * case.call_ms:
        yield _memory(rows, macs, limits, took)
    overhead = limits.call_ms + (len(case.layers) - 1) * limits.layer_ms
    if overhead >= MUCH_CALL * case.call_ms:
        yield Finding(
            "call-overhead",
            f"a call costs {limits.call_ms:.4f} ms and each of {len(case.layers)} steps "
            f"{limits.layer_ms:.4f} ms before anything is computed",
            (),
            min(overhead, case.call_ms),
            "several images in one call of the application, fewer and wider layers, or an engine "
            "that costs less a call (edgecv bench with other targets)",
            TWIN,
        )


def _memory(rows: list[Layer], macs: dict[str, int], limits: Limits, took: float) -> Finding:
    rows = sorted(rows, key=lambda r: -(r.time_ms or 0.0))
    compute = sum(
        macs.get(r.layer, 0) / limits.peaks[r.precision]
        for r in rows
        if r.precision in limits.peaks
    )
    moved = sum(r.bytes or 0 for r in rows)
    floats = any(r.precision == "fp32" for r in rows)
    return Finding(
        "memory-bound",
        f"{len(rows)} layers wait for memory: they move {moved / 1e6:.2f} MB in {took:.3f} ms "
        f"({moved / took / 1e6:.1f} GB/s), their arithmetic takes {compute:.3f} ms",
        tuple(dict.fromkeys(r.layer or r.name for r in rows)),
        took - compute,
        "int8 moves a quarter of the bytes (quantize: {precision: int8})" if floats
        else "fewer channels or pixels there (prune, a smaller input), or layers that fuse",
        TWIN,
    )  # fmt: skip


def _copy_ms(size_bytes: int, repeats: int = 15) -> float:
    """Milliseconds to move so many bytes: half of them read, half written."""
    source = np.ones(max(1, size_bytes // 2), np.uint8)
    target = np.empty_like(source)
    calls = max(1, (1 << 20) // size_bytes)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter_ns()
        for _ in range(calls):
            np.copyto(target, source)
        times.append((time.perf_counter_ns() - begin) / calls)
    return float(np.median(times)) / 1e6
