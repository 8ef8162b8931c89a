"""A network of about 1 ms, and copies that are slower by a known share, for the gate to judge.

The copies repeat convolutions of the exported graph, with the same weights: real work, hardly a
byte more. How much slower each is, is measured at length and stands in the results.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from record import export

MODEL, SIZE = "resnet20", 44
# kind -> names of the convolutions to run once more
REPEATED = {
    "7%": ("/stage1/stage1.0/conv1/Conv",),
    "10%": ("/stage2/stage2.1/conv1/Conv", "/stage3/stage3.1/conv1/Conv"),
}


def bundles(folder: Path) -> dict[str, Path]:
    """{"same": ..., "7%": ..., "10%": ...}: fp32 bundles of the cpu target."""
    made = {"same": _export(MODEL, "same", folder, "--input-size", str(SIZE))}
    source = next((folder / "same").glob("*.onnx"))
    for kind, repeated in REPEATED.items():
        graph = folder / f"{kind.strip('%')}.onnx"
        repeat(source, graph, repeated)
        made[kind] = _export(str(graph), kind.strip("%"), folder)
    return made


def _export(model: str, name: str, folder: Path, *options: str) -> Path:
    return export(model, "cpu", "fp32", folder / name, "--name", name, *options)


def repeat(source: Path, out: Path, names: tuple[str, ...]) -> None:
    """Write a graph in which each named convolution (as many channels out as in) runs twice."""
    import onnx

    model = onnx.load(str(source))
    for name in names:
        index, node = next((i, n) for i, n in enumerate(model.graph.node) if n.name == name)
        result = node.output[0]
        node.output[0] = f"{result}_once"
        again = onnx.helper.make_node(
            "Conv", [node.output[0], node.input[1]], [result], name=f"{name}_again", pads=[1] * 4
        )
        model.graph.node.insert(index + 1, again)
    onnx.save(model, str(out))


class Load:
    """A second process that loads one core at random: on and off for half a second on average."""

    def __enter__(self) -> Load:
        self.process = subprocess.Popen([sys.executable, __file__])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def load() -> None:
    """Arithmetic, memory traffic or plain Python, in bursts of random length. Runs until killed."""
    rng, large, square = random.Random(0), np.ones(4_000_000, "f"), np.ones((256, 256), "f")
    while True:
        until, kind = time.time() + rng.expovariate(2.0), rng.random()
        while time.time() < until:
            if kind < 0.4:
                np.add(large, 1, out=large)
            elif kind < 0.8:
                square @ square
            else:
                sum(range(10_000))
        time.sleep(rng.expovariate(2.0))


if __name__ == "__main__":
    load()
