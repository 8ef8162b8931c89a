"""Pictures of six kinds, drawn by a seeded generator, to settle and judge networks on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = 6
MEAN, STD = 127.0, 64.0


def pictures(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, side, side, 3) and their classes: discs, squares, stripes, crosses, rings,
    gradients, each in colours, places and noise of its own."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % CLASSES
    return np.stack([_picture(rng, int(kind), side) for kind in kinds]), kinds


def inputs(pixels: np.ndarray) -> np.ndarray:
    """float32 (N, 3, H, W): what a network reads."""
    return ((pixels.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2).copy()


def extras(name: str | None, count: int, side: int, seed: int) -> dict[str, np.ndarray]:
    """What a network takes beside the image, float32 (count, ...) by its name; {} of nothing.

    "numbers" is (count, 4), "mask" (count, 1, side, side), both of spread 1.
    """
    shapes = {"numbers": (4,), "mask": (1, side, side)}
    if name is None:
        return {}
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(count, *shapes[name])).astype(np.float32)}


def arrays(out: Path, side: int, name: str, image: str, count: int = 48) -> Path:
    """An .npz of the pictures of `folder` and what goes with each, to calibrate on, written once.

    image, name: what the network calls the image and the other input
    """
    path = out / f"pictures-{side}-{name}-{image}.npz"
    if not path.is_file():
        np.savez(path, **{image: pictures(count, side, 1)[0]}, **extras(name, count, side, 1))
    return path


def folder(out: Path, side: int, count: int = 48) -> Path:
    """A folder of PNG files to calibrate on, written once."""
    place = out / f"pictures-{side}"
    if not place.is_dir():
        place.mkdir(parents=True)
        for i, pixels in enumerate(pictures(count, side, 1)[0]):
            Image.fromarray(pixels).save(place / f"{i:03}.png")
    return place


def _picture(rng: np.random.Generator, kind: int, side: int) -> np.ndarray:
    back, front = rng.integers(0, 110, 3), rng.integers(140, 256, 3)
    front[kind % 3] = 255
    image = Image.new("RGB", (side, side), tuple(map(int, back)))
    draw, colour = ImageDraw.Draw(image), tuple(map(int, front))
    size = int(rng.integers(side // 3, side * 2 // 3))
    x, y = (int(v) for v in rng.integers(0, side - size + 1, 2))
    box = (x, y, x + size, y + size)
    if kind == 0:
        draw.ellipse(box, fill=colour)
    elif kind == 1:
        draw.rectangle(box, fill=colour)
    elif kind == 2:
        for at in range(0, side, max(3, side // 6)):
            draw.line((at, 0, at, side), fill=colour, width=max(1, side // 12))
    elif kind == 3:
        draw.line((x, y, x + size, y + size), fill=colour, width=max(2, side // 8))
        draw.line((x, y + size, x + size, y), fill=colour, width=max(2, side // 8))
    elif kind == 4:
        draw.ellipse(box, outline=colour, width=max(1, side // 10))
    pixels = np.asarray(image, np.float32)
    if kind == 5:
        ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
        pixels = pixels * (1 - ramp) + front.astype(np.float32) * ramp
    noisy = pixels + rng.normal(0, 8, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
