import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from edgecv.data import decode, materialise
from edgecv.data.decode import MAX_PIXELS, Notes
from edgecv.errors import DataError

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(/tmp/never) (w) file closefile
showpage
%%EOF
"""


def png(width, height, kind=2, depth=8, data=b""):
    """A PNG with that header, and `data` as its pixels."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def png16(values):
    """A 16-bit PNG of grey (H, W) or colour (H, W, 3) values."""
    values = np.asarray(values, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 2 if values.ndim == 3 else 0, 16, rows)


@pytest.mark.parametrize("name", ["drawing.jpg", "drawing.png", "drawing.tif"])
def test_postscript_is_refused_and_starts_nothing(tmp_path, monkeypatch, name):
    def started(*args, **_):
        raise AssertionError(f"a process was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", started)
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(DataError, match="is PostScript, a program, and not run"):
        decode(tmp_path / name)


@pytest.mark.parametrize("kind", ["TGA", "PCX", "ICO", "SGI", "DDS"])
def test_other_formats_that_pillow_knows_are_refused(tmp_path, kind):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match="no image that can be read here"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
def test_the_formats_are_told_by_content(tmp_path, kind):
    Image.new("RGB", (6, 4), (250, 250, 250)).save(tmp_path / "a.jpg", kind)
    pixels = decode(tmp_path / "a.jpg")
    assert pixels.shape == (4, 6, 3)
    assert abs(pixels.astype(int) - 250).max() <= 4


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(8193, 8192), (100_000, 100_000)])
def test_more_pixels_than_the_limit_are_refused_before_they_are_unpacked(tmp_path, size):
    assert size[0] * size[1] > MAX_PIXELS
    (tmp_path / "bomb.png").write_bytes(png(*size))
    with pytest.raises(DataError, match="pixels"):
        decode(tmp_path / "bomb.png")


def test_a_refusal_speaks_no_library_words(tmp_path):
    for name, content in (("a.jpg", b""), ("b.png", png(8, 8)), ("c.gif", b"GIF89a\x08\0\x08\0")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            decode(tmp_path / name)
        assert not any(w in str(caught.value) for w in ("0x", "object", "Error", "None"))


def test_sixteen_bits_of_every_kind_keep_their_high_byte(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    wanted = grey >> 8
    (tmp_path / "grey.png").write_bytes(png16(grey))
    (tmp_path / "colour.png").write_bytes(png16(np.stack([grey] * 3, 2)))
    (tmp_path / "grey.pgm").write_bytes(b"P5 8 8 65535\n" + grey.astype(">u2").tobytes())
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    for path in tmp_path.iterdir():
        notes = Notes()
        assert np.array_equal(decode(path, notes=notes)[:, :, 0], wanted), path.name
        assert not notes.sentences()


def test_twelve_bits_of_a_tiff_that_says_so_are_scaled(tmp_path):
    """A TIFF with 12 bits a sample: values 0, 16, ..., 4095 are 0, 1, ..., 255."""
    values = np.arange(0, 4096, 16)[:256]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
        for a, b in zip(values[::2].tolist(), values[1::2].tolist(), strict=True)
    )
    tags = [(256, 3, 16), (257, 3, 16), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, 16), (279, 4, len(packed))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(head + packed + ifd)
    notes = Notes()
    assert decode(tmp_path / "a.tif", notes=notes).ravel().tolist() == list(range(256))
    assert not notes.sentences()


@pytest.mark.parametrize("colour", [False, True])
def test_twelve_bits_in_sixteen_are_told(tmp_path, caplog, colour):
    for c, kind in enumerate(("ant", "bee")):
        for i in range(2):
            grey = np.arange(64).reshape(8, 8) * 64 + c * 32 + i
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            values = np.stack([grey] * 3, 2) if colour else grey
            (tmp_path / "in" / kind / f"{i}.png").write_bytes(png16(values))
    materialise(
        f"imagefolder:{tmp_path / 'in'}",
        "train",
        (8, 8),
        None,
        {"crop_pct": 1.0, "interpolation": "nearest"},
        tmp_path / "out",
    )
    (line,) = [r.getMessage() for r in caplog.records]
    assert "4 files of 16 bits hold no value above 4095: if that is 12-bit data" in line


def test_numbers_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)).save(
        tmp_path / "a.tif"
    )
    with pytest.raises(DataError, match="32-bit numbers"):
        decode(tmp_path / "a.tif")


def test_palettes_and_transparency(tmp_path):
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    image.save(tmp_path / "clear.png")
    image.convert("RGB").convert("P").save(tmp_path / "palette.png")
    Image.new("LA", (4, 4), (90, 255)).save(tmp_path / "opaque.png")
    notes = Notes()
    assert decode(tmp_path / "clear.png", notes=notes)[0, 0].tolist() == [200, 100, 50]
    assert decode(tmp_path / "opaque.png", notes=notes).shape == (4, 4, 1)
    assert decode(tmp_path / "palette.png", notes=notes).shape == (4, 4, 3)
    assert notes.sentences() == ["1 files have transparent pixels: their colours are used"]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_turns_nothing(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(tmp_path / "a.jpg").shape == (4, 6, 3)
