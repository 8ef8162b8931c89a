"""A detector small enough to be told by hand, films that PyAV writes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.predicting.bundles import classifier, detector, segmenter, tensors


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By task: "detection", "segmentation", "classification", "none"."""
    folder = tmp_path_factory.mktemp("bundles")
    made = (
        ("detection", detector),
        ("segmentation", segmenter),
        ("classification", classifier),
        ("none", tensors),
    )
    return {task: make(folder / f"{task}.edgecv") for task, make in made}


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """film(name, count, size=(height, width), rate, corner) -> path of a film whose frame i is
    grey of level 10 i; corner: with white in the upper left 16 x 16 pixels."""
    av = pytest.importorskip("av")

    def make(
        name: str,
        count: int,
        size: tuple[int, int] = (48, 64),
        rate: Fraction = Fraction(25),
        corner: bool = False,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=rate)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for i in range(count):
                pixels = np.full((*size, 3), 10 * i, np.uint8)
                pixels[:16, :16] = 255 if corner else 10 * i
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux(stream.encode())
        return path

    return make
