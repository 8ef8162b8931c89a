"""`edgecv bench`: measure bundles side by side, here or on a device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgecv.commands.common import Bar, existing, runner, seconds
from edgecv.terminal import print_json


def register(command: Any) -> None:
    bench = command("bench", run_bench, "Measure bundles side by side, against the first.")
    bench.add_argument("bundles", nargs="+", type=existing, help=".edgecv files")
    bench.add_argument(
        "--against",
        type=existing,
        metavar="BUNDLE",
        help="what ratios are to (default: the first bundle)",
    )
    bench.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")
    bench.add_argument(
        "--batch", type=int, help="images in a call (default 1; offline: one a thread)"
    )
    bench.add_argument(
        "--scenario",
        choices=("single-stream", "offline"),
        default="single-stream",
        help="one call after the other, or all threads at once",
    )
    bench.add_argument(
        "--budget",
        type=seconds,
        default=30.0,
        metavar="30s",
        help="end after this long (30s), or earlier when sure enough",
    )
    bench.add_argument(
        "--precision",
        type=float,
        default=1.0,
        metavar="P",
        help="half-width of the ratios' intervals to reach, percent (1)",
    )
    bench.add_argument("--rounds", type=int, default=40, help="interleaved rounds at least (40)")
    bench.add_argument("--burst-ms", type=float, default=5.0, help="one turn in a round, ms (5)")
    bench.add_argument("--seed", type=int, default=0, help="of the order of turns")
    bench.add_argument(
        "--profile", action="store_true", help="per layer: time, precision that ran, bytes"
    )
    add_device(bench)


def add_device(command: Any) -> None:
    """The options of every command that can measure on a device."""
    command.add_argument(
        "--device",
        metavar="SSH",
        help="on ssh://user@host[:port], or the device of a target profile",
    )
    command.add_argument(
        "--ssh-config",
        type=existing,
        metavar="FILE",
        help="OpenSSH client configuration instead of ~/.ssh/config",
    )
    command.add_argument(
        "--python", metavar="PATH", help="Python on the device (default: its profile's, or python3)"
    )


def run_bench(options: argparse.Namespace) -> int:
    from edgecv.api.bench import checked, measured, ordered

    names = ("threads", "scenario", "batch", "rounds", "precision", "burst_ms", "seed")
    plan = {**{name: getattr(options, name) for name in names}, "budget_s": options.budget}
    with Bar("bench", quiet=options.json) as bar:
        run = runner(options, bar)
        if options.profile:
            bundles = ordered(options.bundles, options.against)
            checked(plan, bundles)
            return _profile(options, bundles, run)
        data = measured(options.bundles, options.against, plan, run)
    if options.json:
        print_json(data)
    else:
        show(data)
    return 0


def show(data: dict[str, Any]) -> None:
    """The tables of a measurement."""
    from edgecv.text_table import table

    rows, starts = [], []
    for b in data["bundles"]:
        t, (low, high) = b["latency_ms"], b["latency_ratio_interval"]
        rows.append(
            [
                b["bundle"],
                *(f"{t[k]:.3f}" for k in ("p50", "p90", "p99", "mean")),
                f"{b['cpu_ms']:.3f}",
                f"{b['throughput']:,.0f}",
                f"{b['latency_ratio']:.3f}",
                f"{low:.3f}-{high:.3f}",
                f"{b['cpu_time_ratio']:.3f}",
                "busy" if b["busy"] else "",
            ]
        )
        memory = b.get("memory_mb") or {}
        starts.append(
            [
                b["bundle"],
                *(_number(b.get(k), 1) for k in ("import_ms", "load_ms", "first_call_ms")),
                *(_number(memory.get(k), 1) for k in ("before", "steady", "peak")),
                f"{b['size_bytes'] / 1024:,.1f}",
                f"{b['download_bytes'] / 1024:,.1f}",
                _number(b.get("energy_mj"), 2),
            ]
        )
    head = [
        "bundle",
        "p50 ms",
        "p90",
        "p99",
        "mean",
        "cpu ms",
        "images/s",
        "ratio",
        "95% interval",
        "cpu ratio",
        "",
    ]
    table(head, rows, right=range(1, 10))
    print()
    table(
        [
            "bundle",
            "import ms",
            "load ms",
            "first call ms",
            "MB before",
            "MB steady",
            "MB peak",
            "engine KB",
            "file KB",
            "mJ/call",
        ],
        starts,
        right=range(1, 10),
    )
    print()
    for line in circumstances(data):
        print(line)


def circumstances(data: dict[str, Any]) -> list[str]:
    """What explains the figures, and what they should be taken with."""
    m, after = data["machine"], data["sensors"]["after"]
    facts = [m["cpu"], f"{m['cores']} cores", f"{data['threads']} thread(s)", data["scenario"]]
    facts += [f"batch {data['batch']}"] if data["batch"] > 1 else []
    facts += [f"{after['frequency_mhz']:.0f} MHz"] if after["frequency_mhz"] else []
    facts += [f"{after['temperature_c']:.0f} °C"] if after["temperature_c"] else []
    lines = [
        ", ".join(facts),
        f"{data['rounds']} rounds in {data['sittings']} sittings, {data['seconds']:.0f} s; "
        f"calibration workload {data['calibration']['latency_ms']:.3f} ms",
    ]
    return lines + [f"warning: {text}" for text in data["warnings"]]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _profile(options: argparse.Namespace, bundles: list[Path], run: Any) -> int:
    from edgecv.benchmark import profile
    from edgecv.text_table import table

    job = {"bundles": [str(b) for b in bundles], "threads": options.threads, "runs": 20}
    profiles = run("edgecv.benchmark.profile", job, "profile")["profiles"]
    if options.json:
        print_json({"schema": 1, "profiles": profiles})
        return 0
    for i, found in enumerate(profiles):
        print("\n" * bool(i) + f"{found['bundle']}  ({found['engine']})")
        table(profile.HEAD, profile.rows(found), right=profile.RIGHT)
        print(profile.summary(found))
    return 0
