"""From a photograph to the array that an engine eats; the same code in evaluation and on devices.

    resized = resample(image, short side -> floor(size / crop_pct)), antialiased
    cropped = the centre `size` of resized
    real    = (cropped - mean) / std                                mean, std in 0..255 pixels
    q       = clip(round(real / scale) + zero_point)                for int8 and uint8 inputs

The geometry is torchvision's Resize + CenterCrop on a Pillow image, pixel for pixel.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from math import floor, isfinite
from typing import Any

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.resample import INTERPOLATIONS, resize

LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "int8", "uint8")
_WANTED = "pass a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
# ITU-R 601-2 luma in 16-bit fixed point, as Pillow converts RGB to "L"
_LUMA = np.array([19595, 38470, 7471], np.float32)


@dataclass(frozen=True)
class Preprocess:
    """How one image becomes one engine input.

    size:          (height, width) in pixels, after the crop
    channels:      3 (RGB) or 1 (grey); images are converted to it
    mean, std:     in units of 0..255 pixels; one value, or one per channel
    crop_pct:      the share of the resized short side that the crop keeps, 0.05 to 1
    interpolation: "bicubic", "bilinear" or "nearest"
    layout, dtype: of the engine's input: "NCHW" or "NHWC"; "float32", "int8" or "uint8"
    scale, zero_point: the grid of an integer input: real = scale * (q - zero_point)

    Raises DataError when a value is out of range.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    layout: str = "NCHW"
    dtype: str = "float32"
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, ok, rule in self._rules():
            if not ok:
                raise DataError(f"preprocess.{name}", f"{getattr(self, name)!r} is wrong", rule)

    def _rules(self) -> list[tuple[str, bool, str]]:
        lengths = (1, self.channels)
        integer = self.dtype != "float32"
        return [
            ("size", len(self.size) == 2 and all(_is_size(v) for v in self.size), "two counts > 0"),
            ("channels", self.channels in (1, 3), "1 or 3"),
            ("mean", len(self.mean) in lengths and all(map(isfinite, self.mean)), "per channel"),
            ("std", len(self.std) in lengths and all(0 < v < 1e9 for v in self.std), "above 0"),
            ("crop_pct", 0.05 <= self.crop_pct <= 1, "0.05 to 1"),
            ("interpolation", self.interpolation in INTERPOLATIONS, " or ".join(INTERPOLATIONS)),
            ("layout", self.layout in LAYOUTS, " or ".join(LAYOUTS)),
            ("dtype", self.dtype in DTYPES, " or ".join(DTYPES)),
            ("scale", not integer or (self.scale or 0) > 0, "an integer input has a scale above 0"),
            ("zero_point", not integer or self.zero_point is not None, "an integer input has one"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; absent: what is None."""
        data = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Preprocess:
        """Raises DataError: unknown or missing keys, values of the wrong type or range."""
        try:
            return Preprocess(**data)
        except (TypeError, ValueError) as e:
            raise DataError("preprocess", f"not a preprocessing: {e}") from None

    def __call__(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The engine's input of batch 1 from one uint8 image of any size. Raises DataError.

        out: an array that an earlier call gave, to write into
        """
        return self.normalise(self.geometry(image), out)

    def geometry(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, channels): converted, resized, cropped.

        image: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose alpha is dropped. The
        result may be a view of it. Raises DataError.
        """
        if type(image) is np.ndarray and image.dtype == np.uint8 and image.shape == self._as_is:
            return image
        _check(image)
        if image.ndim == 2:
            image = image[..., None]
        size, (top, left) = self._plan(image.shape[0], image.shape[1])
        height, width = self.size
        # RGB to grey mixes channels and must come first, as in Pillow; copying grey need not
        if self.channels == 1 and image.shape[2] > 1:
            image = _luma(image)
        image = image[..., :3]
        if size == image.shape[:2]:
            image = image[top : top + height, left : left + width]
        else:
            image = resize(image, size, (top, left, height, width), self.interpolation)
        return image if image.shape[2] == self.channels else image.repeat(self.channels, axis=2)

    def normalise(self, pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The engine's input, (N, C, H, W) or (N, H, W, C), from what `geometry` returns.

        pixels: uint8 (N, height, width, channels), or without N for a batch of one
        out:    an array that an earlier call for as many images gave, to write into (fresh
                memory costs more than the arithmetic); None makes one
        Raises DataError.
        """
        batch = pixels if pixels.ndim == 4 else pixels[None]
        if batch.dtype != np.uint8 or batch.shape[1:] != self._shape:
            got = f"{batch.dtype} {batch.shape}"
            raise DataError("pixels", f"{got} is not uint8 (N, {_csv(self._shape)})")
        view = batch.transpose(0, 3, 1, 2) if self.layout == "NCHW" else batch
        if out is None:
            out = np.empty(view.shape, self.dtype)
        return self._real(view, out) if self.dtype == "float32" else self._quantized(view, out)

    def _real(self, view: np.ndarray, out: np.ndarray) -> np.ndarray:
        mean, std = self._affine
        out[...] = view  # cast first: subtracting across dtype and stride at once takes longer
        out -= mean
        out /= std
        return out

    def _quantized(self, view: np.ndarray, out: np.ndarray) -> np.ndarray:
        tables, shift = self._tables
        if shift is not None:
            # np.add wraps around, as two's complement does
            np.add(view, shift, out=out.view(np.uint8))
        elif len(tables) == 1:
            tables[0].take(view, out=out, mode="clip")  # any mode but "raise" needs no buffer
        else:
            axis = 1 if self.layout == "NCHW" else 3
            channels = (np.moveaxis(a, axis, 0) for a in (view, out))
            for table, source, place in zip(tables, *channels, strict=True):
                place[...] = table.take(source)
        return out

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels)

    @cached_property
    def _as_is(self) -> tuple[int, ...]:
        """The one image shape that is neither converted, resized nor cropped; () when none."""
        same = self._plan(*self.size) == (self.size, (0, 0))
        return self._shape if same else ()

    @cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """mean and std, float32, shaped to broadcast."""
        shape = (-1, 1, 1) if self.layout == "NCHW" else (-1,)
        mean, std = (np.array(v, np.float32).reshape(shape) for v in (self.mean, self.std))
        return mean, std

    @cached_property
    def _tables(self) -> tuple[list[np.ndarray], np.uint8 | None]:
        """256 integers for each channel, or once if all channels are alike; and their shift.

        The shift is q - p modulo 256 where that is the same for every pixel value p, as on a
        grid that was calibrated on the whole range of pixels: many times faster than a table.
        """
        limits = np.iinfo(self.dtype)
        channels = max(len(self.mean), len(self.std))
        mean, std = (np.broadcast_to(np.array(v), channels) for v in (self.mean, self.std))
        real = (np.arange(256.0) - mean[:, None]) / std[:, None]
        q = np.rint(real / np.float64(self.scale or 1.0)) + (self.zero_point or 0)
        q = np.clip(q, limits.min, limits.max).astype(self.dtype)
        tables = list(q) if (q != q[0]).any() else [q[0]]
        shifts = q.view(np.uint8) - np.arange(256, dtype=np.uint8)
        return tables, shifts[0, 0] if (shifts == shifts[0, 0]).all() else None

    def _plan(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """((resized height, width), (crop top, left)), rounded as torchvision rounds.

        The side that is shortest for its crop becomes floor(size / crop_pct); the other keeps
        the aspect ratio, rounded down, and is never less than the crop.
        """
        h, w = (floor(v / self.crop_pct) for v in self.size)
        # integers, because a product with a float ratio can fall a pixel short
        new = (
            (h, max(w, h * width // height))
            if height * w <= width * h
            else (w * height // width, w)
        )
        top, left = (round((n - v) / 2) for n, v in zip(new, self.size, strict=True))
        return new, (top, left)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= 1 << 16


def _csv(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _luma(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3 or more) to (H, W, 1). Every sum stays below 2^24: exact in float32."""
    grey = np.empty((*image.shape[:2], 1), np.uint8)
    for y in range(0, len(image), 64):  # strips, or a photograph takes 150 MB for a moment
        sums = image[y : y + 64, :, :3].astype(np.float32) @ _LUMA
        sums += 32768.0
        sums *= 1.0 / 65536.0
        grey[y : y + 64, :, 0] = sums
    return grey


def _check(image: object) -> None:
    """Raises DataError when it is not a non-empty uint8 image."""
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        raise DataError("image", f"{kind} is not an array", "np.asarray(image.convert('RGB'))")
    if image.dtype != np.uint8:
        raise DataError("image", f"dtype {image.dtype} is not uint8", "pixels are 0..255 integers")
    shape = image.shape
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = _WANTED
        if image.ndim == 3 and shape[0] in (1, 3):
            hint = "channels come last: image.transpose(1, 2, 0)"
        elif image.ndim == 4:
            hint = "one image at a time"
        raise DataError("image", f"shape {shape} is not an image", hint)
    if 0 in shape:
        raise DataError("image", f"shape {shape} is empty", _WANTED)
