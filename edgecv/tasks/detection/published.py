"""Boxes that published heads begin with, in pixels of the input, (width, height).

Imported on devices: the standard library only.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil, sqrt
from typing import NamedTuple

Shapes = tuple[tuple[tuple[float, float], ...], ...]


class Priors(NamedTuple):
    """strides: input pixels a cell, of each map; anchors: of each map, the boxes of a cell"""

    strides: tuple[float, ...]
    anchors: Shapes


def _squares(sides: list[list[float]]) -> Shapes:
    return tuple(tuple((s, s) for s in of_map) for of_map in sides)


# ultralytics/yolov5, models/yolov5s.yaml and models/hub/yolov5s6.yaml
YOLOV5 = (
    Priors((8, 16, 32), (
        ((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )),
    Priors((8, 16, 32, 64), (
        ((19, 27), (44, 40), (38, 94)), ((96, 68), (86, 152), (180, 137)),
        ((140, 301), (303, 264), (238, 542)), ((436, 615), (739, 380), (925, 792)),
    )),
)  # fmt: skip
# biubug6/Pytorch_Retinaface, data/config.py
RETINAFACE = Priors((8, 16, 32), _squares([[16, 32], [64, 128], [256, 512]]))
# Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, vision/ssd/config/fd_config.py
ULTRAFACE = Priors((8, 16, 32, 64), _squares([[10, 16, 24], [32, 48], [64, 96], [128, 192, 256]]))


def _ssd(side: int, strides: list[float], scales: list[float], ratios: list[list[int]]) -> Priors:
    """SSD's boxes of each map, in torchvision's order: one of the map's scale, one between it and
    the next, then each ratio lying and standing; none larger than the input.

    Source: torchvision, models/detection/anchor_utils.py, DefaultBoxGenerator
    """
    anchors = []
    for k, of_map in enumerate(ratios):
        own, between = scales[k], sqrt(scales[k] * scales[k + 1])
        shapes = [(own, own), (between, between)]
        for ratio in of_map:
            w, h = own * sqrt(ratio), own / sqrt(ratio)
            shapes += [(w, h), (h, w)]
        anchors.append(tuple((side * min(w, 1.0), side * min(h, 1.0)) for w, h in shapes))
    return Priors(tuple(strides), tuple(anchors))


# torchvision's ssd300_vgg16 and ssdlite320_mobilenet_v3_large, by the side of their input
SSD = {
    300: _ssd(
        300, [8, 16, 32, 64, 100, 300], [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    ),
    320: _ssd(
        320, [16, 32, 64, 320 / 3, 160, 320], [0.2 + 0.15 * k for k in range(6)] + [1.0],
        [[2, 3]] * 6,
    ),
}  # fmt: skip


def _tensorflow(side: int) -> Priors:
    """Of each of six maps five ratios and a square between its scale and the next one's; of the
    first map three. Boxes may reach beyond the input.

    Source: TensorFlow Object Detection API, anchor_generators/multiple_grid_anchor_generator.py,
    create_ssd_anchors, with the values of ssd_mobilenet_v1 and v2
    """
    scales = [0.2 + 0.15 * k for k in range(6)] + [1.0]
    anchors, counts = [], [ceil(side / 16)]
    for k, (own, after) in enumerate(pairwise(scales)):
        shapes = [(own, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
        shapes = [*shapes, (sqrt(own * after), 1.0)] if k else [(0.1, 1.0), (own, 2.0), (own, 0.5)]
        anchors.append(tuple((side * s * sqrt(r), side * s / sqrt(r)) for s, r in shapes))
        counts.append(ceil(counts[-1] / 2))
    return Priors(tuple(side / n for n in counts[:6]), tuple(anchors))


# ssd_mobilenet_v1_coco and ssd_mobilenet_v2_coco, by the side of their input
TENSORFLOW = {side: _tensorflow(side) for side in (300, 320)}
