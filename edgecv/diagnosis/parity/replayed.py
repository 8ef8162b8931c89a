"""On a device: the answers to the golden inputs of a bundle, in real numbers.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from typing import Any

from edgecv.child import serve
from edgecv.runtime.archive import read_bundle
from edgecv.runtime.bundle import opened
from edgecv.runtime.spec import dequantise, on_grid
from edgecv.runtime.verify import replay


def work(job: dict[str, Any]) -> dict[str, Any]:
    """job: {"bundle": path}. Returns {"outputs": [[real, ...] for each input]}."""
    contents = read_bundle(job["bundle"])
    bundle = opened(contents)
    try:
        spec = contents.outputs[0]
        found = replay(bundle, contents.golden_inputs)[spec.name]
    finally:
        bundle.close()
    real = dequantise(found, spec) if on_grid(spec) else found
    return {"outputs": real.reshape(len(real), -1).tolist()}


if __name__ == "__main__":
    serve(work)
