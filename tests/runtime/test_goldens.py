"""Golden inputs, packed: what comes out is what went in, and no member is larger than it may be."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from edgecv.bundling.goldens import LEAST, goldens, room
from edgecv.runtime import goldens as packed
from edgecv.runtime import npy
from edgecv.runtime.goldens import Goldens
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec

RNG = np.random.default_rng(0)
PRE = Preprocess((10, 7), 3, (100.0,), (50.0,))
IMAGE = TensorSpec("image", "float32", (1, 3, 10, 7), "NCHW")
MORE = TensorSpec("a b/é", "float32", (1, 4))
ROWS = TensorSpec("rows", "float32", (1, 5))
LARGE = TensorSpec("large", "float32", (200, 30))


class Engine:
    inputs, outputs = (IMAGE,), (ROWS, LARGE)

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = feed["image"].sum()
        values = np.random.default_rng(int(abs(x) * 100)).normal(size=LARGE.shape)
        return {"rows": np.full((1, 5), x, np.float32), "large": values.astype(np.float32)}


def read(held: Goldens, **change: bytes) -> Goldens:
    members = {**dict(held.members()), **change}
    return packed.read(members, held.repeat, "image", PRE, (IMAGE, MORE), (ROWS, LARGE))


def held(repeat: int = 1) -> Goldens:
    pixels = RNG.integers(0, 256, (2, -(-10 // repeat), -(-7 // repeat), 3), dtype=np.uint8)
    more = RNG.normal(size=(2, 4)).astype(np.float32)
    outputs = {"rows": np.ones((2, 5), np.float32), "large": np.ones((2, 9), np.float32)}
    return Goldens(pixels, repeat, {MORE.name: more}, outputs)


@pytest.mark.parametrize("repeat", [1, 2, 4])
def test_what_went_in_comes_out(repeat: int) -> None:
    before = held(repeat)
    after = read(before)
    np.testing.assert_array_equal(after.pixels, before.pixels)
    np.testing.assert_array_equal(after.inputs[MORE.name], before.inputs[MORE.name])
    assert after.outputs["large"].shape == (2, 9)
    fed = after.feed("image", PRE)["image"]
    assert fed.shape == (2, 3, 10, 7)
    whole = before.pixels.repeat(repeat, 1).repeat(repeat, 2)[:, :10, :7]
    np.testing.assert_array_equal(fed, PRE.normalise(whole))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no zlib", zlib.compress(b"no array"), zlib.compress(bytes(1 << 26)),
        packed.deflated(np.zeros((2, 4))), packed.deflated(np.zeros((2, 5), np.float32)),
        packed.deflated(np.float32(0)), packed.deflated(np.zeros((1000, 4), np.float32)),
        zlib.compress(npy.written(np.zeros((2, 4), np.float32)))[:-5],
    ],
)  # fmt: skip
def test_a_member_that_is_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="a%20b"):
        read(held(), **{packed.member("inputs", MORE.name): data})


@pytest.mark.parametrize("most", [1 << 20, 20_000, 6_000, 2_000])
def test_they_fit_where_they_are_asked_to(most: int) -> None:
    pixels = RNG.integers(0, 256, (9, 10, 7, 3), dtype=np.uint8)
    found = goldens(Engine(), pixels, PRE, most)
    assert sum(len(data) for _, data in found.members()) <= most
    session = Engine()
    for i in range(len(found.pixels)):
        feed = {k: v[i : i + 1] for k, v in found.feed("image", PRE).items()}
        answer = session.run(feed)
        np.testing.assert_array_equal(found.outputs["rows"][i : i + 1], answer["rows"])
        large = found.outputs["large"]
        if large.ndim == 2:
            answer["large"] = packed.thinned(answer["large"][None], large.shape[1])[0]
        np.testing.assert_array_equal(large[i], answer["large"])


def test_there_is_room_beside_a_small_engine_and_a_share_of_a_large_one() -> None:
    assert room(3_000, 2_000) == LEAST - 2_000 - 1024
    assert room(10 << 20, 0) == int(0.2 * (10 << 20)) - 1024
