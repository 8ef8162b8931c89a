"""Every instruction set of this processor computes what products one by one do, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgecv.binary import build, library
from edgecv.binary.reference import Shape, dots, packed, unpacked
from edgecv.errors import EdgecvError, MissingExtraError

pytestmark = pytest.mark.usefixtures("kernels")


def some_layer(rng: np.random.Generator) -> tuple[Shape, np.ndarray, np.ndarray, np.ndarray]:
    """A shape that fits, input and weights as booleans, and which weights are not zero."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3, 5]))
        most = 600 if rng.random() < 0.1 else 150
        shape = Shape(
            *map(int, rng.integers(1, 14, 2)),
            channels=groups * int(rng.integers(1, most)),
            filters=groups * int(rng.integers(1, 140)),
            kernel=_pair(rng, 1, 6), stride=_pair(rng, 1, 4),
            dilation=(1, 1) if rng.random() < 0.6 else _pair(rng, 1, 4),
            pads=tuple(map(int, rng.integers(0, 4, 4))), groups=groups,
        )  # fmt: skip
        if min(shape.out) > 0:
            break
    x = rng.integers(0, 2, (shape.height, shape.width, shape.channels)).astype(bool)
    size = (shape.filters, *shape.kernel, shape.channels // groups)
    weights = rng.integers(0, 2, size).astype(bool)
    return shape, x, weights, rng.random(size) < 0.6


def _pair(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    a, b = rng.integers(low, high, 2)
    return int(a), int(b)


def signs(ones: np.ndarray) -> np.ndarray:
    return np.where(ones, 1, -1)


@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_random_layers_are_equal_everywhere(seed: int, ternary: bool) -> None:
    rng = np.random.default_rng(seed)
    shape, x, weights, mask = some_layer(rng)
    values = signs(weights) * (mask if ternary else 1)
    wanted = dots(shape, signs(x), values)
    scale, bias = rng.normal(size=(2, shape.filters)).astype(np.float32)
    add = rng.normal(size=wanted.shape).astype(np.float32).transpose(2, 0, 1)
    least = rng.integers(-6, 7, shape.filters).astype(np.int32)
    threshold = library.Threshold(least, rng.random(shape.filters) < 0.5)
    real = wanted.astype(np.float32) * scale + bias
    for name in library.sets():
        layer = library.Layer(shape, packed(weights), packed(mask) if ternary else None, name)
        np.testing.assert_array_equal(layer.dots(packed(x)), wanted, name)
        np.testing.assert_array_equal(
            layer.real(packed(x), scale, bias), real.transpose(2, 0, 1), name
        )
        np.testing.assert_array_equal(
            layer.real(packed(x), scale, bias, add), real.transpose(2, 0, 1) + add, name
        )
        bits = layer.bits(packed(x), threshold)
        np.testing.assert_array_equal(
            unpacked(bits, shape.filters), (wanted >= least) ^ threshold.flip, name
        )
        behind = unpacked(bits, bits.shape[-1] * 64)[..., shape.filters :]
        assert not behind.any(), "bits behind the last filter"


def test_the_portable_kernel_is_always_there() -> None:
    assert library.sets()[-1] == "portable"
    assert not library.stale()


def test_padding_counts_nothing() -> None:
    """All ones: a corner sees four of nine taps, an edge six."""
    shape = Shape(3, 3, 5, 1, kernel=(3, 3), pads=(1, 1, 1, 1))
    ones = np.ones((3, 3, 5), bool)
    for name in library.sets():
        layer = library.Layer(shape, packed(np.ones((1, 3, 3, 5), bool)), None, name)
        np.testing.assert_array_equal(
            layer.dots(packed(ones))[..., 0], 5 * np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]])
        )


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 0}, {"filters": -1}, {"groups": 2}, {"stride": (0, 1)}, {"kernel": (4, 3)},
        {"dilation": (2, 1)}, {"pads": (-1, 0, 0, 0)}, {"height": 1 << 21},
        {"channels": 66000, "kernel": (1, 1)},
    ],
)  # fmt: skip
def test_sizes_that_make_no_sense_are_refused(change: dict) -> None:
    shape = dataclasses.replace(Shape(3, 3, 5, 3, kernel=(3, 3)), **change)
    size = (max(shape.filters, 1), *shape.kernel, -(-(shape.channels // shape.groups) // 64))
    if shape.filters < 1:
        shape = dataclasses.replace(shape, filters=shape.filters)
        size = (shape.filters, *size[1:])
    with pytest.raises((EdgecvError, ValueError)):
        library.Layer(shape, np.zeros(tuple(max(s, 0) for s in size), np.uint64))


def test_arrays_of_another_shape_never_reach_the_kernels() -> None:
    shape = Shape(4, 4, 70, 9)
    weights = np.zeros((9, 1, 1, 2), np.uint64)
    layer = library.Layer(shape, weights)
    for x in (np.zeros((4, 4, 1), np.uint64), np.zeros((4, 5, 2), np.uint64),
              np.zeros((4, 4, 2), np.int64)):  # fmt: skip
        with pytest.raises(ValueError, match="not uint64"):
            layer.dots(x)
    with pytest.raises(ValueError, match="not uint64"):
        library.Layer(shape, weights[:8])
    with pytest.raises(EdgecvError, match="no such instruction set"):
        library.Layer(shape, weights, name="sse2")
    good = np.zeros((4, 4, 2), np.uint64)
    with pytest.raises(ValueError, match="one for each filter"):
        layer.real(good, np.ones(8), np.ones(9))
    with pytest.raises(ValueError, match="one for each filter"):
        layer.bits(good, library.Threshold(np.zeros(8), np.zeros(9)))


def test_what_is_not_built_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for content, said in ((None, "are not built"), (b"no library", "cannot be loaded")):
            library.library.cache_clear()
            path = tmp_path / "kernels.so"
            if content:
                path.write_bytes(content)
            monkeypatch.setenv("EDGECV_KERNELS", str(path))
            with pytest.raises(MissingExtraError, match=said):
                library.sets()
            told = library.told()
            assert not told.here
            assert f"EDGECV_KERNELS names {path}: unset it" in told.reason
        monkeypatch.delenv("EDGECV_KERNELS")
        assert "python -m edgecv.binary.build" in library.cure()
    finally:
        library.library.cache_clear()


def test_what_is_built_is_told() -> None:
    told = library.told()
    assert told.here
    assert told.sets[-1] == "portable"
    assert told.digest == build.digest()
    assert not told.stale
