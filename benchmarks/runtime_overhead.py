"""What edgecv.runtime costs on top of a bare engine, to import, and `edgecv --help`.

    python benchmarks/runtime_overhead.py [--out benchmarks/results]

Needs the extra [all]; no data: the networks have random weights and are calibrated on smooth
noise, because only time matters here. int8, where an engine's own time is shortest and an overhead
shows most. Every way to call takes turns on *one* engine session, so that memory placement and
drift hit all alike:

    engine       the engine's own calls, as its documentation has them, on a ready array
    run          bundle.run({name: array})                          against engine
    engine+pre   bundle.preprocess(image), then the engine's calls
    call         bundle(image), the image as large as the network's input    against engine+pre

`call` is shown against `engine` too, which counts the normalisation as overhead. A limit is met
when the median over rounds is within 20 microseconds or 2% of the engine's time.

Exit code 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import RESULTS, ROOT, circumstances, export, load_average, table, verdict, write

from edgecv.runtime import Bundle, open_bundle

ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
# name: (zoo, pixels, channels, options)
NETWORKS = {
    "resnet8 28x28": ("resnet8", 28, 1, ("--channels", "1", "--mean", "73", "--std", "90")),
    "Lite0 224x224": ("efficientnet_lite0", 224, 3, ("--mean", "127", "--std", "128")),
}
LIMIT_US, LIMIT_SHARE = 20.0, 0.02
LIMIT_IMPORT_S, LIMIT_HELP_S = 0.15, 0.3
SEED, ROUNDS, BURST_MS, REPEATS = 0, 400, 2.0, 30

Call = Callable[[], Any]
IMPORT = """
import time, numpy
begin = time.perf_counter()
import edgecv.runtime
print(time.perf_counter() - begin)
"""
BLOCKED = "import sys; sys.modules.update(dict.fromkeys(('torch', 'pydantic', 'rich')))\n" + IMPORT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as room:
        calls = [row for name in NETWORKS for row in _network(name, Path(room) / name)]
    imports, help_ = _imports(), _help()
    data = {
        "schema": 1,
        "circumstances": circumstances(1, SEED, load),
        "limits": {
            "call": {"microseconds": LIMIT_US, "share": LIMIT_SHARE, "the": "larger"},
            "import_s": LIMIT_IMPORT_S,
            "help_s": LIMIT_HELP_S,
        },
        "rounds": ROUNDS,
        "repeats": REPEATS,
        "calls": calls,
        "import": imports,
        "help": help_,
        "met": {
            "run": all(r["run"]["met"] for r in calls),
            "call": all(r["call"]["met"] for r in calls),
            "call_counting_normalisation": all(r["call_over_engine"]["met"] for r in calls),
            "import": imports["seconds"]["median"] <= LIMIT_IMPORT_S,
            "help": help_["seconds"]["median"] <= LIMIT_HELP_S,
        },
    }
    write("runtime_overhead", options.out, data, _markdown(data))
    required = ("run", "call", "import", "help")
    return 0 if all(data["met"][k] for k in required) else 1


# calls


def _network(name: str, room: Path) -> list[dict[str, Any]]:
    zoo, pixels, channels, options = NETWORKS[name]
    _noise(room / "images", pixels, channels)
    options = (*options, "--input-size", str(pixels), "--crop-pct", "1",
               "--calibration", str(room / "images"))  # fmt: skip
    rows = []
    for target, engine in ENGINES.items():
        bundle = open_bundle(export(zoo, target, "int8", room / target, *options))
        rows.append({"network": name, "engine": engine, **_overheads(bundle)})
        bundle.close()
    return rows


def _noise(folder: Path, pixels: int, channels: int, count: int = 48) -> None:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    for i in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        smooth = coarse.convert("RGB" if channels == 3 else "L").resize((pixels, pixels))
        smooth.save(folder / f"{i:03}.png")


def _overheads(bundle: Bundle) -> dict[str, Any]:
    shape = (*bundle.preprocess.size, bundle.preprocess.channels)
    image = np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8)
    array, pre = bundle.preprocess(image), bundle.preprocess
    bare, name = BARE[bundle.manifest["engine"]](bundle), bundle.inputs[0].name
    median = _interleaved({
        "engine": lambda: bare(array),
        "run": lambda: bundle.run({name: array}),
        "engine+pre": lambda: bare(pre(image)),
        "call": lambda: bundle(image),
    })  # fmt: skip
    engine_us = float(np.median(median["engine"]))
    return {
        "engine_us": engine_us,
        "limit_us": max(LIMIT_US, LIMIT_SHARE * engine_us),
        "run": _difference(median["run"], median["engine"], engine_us),
        "call": _difference(median["call"], median["engine+pre"], engine_us),
        "call_over_engine": _difference(median["call"], median["engine"], engine_us),
    }


def _interleaved(calls: dict[str, Call]) -> dict[str, np.ndarray]:
    """Microseconds of each call: the median of a burst, for every round."""
    clock, rng, names = time.perf_counter_ns, random.Random(SEED), list(calls)
    begin = clock()
    for _ in range(50):
        for call in calls.values():
            call()
    each_ms = (clock() - begin) / 1e6 / 50 / len(calls)
    burst = max(1, round(BURST_MS / each_ms))
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        rng.shuffle(names)
        for name in names:
            call, times = calls[name], []
            for _ in range(burst):
                begin = clock()
                call()
                times.append(clock() - begin)
            found[name].append(float(np.median(times)) / 1e3)
    return {name: np.array(values) for name, values in found.items()}


def _difference(some: np.ndarray, base: np.ndarray, engine_us: float) -> dict[str, Any]:
    low, middle, high = (float(v) for v in np.percentile(some - base, (25, 50, 75)))
    return {
        "overhead_us": middle,
        "quartiles_us": [low, high],
        "percent": 100 * middle / engine_us,
        "met": middle <= max(LIMIT_US, LIMIT_SHARE * engine_us),
    }


# The engine's own calls on the very objects inside the bundle: a second session of the same file
# can be several percent faster or slower by where its memory lies.


def _bare_onnxruntime(bundle: Bundle) -> Callable[[np.ndarray], np.ndarray]:
    engine, source = bundle.session._session, bundle.inputs[0].name  # type: ignore[attr-defined]
    names = [t.name for t in bundle.outputs]
    return lambda array: engine.run(names, {source: array})[0]


def _bare_openvino(bundle: Bundle) -> Callable[[np.ndarray], np.ndarray]:
    """Into the request's own buffer and out of it: quicker here than `request.infer([array])`."""
    request = bundle.session._request  # type: ignore[attr-defined]
    source, result = request.get_input_tensor(0).data, request.get_output_tensor(0).data

    def call(array: np.ndarray) -> np.ndarray:
        source[...] = array
        request.infer()
        return result.copy()

    return call


def _bare_tflite(bundle: Bundle) -> Callable[[np.ndarray], np.ndarray]:
    engine = bundle.session._engine  # type: ignore[attr-defined]
    source, result = engine.get_input_details()[0], engine.get_output_details()[0]

    def call(array: np.ndarray) -> np.ndarray:
        engine.set_tensor(source["index"], array)
        engine.invoke()
        return engine.get_tensor(result["index"])

    return call


BARE = {"onnxruntime": _bare_onnxruntime, "openvino": _bare_openvino, "tflite": _bare_tflite}


# imports and the command line


def _imports() -> dict[str, Any]:
    """Seconds of `import edgecv.runtime` after numpy, and what takes them."""
    seen = [float(_python("-c", IMPORT).stdout) for _ in range(REPEATS)]
    blocked = [float(_python("-c", BLOCKED).stdout) for _ in range(REPEATS)]
    traced = _python("-X", "importtime", "-c", "import numpy; import edgecv.runtime").stderr
    return {
        "seconds": _spread(seen),
        "seconds_with_torch_pydantic_rich_blocked": _spread(blocked),
        "longest": _longest(traced),
    }


def _help() -> dict[str, Any]:
    """Seconds of `python -m edgecv --help`, and of a Python that does nothing."""
    seen, bare = [], []
    for _ in range(REPEATS):
        seen.append(_seconds("-m", "edgecv", "--help"))
        bare.append(_seconds("-c", "pass"))
    traced = _python("-X", "importtime", "-m", "edgecv", "--help").stderr
    longest = _longest(traced, after=" site")
    return {"seconds": _spread(seen), "python_alone": _spread(bare), "longest": longest}


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def _seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    _python(*arguments)
    return time.perf_counter() - begin


def _spread(seconds: list[float]) -> dict[str, float]:
    return {
        "min": min(seconds),
        "median": float(np.median(seconds)),
        "max": max(seconds),
        "repeats": len(seconds),
    }


def _longest(trace: str, after: str = " numpy", count: int = 8) -> list[dict[str, Any]]:
    """Modules by their own import time, of those imported later than `after`."""
    lines = re.findall(r"import time: +(\d+) \| +(\d+) \|( +\S+)", trace)
    start = max(i for i, line in enumerate(lines) if line[2] == after) + 1
    found = [
        {"module": name.strip(), "self_us": int(own), "cumulative_us": int(total)}
        for own, total, name in lines[start:]
    ]
    return sorted(found, key=lambda f: -f["self_us"])[:count]


# the page


def _markdown(data: dict[str, Any]) -> list[str]:
    rows = []
    for r in data["calls"]:
        cells = []
        for key in ("run", "call", "call_over_engine"):
            low, high = r[key]["quartiles_us"]
            mark = "" if r[key]["met"] else " !"
            cells.append(
                f"{r[key]['overhead_us']:+.1f} ({low:+.0f} to {high:+.0f}), "
                f"{r[key]['percent']:+.1f}%{mark}"
            )
        rows.append([f"{r['network']}, {r['engine']}", f"{r['engine_us']:.1f}",
                     f"{r['limit_us']:.0f}", *cells])  # fmt: skip
    head = ("int8", "engine us", "limit us", ".run - engine", "call - (pre + engine)",
            "call - engine")  # fmt: skip
    met, imports, help_ = data["met"], data["import"], data["help"]
    blocked = imports["seconds_with_torch_pydantic_rich_blocked"]
    times = [
        ["`import edgecv.runtime` after numpy", *_cells(imports["seconds"]), LIMIT_IMPORT_S],
        ["the same, torch, pydantic and rich blocked", *_cells(blocked), LIMIT_IMPORT_S],
        ["`python -m edgecv --help`", *_cells(help_["seconds"]), LIMIT_HELP_S],
        ["`python -c pass`", *_cells(help_["python_alone"]), ""],
    ]
    return [
        "# What the runtime costs",
        "",
        *table(head, rows),
        "",
        f"Microseconds: medians (quartiles) over {data['rounds']} rounds in which all ways to call "
        "one engine session take turns. Limit: 20 us or 2%, the larger. `!`: beyond it. "
        "The last column counts normalising the image as overhead, which no way to call the "
        "engine with an image is spared.",
        "",
        f"- `.run` against the bare engine: {verdict(met['run'])}",
        f"- `bundle(image)` against the bare engine and the same normalisation: "
        f"{verdict(met['call'])}",
        f"- `bundle(image)` against the bare engine given a ready array: "
        f"{verdict(met['call_counting_normalisation'])}",
        "",
        *table(("seconds", "min", "median", "max", "limit"), times),
        "",
        f"{data['repeats']} processes each. Import: {verdict(met['import'])}. "
        f"Help: {verdict(met['help'])}.",
        "",
        "Longest imports (own microseconds, `-X importtime`):",
        "",
        f"- `edgecv.runtime` after numpy: {_list(imports['longest'])}",
        f"- `edgecv --help`: {_list(help_['longest'])}",
    ]


def _cells(spread: dict[str, float]) -> list[str]:
    return [f"{spread[key]:.3f}" for key in ("min", "median", "max")]


def _list(longest: list[dict[str, Any]]) -> str:
    return ", ".join(f"{f['module']} {f['self_us']}" for f in longest)


if __name__ == "__main__":
    raise SystemExit(main())
