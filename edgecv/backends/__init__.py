"""One folder per engine, the same files in each.

__init__.py what the engine says of itself: FACTS
compile.py  host side:   compile(graph, target, out) -> Compiled
run.py      device side: probe() -> Probe and Session(files, threads) (numpy in, numpy out)

What run.py needs beside it (an engine's profile) lies in the same folder, and files that not every
engine has: opened(files, title) of inside.py lets `parity` look at its layers, twin() and row() of
single_layer.py make files of layers alone where that is not compiling an ONNX graph of them, and
found(layers) of fallbacks.py tells what ran on slow kernels.

A folder edgecv/backends/<engine>/ anywhere on the Python path is an engine too
(`edgecv.portions`).

`edgecv.backends.<engine>.run` imports with numpy alone; the engine itself is imported inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from edgecv import portions

if TYPE_CHECKING:  # the runtime imports this module
    import numpy as np

    from edgecv.runtime.spec import Profile, TensorSpec

__path__ = [*__path__, *portions.of("backends")]
ENGINES = tuple(sorted(m.name for m in iter_modules(__path__) if m.ispkg))


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself.

    label:     as pages write it
    absent:    what is lost where it cannot run
    alone:     whether single layers can be run and timed on it here
    graphs:    formats of graph that its profiles may ask for (`graph: onnx`)
    also:      formats that it reads besides, as a user's file
    libraries: distributions that shape its files or run them, as results name them
    extras:    top-level module that it imports -> the extra of edgecv that brings it
    tools:     distribution that `edgecv doctor` looks for -> its extra, and what it is for
    quantizers: of its makers, which know its kernels: `quantize: {engine: ...}`
    format:    what its files are read as: "onnx", "tflite", "openvino" (.xml); "" for its own kind
    reference: the format of graph that is compared on it, whatever the target's engine
    unfused:   whether inside.py opens a graph node by node too, without the engine's kernels
    profile:   its own target profile, where that is not called as the engine is
    products:  its words for layers that multiply, as its profiles write them
    floating:  those of them that it has no integer kernel of, always or on some grids
    fused:     activations (`graphs.onnx.epilogues`) that its integer kernels compute with the layer
               in front of them, in float registers: they have no scale of their own inside
    tables:    those that it looks up behind an integer convolution, a table for every channel: what
               they read has a scale for each, and none lies inside
    floats:    False where it computes in integers only
    half:      whether it computes in fp16 what a file holds so, and faster
    exact:     whether its integers are the same on every processor
    saturates: whether its u8 x s8 sums saturate in 16 bits on x86 without VNNI (vpmaddubsw)
    unsigned:  whether its integer kernels on x86 take unsigned activations only
    counts:    whether it counts bits by the kernels of `edgecv.binary`
    folder:    whether its files name each other: they are written into a folder of their own
    suppresses: whether its files hold ONNX's NonMaxSuppression, and its answers are the runtime's
    sealed:    whether only its device can look inside a compiled file
    untimed:   what its bundle is called where it is not timed on this machine
    """

    label: str
    absent: str
    alone: bool = False
    graphs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    quantizers: tuple[str, ...] = ()
    format: str = ""
    reference: str = ""
    unfused: bool = False
    profile: str = ""
    products: tuple[str, ...] = ()
    floating: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    floats: bool = True
    half: bool = False
    exact: bool = False
    saturates: bool = False
    unsigned: bool = False
    counts: bool = False
    folder: bool = False
    suppresses: bool = False
    sealed: bool = False
    untimed: str = ""


@dataclass(frozen=True)
class Compiled:
    """What a compiler made.

    files:    names in the out folder, the main one first, under the names that engine's users
              expect (model.onnx; model.xml, model.bin; model.tflite; model.engine)
    inputs, outputs: the tensors of the compiled network
    versions: tool name -> version, of every tool that shaped the files
    compiled: False when the vendor's compiler was not there and the file is its input instead
    notes:    what the user should know, one sentence each
    counted:  layers that are to run as xnor and popcount
    """

    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: dict[str, str] = field(default_factory=dict)
    compiled: bool = True
    notes: tuple[str, ...] = ()
    counted: int = 0


class Session(Protocol):
    """A compiled network, loaded. Threads wait for one another, and after close() a call raises
    EngineError (`edgecv.runtime.turn`).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in; fresh arrays by output name out (engine dtype, no casts)."""

    def executed(self) -> dict[str, int]:
        """How many compute layers (convolution, dense) the engine really runs, by precision:
        {"int8": 9, "fp32": 1}. Read back from the engine, never from the request."""

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """Every layer with its time, precision and bytes, from the engine's own profiler; a reason
        instead of times where it has none."""

    def close(self) -> None:
        """Free the engine's memory; a second close does nothing."""


def facts(engine: str) -> Facts:
    """What an engine says of itself."""
    found: Facts = import_module(f"edgecv.backends.{engine}").FACTS
    return found


def every() -> dict[str, Facts]:
    """What all engines say of themselves, by name."""
    return {engine: facts(engine) for engine in ENGINES}


def formats() -> tuple[str, ...]:
    """Every format of graph that an engine reads."""
    return tuple(sorted({f for said in every().values() for f in (*said.graphs, *said.also)}))


@cache
def reference(graph_format: str) -> str:
    """The engine that graph files of that format are compared on. Raises LookupError: none is."""
    for name, said in every().items():
        if said.reference == graph_format:
            return name
    raise LookupError(graph_format)


def has(engine: str, file: str) -> bool:
    """Whether the engine's folder has that file: what only some engines can."""
    return find_spec(f"edgecv.backends.{engine}.{file}") is not None


def run_module(engine: str) -> ModuleType:
    """edgecv.backends.<engine>.run, which imports with numpy alone."""
    return import_module(f"edgecv.backends.{engine}.run")


def compile_module(engine: str) -> ModuleType:
    """edgecv.backends.<engine>.compile, host side."""
    return import_module(f"edgecv.backends.{engine}.compile")
