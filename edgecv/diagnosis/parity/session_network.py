"""A compiled network that answers and cannot be looked into: TensorRT, a compiled Edge TPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.backends import run_module
from edgecv.bundling.inference import real
from edgecv.diagnosis.parity.layers import Grid, Layer, Sample, feeds, image_in, input_grid
from edgecv.runtime.archive import Contents
from edgecv.runtime.spec import channels_first


class SessionNetwork:
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
        self.input_grid: Grid | None = input_grid(self._session.inputs[0])

    def answers(self, x: Sample) -> tuple[np.ndarray, ...]:
        found = self._session.run(feeds(x, self._session.inputs))
        return tuple(channels_first(real(found[t.name], t), t) for t in self._session.outputs)

    def values(self, x: Sample, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        return dict.fromkeys(tensors, image_in(x))  # its image is all that it could be asked for

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:  # noqa: ARG002
        return {}

    def close(self) -> None:
        self._session.close()
