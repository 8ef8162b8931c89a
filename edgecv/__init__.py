"""edgecv: compress a vision network, compile it for a small machine, and prove both.

    bundles = edgecv.export("net.onnx", ["cpu", "tflite"], calibration="photos/", out="out/")
    bundles[0].open()(image)

`__all__` is what is promised (docs/api.md); everything else may change with any version. Nothing is
imported before it is asked for: `edgecv.runtime` must load on a device with numpy alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv import errors as errors
    from edgecv.api.bench import Benchmark as Benchmark
    from edgecv.api.bench import bench as bench
    from edgecv.api.compress import compress as compress
    from edgecv.api.export import Bundle as Bundle
    from edgecv.api.export import export as export
    from edgecv.api.finish import finish as finish
    from edgecv.api.gate import Verdict as Verdict
    from edgecv.api.gate import gate as gate
    from edgecv.api.parity import Parity as Parity
    from edgecv.api.parity import parity as parity
    from edgecv.api.predict import Answer as Answer
    from edgecv.api.predict import predict as predict
    from edgecv.api.run import Results as Results
    from edgecv.api.run import run as run
    from edgecv.api.why import Diagnosis as Diagnosis
    from edgecv.api.why import why as why
    from edgecv.plan.recipe import Recipe as Recipe
    from edgecv.runtime import open_bundle as open_bundle

__version__ = "0.2.0"
__all__ = [
    "Answer", "Benchmark", "Bundle", "Diagnosis", "Parity", "Recipe", "Results", "Verdict",
    "__version__", "bench", "compress", "errors", "export", "finish", "gate", "open_bundle",
    "parity", "predict", "run", "why",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """PEP 562. A function lies in the file of its name in `edgecv.api`, a type beside the function
    that returns it."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'edgecv' has no attribute {name!r}")
    if name == "errors":
        return import_module("edgecv.errors")
    places = {
        "Answer": "api.predict", "Benchmark": "api.bench", "Bundle": "api.export",
        "Diagnosis": "api.why", "Parity": "api.parity", "Recipe": "plan.recipe",
        "Results": "api.run", "Verdict": "api.gate", "open_bundle": "runtime",
    }  # fmt: skip
    found = getattr(import_module(f"edgecv.{places.get(name, f'api.{name}')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
