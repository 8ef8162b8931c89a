"""From a photograph to the array that an engine eats; the same code in evaluation and on devices.

    pixels = resized and cut or padded to `size` (`edgecv.runtime.placement`), antialiased
    real   = (pixels - mean) / std              mean, std in 0..255 pixels, in the network's order
    q      = clip(round(real / scale) + zero_point)                for int8 and uint8 inputs

Resizing is Pillow's, pixel for pixel. Pixels are RGB, or grey, until they are normalised: a network
that takes BGR gets them turned about there, and its mean and std are B, G, R.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np

from edgecv.errors import DataError
from edgecv.runtime.accepted import as_pixels
from edgecv.runtime.placement import PLACES, RESIZES, Placement, place
from edgecv.runtime.resample import INTERPOLATIONS, columns_come_first, resize

LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "int8", "uint8")
COLORS = ("rgb", "bgr", "grey")
MOST_CHANNELS = 4096
# What a manifest says only where it is not this, so that what says nothing still means the same.
UNSAID = {"resize": "crop", "pad_value": 114, "pad_at": "centre", "color": "rgb"}
# ITU-R 601-2 luma in 16-bit fixed point, as Pillow converts RGB to "L"
_LUMA = np.array([19595, 38470, 7471], np.float32)


@dataclass(frozen=True)
class Preprocess:
    """How one image becomes one engine input.

    size:          (height, width) in pixels of the input
    channels:      3 or 1: images are converted to RGB or grey; 2, 4 and more: they have them
    mean, std:     in units of 0..255 pixels; one value, or one per channel in the network's order
    crop_pct:      of "crop": the share of the resized short side that it keeps, 0.05 to 1
    interpolation: "bicubic", "bilinear" or "nearest"
    layout, dtype: of the engine's input: "NCHW" or "NHWC"; "float32", "int8" or "uint8"
    scale, zero_point: the grid of an integer input: real = scale * (q - zero_point)
    resize:        "crop", "stretch", "letterbox" or "none"
    pad_value:     of "letterbox": the pixel around the image, 0 to 255, for every channel
    pad_at:        of "letterbox": "centre", or "corner" for the image at the upper left
    color:         the order of three channels: "rgb" or "bgr"; "grey" is what one channel holds

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
    resize: str = "crop"
    pad_value: int = 114
    pad_at: str = "centre"
    color: str = "rgb"

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.channels == 1 and self.color == "rgb":  # what manifests of grey networks say
            object.__setattr__(self, "color", "grey")
        for name, ok, rule in self._rules():
            if not ok:
                raise DataError(f"preprocess.{name}", f"{getattr(self, name)!r} is wrong", rule)

    def _rules(self) -> list[tuple[str, bool, str]]:
        lengths = (1, self.channels)
        integer = self.dtype != "float32"
        return [
            ("size", len(self.size) == 2 and all(_is_size(v) for v in self.size), "two counts > 0"),
            ("channels", _is_count(self.channels), f"1 to {MOST_CHANNELS}"),
            ("mean", len(self.mean) in lengths and all(map(isfinite, self.mean)), "per channel"),
            ("std", len(self.std) in lengths and all(0 < v < 1e9 for v in self.std), "above 0"),
            ("crop_pct", 0.05 <= self.crop_pct <= 1, "0.05 to 1"),
            ("interpolation", self.interpolation in INTERPOLATIONS, " or ".join(INTERPOLATIONS)),
            ("layout", self.layout in LAYOUTS, " or ".join(LAYOUTS)),
            ("dtype", self.dtype in DTYPES, " or ".join(DTYPES)),
            ("scale", not integer or (self.scale or 0) > 0, "an integer input has a scale above 0"),
            ("zero_point", not integer or self.zero_point is not None, "an integer input has one"),
            ("resize", self.resize in RESIZES, " or ".join(RESIZES)),
            ("pad_value", type(self.pad_value) is int and 0 <= self.pad_value <= 255, "0 to 255"),
            ("pad_at", self.pad_at in PLACES, " or ".join(PLACES)),
            ("color", self.color in COLORS, " or ".join(COLORS)),
            ("color", self.color != "bgr" or self.channels == 3, "bgr is of 3 channels"),
            ("color", self.color != "grey" or self.channels == 1, "grey is of 1 channel"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; absent: what is None, what the way of resizing has not, and what goes
        without saying."""
        data = {k: v for k, v in asdict(self).items() if v is not None and UNSAID.get(k) != v}
        if self.resize != "crop":
            del data["crop_pct"]
        if self.resize == "letterbox":
            data |= {"pad_value": self.pad_value, "pad_at": self.pad_at}
        else:
            data = {k: v for k, v in data.items() if k not in ("pad_value", "pad_at")}
        if self.color == "grey":
            del data["color"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Preprocess:
        """Raises DataError: unknown or missing keys, values of the wrong type or range, keys of
        another way of resizing."""
        try:
            made = Preprocess(**data)
        except (TypeError, ValueError) as e:
            raise DataError("preprocess", f"not a preprocessing: {e}") from None
        for key, way in (("crop_pct", "crop"), ("pad_value", "letterbox"), ("pad_at", "letterbox")):
            if key in data and made.resize != way:
                raise DataError(f"preprocess.{key}", f"means nothing with resize {made.resize!r}")
        return made

    def __call__(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The engine's input of batch 1 from one uint8 image of any size. Raises DataError.

        out: an array that an earlier call gave, to write into
        """
        return self.normalise(self.geometry(image), out)

    def placement(self, height: int, width: int) -> Placement:
        """Where an image of so many pixels lies in the input, by which coordinates map back:

            y_image = (y_input - offset_y) / scale_y,   x_image likewise

        Raises DataError: resize is "none" and the image has another size.
        """
        return place(self.resize, (height, width), self.size, self.crop_pct, self.pad_at)

    def geometry(self, image: Any) -> np.ndarray:
        """uint8 (height, width, channels): converted, resized, cropped or padded; RGB or grey.

        image: what `edgecv.runtime.accepted` takes: uint8 (H, W) or (H, W, C), floats in 0..1, a
        Pillow image, a path. The result may be a view of it. Raises DataError.
        """
        if type(image) is np.ndarray and image.dtype == np.uint8 and image.shape == self._as_is:
            return image
        image = as_pixels(image, self.channels)
        if image.ndim == 2:
            image = image[..., None]
        # RGB to grey mixes channels and must come first, as in Pillow; copying grey need not
        if self.channels == 1 and image.shape[2] > 1:
            image = _luma(image)
        if self.channels == 3:
            image = image[..., :3]
        image = self._placed(image)
        return image if image.shape[2] == self.channels else image.repeat(self.channels, axis=2)

    def _placed(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) to (height, width, C): the part that shows, and padding where none does."""
        lies = self.placement(*image.shape[:2])
        (top, left), sides = lies.offset, zip(lies.resized, lies.offset, self.size, strict=True)
        rows, columns = (range(max(0, -at), min(n, size - at)) for n, at, size in sides)
        if lies.resized == image.shape[:2]:
            seen = image[rows.start : rows.stop, columns.start : columns.stop]
        else:
            window = (rows.start, columns.start, len(rows), len(columns))
            down = self.resize != "crop" and columns_come_first(image.shape, lies.resized)
            seen = resize(image, lies.resized, window, self.interpolation, down)
        if seen.shape[:2] == self.size:
            return seen
        whole = np.full((*self.size, image.shape[2]), self.pad_value, np.uint8)
        whole[top : top + len(rows), left : left + len(columns)] = seen
        return whole

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
        if self.color == "bgr":
            batch = batch[..., ::-1]
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
        same = self.placement(*self.size)
        return self._shape if (same.resized, same.offset) == (self.size, (0, 0)) else ()

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


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= 1 << 16


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST_CHANNELS


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
