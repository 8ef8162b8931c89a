"""Where an image comes to lie in a network's input, by the four ways of resizing.

    y_input = scale_y * y_image + offset_y,   x_input = scale_x * x_image + offset_x

in pixels, measured from the upper left corner of the upper left pixel. scale is what the resize
really did, whole pixels over whole pixels, so that what is mapped back lies right to the edge.

    crop       the side that is shortest for its crop becomes floor(size / crop_pct), the other
               keeps the aspect, rounded down; the centre is cut out
                                                             as torchvision's Resize and CenterCrop
    stretch    each side becomes the input's, whatever the aspect
    letterbox  r = min(H / h, W / w) in float64, for larger images and smaller ones;
               corner: (int(h r), int(w r)), at the upper left              as YOLOX does
               centre: (round(h r), round(w r)), at round((H - h') / 2 - 0.1), likewise the other
                       way; halves to the even number                       as ultralytics does
    none       the image has the input's size, or is refused

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from functools import lru_cache
from math import floor
from typing import NamedTuple

from edgecv.errors import DataError

RESIZES = ("crop", "stretch", "letterbox", "none")
PLACES = ("centre", "corner")

Pair = tuple[int, int]


class Placement(NamedTuple):
    """One image in the network's input.

    resized: (height, width) of the whole image after the resize, in input pixels
    offset:  (vertical, horizontal) of its upper left corner in the input, in pixels; negative
             where the crop cuts off what lies above or to the left
    scale:   (vertical, horizontal), input pixels an image pixel
    """

    resized: Pair
    offset: Pair
    scale: tuple[float, float]


@lru_cache(maxsize=16)
def place(resize: str, image: Pair, size: Pair, crop_pct: float, pad_at: str) -> Placement:
    """Where an image of (height, width) lies in an input of `size`. Raises DataError."""
    if resize == "crop":
        resized, offset = _crop(image, size, crop_pct)
    elif resize == "letterbox":
        resized, offset = _letterbox(image, size, pad_at)
    else:
        if resize == "none" and image != size:
            what = f"is {image[0]}x{image[1]}, and this network takes {size[0]}x{size[1]} unresized"
            raise DataError("image", what, "height x width; bring it to that size first")
        resized, offset = size, (0, 0)
    return Placement(resized, offset, (resized[0] / image[0], resized[1] / image[1]))


def _crop(image: Pair, size: Pair, crop_pct: float) -> tuple[Pair, Pair]:
    height, width = image
    h, w = (floor(v / crop_pct) for v in size)
    # integers, because a product with a float ratio can fall a pixel short
    if height * w <= width * h:  # noqa: SIM108 - a case a line
        new = h, max(w, h * width // height)
    else:
        new = w * height // width, w
    top, left = (round((n - v) / 2) for n, v in zip(new, size, strict=True))
    return new, (-top, -left)


def _letterbox(image: Pair, size: Pair, pad_at: str) -> tuple[Pair, Pair]:
    r = min(size[0] / image[0], size[1] / image[1])
    rounded = int if pad_at == "corner" else round  # of floats, as those two do it
    high, wide = (max(1, rounded(side * r)) for side in image)
    if pad_at == "corner":
        return (high, wide), (0, 0)
    top, left = (round((v - n) / 2 - 0.1) for v, n in zip(size, (high, wide), strict=True))
    return (high, wide), (top, left)
