"""Damaged and hostile image files: each is decoded, or refused in a sentence.

    python benchmarks/fuzz_images.py [--count 1000] [--seed 0]

Made from small files of every format that edgecv reads and some that it must not: bytes changed,
sizes in headers made huge, files cut and joined, PNG chunks with their checksums made right again.
What counts is in `fuzzing.py`.
"""

from __future__ import annotations

import io
import random
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fuzzing import changed_bytes, main
from PIL import Image

from edgecv.data.decode import decode

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n(x) (w) file closefile\n%%EOF\n"
EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def bases() -> list[bytes]:
    """Small files of every format, with what makes their readers branch."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 65536, (24, 32)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [colour.rotate(90 * i) for i in range(3)]
    made = [EPS]
    for image, kind, options in (
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("L"), "JPEG", {}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "PNG", {"exif": exif, "dpi": (72, 72)}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("1"), "PNG", {}),
        (grey16, "PNG", {}),
        (colour, "BMP", {}),
        (colour.convert("P"), "BMP", {}),
        (colour, "WEBP", {"exif": exif}),
        (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        (frames[0], "WEBP", {"save_all": True, "append_images": frames[1:]}),
        (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}),
        (colour, "PPM", {}),
        (grey16, "TIFF", {}),
        *((colour, "TIFF", {"compression": c}) for c in ("tiff_lzw", "jpeg", "packbits")),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate", "exif": exif}),
        (colour, "ICO", {}),
        (colour, "TGA", {}),
    ):
        file = io.BytesIO()
        image.save(file, kind, **options)
        made.append(file.getvalue())
    return made


def cases(seed: int, count: int) -> Iterator[bytes]:
    """`count` files as bytes; the same for the same seed."""
    made = bases()
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        data = rng.choice(made)
        how = rng.randrange(4)
        if how == 0:
            data = changed_bytes(rng, data)
        elif how == 1:
            data = _extreme(rng, data)
        elif how == 2:
            other = rng.choice(made)
            data = data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
        else:
            data = data[: rng.randrange(len(data) + 1)]
        yield _checksums(data) if rng.random() < 0.7 else data


def _extreme(rng: random.Random, data: bytes) -> bytes:
    """Two or four bytes, mostly of the header, become a number at the end of its range."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(len(made) - 4, rng.choice((40, 200, len(made)))))
        value, size = rng.choice(EXTREMES), rng.choice("HI")
        packed = struct.pack(rng.choice("<>") + size, value & (0xFFFF if size == "H" else ~0))
        made[at : at + len(packed)] = packed
    return bytes(made)


def _checksums(data: bytes) -> bytes:
    """A PNG whose chunks' checksums are right again, so that readers look further."""
    if not data.startswith(b"\x89PNG"):
        return data
    made, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        made += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(made)


def check(case: bytes) -> None:
    """Decodes one. Raises EdgecvError for what is refused; anything else is a fault."""
    with tempfile.TemporaryDirectory(prefix="edgecv-fuzz-") as room:
        path = Path(room) / "image.jpg"
        path.write_bytes(case)
        decode(path)


if __name__ == "__main__":
    raise SystemExit(main(cases, check, 1000))
