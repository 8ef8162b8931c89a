"""Generated C on this machine: compiled into a library of its own, called by ctypes.

Imports with numpy alone; needs a C compiler ($CC, else cc, gcc or clang), and to be told that the
source's maker is trusted (`edgecv.source_trust`).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import source_trust
from edgecv.binary.build import compiler
from edgecv.errors import EngineError, MissingExtraError
from edgecv.runtime.spec import Layer, Probe, Profile, TensorSpec
from edgecv.runtime.turn import Turn, in_turn

ENGINE = "c"
FLAGS = ["-std=c99", "-O3", "-ffp-contract=off", "-fPIC", "-shared"]


def probe() -> Probe:
    """Whether a C compiler is here, and which."""
    cc = compiler()
    if cc is None:
        return Probe(ENGINE, False, None, "no C compiler: install gcc or clang, or name one in CC")
    said = subprocess.run([cc, "--version"], capture_output=True, text=True, check=False).stdout
    return Probe(ENGINE, True, (said.splitlines() or [Path(cc).name])[0][:80])


def image_spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    """shape: (height, width, channels)"""
    return TensorSpec(name, "float32", (1, *shape), "NHWC")


def output_spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    """shape: (height, width, channels); of one pixel it is a row."""
    if shape[0] * shape[1] > 1:
        return TensorSpec(name, "float32", (1, *shape), "NHWC")
    return TensorSpec(name, "float32", (1, shape[-1]))


def shaped(line: str) -> TensorSpec:
    """A tensor as `model_inputs` and `model_shapes` tell it: "NHWC 1,8,8,4 name"."""
    layout, sizes, name = line.split(" ", 2)
    return TensorSpec(name, "float32", tuple(map(int, sizes.split(","))), layout)


class Session:
    """A model in C, compiled and loaded; it computes in one thread.

    files: as `compile` writes them
    Raises TrustError, MissingExtraError (no compiler), EngineError (it refused the code).
    """

    def __init__(self, files: Mapping[str, bytes], threads: int = 1) -> None:
        del threads
        source_trust.check(ENGINE)
        cc = compiler()
        if cc is None:
            named = os.environ.get("CC")
            what = f"CC names {named!r}, which is not there" if named else "no C compiler"
            raise MissingExtraError(ENGINE, what, "install gcc or clang, or name one in CC")
        with tempfile.TemporaryDirectory(prefix="edgecv-c-") as room:
            for name, content in files.items():
                (Path(room) / Path(name).name).write_bytes(content)
            library = Path(room) / "model.so"
            command = [cc, *FLAGS, str(Path(room) / "model.c"), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                first = " ".join(done.stderr.split())[:300]
                raise EngineError(ENGINE, f"{Path(cc).name}: {first}", "is this a whole bundle?")
            self._library: Any = ctypes.CDLL(str(library))
        try:
            dims = (ctypes.c_int * 5).in_dll(self._library, "model_dims")
            *image, classes, arena = dims
            names = [self._text(n) for n in ("model_input", "model_output")]
        except ValueError as e:
            raise EngineError(ENGINE, f"not written by edgecv: {e}") from None
        self.inputs = self._shaped("model_inputs") or (image_spec(names[0], tuple(image)),)
        self.outputs = self._shaped("model_shapes") or (
            output_spec(names[1], self._map() or (1, 1, classes)),
        )
        self._values = classes
        self._arena = np.empty(arena // 8 + 1, np.float64)
        self._turn = Turn(ENGINE)
        self._run = self._library.model_run
        self._run.argtypes = [ctypes.c_void_p] * (len(self.inputs) + 2)
        self._run.restype = None

    @in_turn
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in, arrays by output name out. Raises EngineError."""
        given = [feeds.get(s.name) for s in self.inputs]
        if len(feeds) != len(given) or not all(map(_fits, given, self.inputs)):
            fed = {n: (str(v.dtype), v.shape) for n, v in feeds.items()}
            raise EngineError(ENGINE, f"fed {fed}", "feed the shapes and dtypes of .inputs")
        arrays = [np.ascontiguousarray(x) for x in given]
        out = np.empty(self._values, np.float32)
        self._run(*(x.ctypes.data for x in arrays), out.ctypes.data, self._arena.ctypes.data)
        ends = np.cumsum([np.prod(t.shape, dtype=np.int64) for t in self.outputs])
        parts = np.split(out, ends[:-1])
        return {t.name: p.reshape(t.shape) for t, p in zip(self.outputs, parts, strict=True)}

    def executed(self) -> dict[str, int]:
        """Layers that multiply, by precision, as the compiled code lists them."""
        found: dict[str, int] = {}
        for precision, _ in self._steps():
            found[precision] = found.get(precision, 0) + 1
        return found

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> Profile:
        """The layers that multiply, without times."""
        del feeds, runs
        rows = (Layer(layer, layer, "C", precision) for precision, layer in self._steps())
        return Profile(tuple(rows), "generated C has no profiler")

    def close(self) -> None:
        """Free the arena; the library stays loaded, as ctypes has it."""
        if self._turn.end():
            self._arena = np.empty(0)

    def _map(self) -> tuple[int, ...] | None:
        """(height, width, channels) of the output; None in code that older versions wrote."""
        try:
            return tuple((ctypes.c_int * 3).in_dll(self._library, "model_map"))
        except ValueError:
            return None

    def _shaped(self, table: str) -> tuple[TensorSpec, ...]:
        """The tensors of a table; none where they are one image or one row."""
        try:
            return tuple(shaped(line) for line in self._text(table).splitlines())
        except ValueError:
            return ()

    @in_turn
    def _steps(self) -> list[tuple[str, str]]:
        lines = self._text("model_steps").splitlines()
        return [(precision, layer) for precision, _, layer in (x.partition(" ") for x in lines)]

    def _text(self, name: str) -> str:
        at = ctypes.c_char.in_dll(self._library, name)
        return ctypes.cast(ctypes.addressof(at), ctypes.c_char_p).value.decode()  # type: ignore[union-attr]


def _fits(x: np.ndarray | None, spec: TensorSpec) -> bool:
    return x is not None and x.shape == spec.shape and x.dtype == np.float32
