"""What a machine's sensors tell: energy, clock, temperature, throttling. Linux; null elsewhere.

Sources: the kernel's ABI documentation of powercap (RAPL), cpufreq, thermal and
`cpuN/thermal_throttle`. A virtual machine mostly has none of them, and says so by nulls.

Imported on devices: the standard library only.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

SYS = Path("/sys")
PROC = Path("/proc")


def read(sys_root: Path = SYS, proc: Path = PROC) -> dict[str, Any]:
    """One reading: {"frequency_mhz", "governor", "temperature_c", "throttled", "load_average"}.

    frequency_mhz: mean over the CPUs. temperature_c: the hottest zone. throttled: how often any
    core was slowed by heat since the machine started. Each is null where it cannot be read.
    """
    cpus = sys_root / "devices/system/cpu"
    clocks = _numbers(sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")))
    mhz = [v / 1000.0 for v in clocks] or _proc_mhz(proc)
    zones = _numbers(sorted((sys_root / "class/thermal").glob("thermal_zone*/temp")))
    throttles = _numbers(sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")))
    load = _number(_text(proc / "loadavg").partition(" ")[0])
    return {
        "frequency_mhz": round(sum(mhz) / len(mhz), 1) if mhz else None,
        "governor": _text(cpus / "cpu0/cpufreq/scaling_governor") or None,
        "temperature_c": max(zones) / 1000.0 if zones else None,
        "throttled": int(sum(throttles)) if throttles else None,
        "load_average": load,
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What happened between two readings that makes milliseconds untrustworthy, a sentence each."""
    found = []
    times = (after["throttled"] or 0) - (before["throttled"] or 0)
    if before["throttled"] is not None and times > 0:
        found.append(f"the processor was throttled by heat {times} times: cool it, or wait")
    first, last = before["frequency_mhz"], after["frequency_mhz"]
    if first and last and abs(last / first - 1) > 0.15:
        found.append(f"the clock went from {first:.0f} to {last:.0f} MHz: trust the ratios")
    if after["governor"] not in (None, "performance"):
        found.append(f"the frequency governor is {after['governor']!r}: milliseconds vary")
    return found


def energy_uj(sys_root: Path = SYS) -> int | None:
    """Energy counters of all processor packages, microjoules (they wrap); None without RAPL."""
    counters = _counters(sys_root)
    if not counters:
        return None
    with suppress(OSError, ValueError):
        return sum(int(path.read_text()) for path in counters)
    return None


@cache
def _counters(sys_root: Path) -> tuple[Path, ...]:
    """Readable energy counters, one for each package ("intel-rapl:0", not its parts ":0:0").

    A package may be there twice (through MSRs and memory-mapped), and "psys" holds them all.
    """
    found: dict[str, Path] = {}
    for path in sorted((sys_root / "class/powercap").glob("*rapl*/energy_uj"), key=str):
        if re.fullmatch(r"[a-z-]*rapl[a-z-]*:\d+", path.parent.name):
            name = _text(path.parent / "name") or path.parent.name
            with suppress(OSError, ValueError):
                int(path.read_text())  # readable by root alone since Linux 5.10
                if name != "psys":
                    found.setdefault(name, path)
    return tuple(found.values())


def _proc_mhz(proc: Path) -> list[float]:
    lines = _text(proc / "cpuinfo").splitlines()
    found = (_number(v.partition(":")[2]) for v in lines if v.startswith("cpu MHz"))
    return [value for value in found if value is not None]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(paths: list[Path]) -> list[float]:
    found = []
    for path in paths:
        with suppress(OSError, ValueError):
            found.append(float(path.read_text()))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
