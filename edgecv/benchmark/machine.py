"""What explains a latency: the processor, its load, the software. Standard library only."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# Instruction sets that change which kernels an engine picks.
FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "avx512_fp16", "amx_int8", "amx_bf16", "avx512_vpopcntdq", "neon", "asimd", "asimddp", "i8mm",
    "sve",
)  # fmt: skip
# Those with an 8-bit integer dot product that adds in 32 bits.
INTEGER_DOT = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"))


def machine() -> dict[str, Any]:
    """Processor, cores, memory, operating system, Python; nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "cores": cores(),
        "features": cpu_features(),
        "memory_mb": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def processor(threads: int = 1) -> dict[str, Any]:
    """What a measured latency hangs on: the processor, and how many cores where several work."""
    found = {"cpu": cpu_name(), "architecture": platform.machine(), "features": cpu_features()}
    return found | ({"cores": min(threads, cores())} if threads > 1 else {})


def cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0))


def load_average() -> float:
    """Runnable processes, averaged over the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_name() -> str:
    """The processor's (or, on Arm boards, the board's) own name, else the architecture."""
    lines = _read("/proc/cpuinfo").splitlines()
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Which of FEATURES this processor has."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.lower().startswith(("flags", "features")):
            have = set(line.partition(":")[2].split())
            return [f for f in FEATURES if f in have]
    return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
