"""One folder per engine, the same files in each.

__init__.py what the engine says of itself: FACTS
compile.py  host side:   compile(graph, target, out) -> Compiled
run.py      device side: probe() -> Probe and Session(files, threads) (numpy in, numpy out)

What run.py needs beside it (an engine's profile) lies in the same folder.

`edgecv.backends.<engine>.run` imports with numpy alone; the engine itself is imported inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the runtime imports this module
    import numpy as np

    from edgecv.runtime.spec import Profile, TensorSpec

ENGINES = tuple(sorted(m.name for m in iter_modules(__path__) if m.ispkg))


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself.

    label:  as pages write it
    absent: what is lost where it cannot run
    alone:  whether single layers can be run and timed on it here
    also:   formats of graph that it reads beside its profiles' own, as a user's file
    """

    label: str
    absent: str
    alone: bool = False
    also: tuple[str, ...] = ()


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


def run_module(engine: str) -> ModuleType:
    """edgecv.backends.<engine>.run, which imports with numpy alone."""
    return import_module(f"edgecv.backends.{engine}.run")


def compile_module(engine: str) -> ModuleType:
    """edgecv.backends.<engine>.compile, host side."""
    return import_module(f"edgecv.backends.{engine}.compile")
