"""Times of the rows of `int8_detectors.py`: bursts of calls in turn, one thread, each in a process
that was started with the row's instruction set.

oneDNN reads ONEDNN_MAX_CPU_ISA once, when it is loaded, so there is a process for each value; the
others wait while one row runs. Networks are opened anew for every sitting: where their buffers come
to lie moves their time by a percent or more.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VARIABLE = "ONEDNN_MAX_CPU_ISA"
SITTINGS, ROUNDS, BURST_S, FEWEST = 3, 10, 0.06, 3


class Clock:
    """A process that opens rows and runs bursts of them. rows: as `int8_work.opened` takes them"""

    def __init__(self, network: Path, rows: Sequence[dict[str, Any]], isa: str) -> None:
        told = {VARIABLE: isa} if isa else {}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **told},
        )  # fmt: skip
        self.network, self.rows = network, rows

    def open(self) -> None:
        """Open every row, what was open is closed. Raises RuntimeError."""
        self._ask({"network": str(self.network), "rows": list(self.rows)})

    def burst(self, row: int) -> tuple[float, float]:
        """(median call, CPU time a call) in milliseconds."""
        wall, cpu = self._ask({"row": row})
        return wall, cpu

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("="):  # what an engine prints goes by
                return json.loads(line[1:])
        raise RuntimeError("a process that runs networks has ended")


def ratios(
    network: Path, rows: Sequence[dict[str, Any]], seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float]]:  # fmt: skip
    """For each row its median milliseconds and its time over that of the first row, by the round:
    medians with quartiles. rows: {"folder", "engine", "floats", "isa"}"""
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(row["isa"], []).append(i)
    clocks = {isa: Clock(network, [rows[i] for i in held], isa) for isa, held in places.items()}
    where = {i: (clocks[isa], k) for isa, held in places.items() for k, i in enumerate(held)}
    found: list[list[tuple[float, float]]] = [[] for _ in rows]
    order = random.Random(seed)
    try:
        for sitting in range(SITTINGS):
            for clock in clocks.values():
                clock.open()
            for _ in range(ROUNDS):
                for i in order.sample(range(len(rows)), len(rows)):
                    clock, k = where[i]
                    found[i].append(clock.burst(k))
            tell(f"sitting {sitting + 1} of {SITTINGS}")
    finally:
        for clock in clocks.values():
            clock.close()
    return [_summary(one, found[0]) for one in found]


def _summary(
    one: Sequence[tuple[float, float]], first: Sequence[tuple[float, float]]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, k in (("wall", 0), ("cpu", 1)):
        values = [a[k] for a in one]
        over = [a[k] / b[k] for a, b in zip(one, first, strict=True)]
        low, middle, high = statistics.quantiles(over, n=4)
        found |= {f"{name}_ms": statistics.median(values), f"{name}_ratio": middle,
                  f"{name}_low": low, f"{name}_high": high}  # fmt: skip
    return {k: round(v, 4) for k, v in found.items()}


def main() -> int:
    """The child: a question a line."""
    import int8_work as work

    from edgecv.data.images import Images

    calls: list[Callable[[], Any]] = []
    counts: dict[int, int] = {}
    held: list[work.Opened] = []
    for line in sys.stdin:
        question = json.loads(line)
        if "rows" in question:
            network = Path(question["network"])
            images = Images.load(network / "images" / work.ODD)
            calls.clear()
            for one in held:
                one.session.close()
            held[:] = [
                work.opened(network, Path(r["folder"]), r["engine"], r["floats"])
                for r in question["rows"]
            ]
            calls += [_call(one, one.feed(images)) for one in held]
            for k, call in enumerate(calls):
                call()
                begin = time.perf_counter()
                call()
                counts[k] = max(FEWEST, round(BURST_S / (time.perf_counter() - begin)))
            answer: Any = len(calls)
        else:
            answer = _burst(calls[question["row"]], counts[question["row"]])
        print("=" + json.dumps(answer), flush=True)
    return 0


def _call(one: Any, feed: Any) -> Callable[[], Any]:
    return lambda: one.session.run(feed)


def _burst(call: Callable[[], Any], count: int) -> tuple[float, float]:
    call()  # the caches hold the row before
    walls = []
    cpu = time.process_time()
    for _ in range(count):
        begin = time.perf_counter()
        call()
        walls.append(time.perf_counter() - begin)
    cpu = time.process_time() - cpu
    return 1e3 * statistics.median(walls), 1e3 * cpu / count


if __name__ == "__main__":
    raise SystemExit(main())
