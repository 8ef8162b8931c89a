"""Films in and out, through real ones that PyAV wrote."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import DataError
from edgecv.predicting import video

pytest.importorskip("av")


def test_frames_come_in_order_with_their_times(film: Callable) -> None:
    path = film("clip.mp4", 10, rate=Fraction(30000, 1001))
    assert video.frames_in(path, "mov") == 10
    found = list(video.frames(path, "mov", every=3))
    assert [number for number, _, _ in found] == [0, 3, 6, 9]
    assert [t for _, t, _ in found] == pytest.approx([n * 1001 / 30000 for n in (0, 3, 6, 9)], 1e-3)
    for number, _, pixels in found:
        assert pixels.shape == (48, 64, 3)
        assert abs(int(pixels.mean()) - 10 * number) < 4  # MPEG-4 loses a little


def test_a_film_that_is_cut_off_gives_what_it_has_and_says_so(
    film: Callable, tmp_path: Path
) -> None:
    data = film("clip.mkv", 25).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    given: list[int] = []
    with pytest.raises(DataError, match=r"cut\.mkv: .*(cut off|damaged)"):
        given.extend(number for number, _, _ in video.frames(cut, "matroska"))
    assert 0 < len(given) < 25


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_film_that_lies_on_its_side_comes_upright(film: Callable, times: int) -> None:
    """A telephone says in the track's header by how many quarters, clockwise, to turn it."""
    path = film("clip.mp4", 1, corner=True)
    one = 1 << 16
    turns = [(one, 0, 0, one), (0, one, -one, 0), (-one, 0, 0, -one), (0, -one, one, 0)]
    a, b, c, d = turns[times]
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2
    assert data[at : at + 36] == struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data[at : at + 36] = matrix
    path.write_bytes(data)
    ((_, _, pixels),) = video.frames(path, "mov")
    wanted = np.zeros((48, 64))
    wanted[:16, :16] = 255
    wanted = np.rot90(wanted, -times)
    assert pixels.shape[:2] == wanted.shape
    assert np.abs(pixels.mean(-1) - wanted).mean() < 5


@pytest.mark.parametrize("data", [b"", b"no film at all" * 99, b"#EXTM3U\nhttp://127.0.0.1:9/x\n"])
def test_what_is_no_film_is_refused_and_nothing_else_opened(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"film\.mp4: cannot be read as mov"):
        video.frames_in(path, "mov")


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_written_film_has_the_frames_and_their_times(tmp_path: Path, size: tuple) -> None:
    path = tmp_path / "out.mp4"
    made = video.Film(path)
    times = [0.0, 0.04, 0.5, 0.50001, 2.0]  # as a camera's are: uneven, two in one tick
    for i, at in enumerate(times):
        made.add(np.full((*size, 3), 40 * i, np.uint8), at)
        assert not path.exists()
    made.keep()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    found = list(video.frames(path, "mov"))
    assert [t for _, t, _ in found] == pytest.approx(times, abs=1e-3)
    assert [round(float(p.mean()) / 40) for _, _, p in found] == [0, 1, 2, 3, 4]
    assert found[0][2].shape == (48, 64, 3)


def test_a_discarded_film_leaves_nothing(tmp_path: Path) -> None:
    made = video.Film(tmp_path / "out.mp4")
    made.add(np.zeros((48, 64, 3), np.uint8), 0.0)
    made.discard()
    assert list(tmp_path.iterdir()) == []
    video.Film(tmp_path / "none.mp4").keep()  # no frame, no film
    assert list(tmp_path.iterdir()) == []


def test_a_film_has_one_size(tmp_path: Path) -> None:
    made = video.Film(tmp_path / "out.mp4")
    made.add(np.zeros((48, 64, 3), np.uint8), 0.0)
    with pytest.raises(DataError, match="one size"):
        made.add(np.zeros((64, 48, 3), np.uint8), 1.0)
    made.discard()
