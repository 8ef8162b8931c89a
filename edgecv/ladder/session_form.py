"""A compiled network that answers and cannot be looked into: TensorRT, a compiled Edge TPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.backends import run_module
from edgecv.ladder.layers import Grid, Layer, input_grid, placed
from edgecv.replay import real
from edgecv.runtime.archive import Contents
from edgecv.runtime.spec import channels_first


class SessionForm:
    """See `Form`; it has no layers.

    Raises NoCudaDevice, MissingExtraError, EngineError: the engine does not run here.
    """

    format = ""

    layers: tuple[Layer, ...] = ()
    one_by_one = True

    def __init__(self, contents: Contents, title: str) -> None:
        manifest = contents.manifest
        self.title, self.precision = title, str(manifest["precision"])
        self._session = run_module(manifest["engine"]).Session(contents.files)
        self._spec = next(s for s in self._session.inputs if s.name == manifest["input"]["name"])
        self.input_grid: Grid | None = input_grid(self._spec)

    def answers(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        found = self._session.run({self._spec.name: placed(x, self._spec)})
        return tuple(channels_first(real(found[t.name], t), t) for t in self._session.outputs)

    def values(self, x: np.ndarray, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        return dict.fromkeys(tensors, x)  # its image is all that it could be asked for

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:  # noqa: ARG002
        return {}

    def close(self) -> None:
        self._session.close()
