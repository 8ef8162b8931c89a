"""What a detector learns by: cells are given to boxes by SimOTA, boxes by CIoU, scores by BCE.

    L = (5 Σ_fg (1 - CIoU) + Σ_all BCE(object) + Σ_fg BCE(classes, IoU at the true class)) / |fg|

Assignment: Ge et al., "YOLOX", 2021, after "OTA" (CVPR 2021). Of each box, the cells whose centre
lies in it or near its own are ranked by cost = BCE(classes · object) + 3 (-ln IoU), and as many as
the sum of its ten best IoUs are its own; a cell that two boxes want is the cheaper one's. CIoU:
Zheng et al., "Distance-IoU Loss", AAAI 2020.

A crowd is neither found nor missed: cells in one that no box has say nothing of objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgecv.data.annotations import PictureBoxes
from edgecv.errors import ModelError

STRIDES = (8, 16, 32)
NEAR = 2.5  # strides from a box's centre in which cells may be its own
MOST_IOUS = 10  # whose sum says how many cells a box has
FAR = 1e5  # added to the cost of a cell that is not both in the box and near its centre
BOXES = 5.0  # weight
LARGEST = 10.0  # of log size: exp of more overflows in the squares of CIoU


def loss(
    outputs: Sequence[Tensor],
    truths: Sequence[PictureBoxes],
    strides: Sequence[int] = STRIDES,
) -> Tensor:
    """The loss of one batch, a scalar, summed over images and divided by all assigned cells.

    outputs: of each level float (N, 5 + C, H / s, W / s): x, y, log w, log h, object, classes,
             scores before their sigmoid; what `zoo tiny_detector` returns in train mode
    truths:  of each image, in pixels of the input
    Raises ModelError: outputs of another form, a class that they do not have.
    """
    _check(outputs, truths, strides)
    cells = _cells(outputs, strides)
    said = torch.cat([level.flatten(2) for level in outputs], 2).transpose(1, 2)
    boxes = decoded(said[..., :4], cells)
    pairs = [
        _assigned(boxes[i].detach(), said[i, :, 4:].detach(), truth, cells)
        for i, truth in enumerate(truths)
    ]
    picture = torch.cat([torch.full_like(p.cells, i) for i, p in enumerate(pairs)])
    at = torch.cat([p.cells for p in pairs])
    count = max(1, len(at))
    found = torch.zeros(said.shape[:2])
    found[picture, at] = 1.0
    counts = torch.stack([p.counts for p in pairs]) | found.bool()
    objects = F.binary_cross_entropy_with_logits(said[..., 4], found, reduction="none")
    kinds = F.one_hot(torch.cat([p.index for p in pairs]), said.shape[2] - 5).float()
    kinds = kinds * torch.cat([p.iou for p in pairs])[:, None]
    classes = F.binary_cross_entropy_with_logits(said[picture, at, 5:], kinds, reduction="sum")
    apart = 1.0 - ciou(boxes[picture, at], torch.cat([p.boxes for p in pairs]))
    return (BOXES * apart.sum() + (objects * counts).sum() + classes) / count


def _check(
    outputs: Sequence[Tensor], truths: Sequence[PictureBoxes], strides: Sequence[int]
) -> None:
    where = "detection loss"
    if isinstance(outputs, Tensor) or len(outputs) != len(strides):
        got = "one tensor" if isinstance(outputs, Tensor) else f"{len(outputs)} tensors"
        what = f"the network returns {got} in train mode, expected one for each of {strides}"
        raise ModelError(where, what, "see zoo tiny_detector")
    shape = tuple(outputs[0].shape)
    if len(shape) != 4 or shape[0] != len(truths) or shape[1] < 6:
        expected = f"({len(truths)}, 5 + classes, H / {strides[0]}, W / {strides[0]})"
        raise ModelError(where, f"level 0 is {shape}, expected {expected}")
    classes = shape[1] - 5
    most = max((int(t.index.max()) for t in truths if len(t)), default=0)
    if most >= classes:
        what = f"a box is of class {most} and the network has {classes}"
        raise ModelError(where, what, "give the builder the class count of the data")


@dataclass(frozen=True)
class Cells:
    """corner, centre: float (cells, 2), (x, y) in pixels of the input; stride: float (cells, 1)."""

    corner: Tensor
    centre: Tensor
    stride: Tensor


@dataclass(frozen=True)
class Pairs:
    """The cells of one image that have a box, and what is true of it.

    cells: int64 (F,). boxes: float (F, 4), pixels. index: int64 (F,), of the class
    iou:   float (F,), of what the cell says with its box
    counts: bool (cells,), whether a cell without a box counts as background
    """

    cells: Tensor
    boxes: Tensor
    index: Tensor
    iou: Tensor
    counts: Tensor


def _cells(outputs: Sequence[Tensor], strides: Sequence[int]) -> Cells:
    corners, steps = [], []
    for level, stride in zip(outputs, strides, strict=True):
        h, w = level.shape[2:]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        corners.append(torch.stack([x, y], 2).reshape(-1, 2) * float(stride))
        steps.append(torch.full((h * w, 1), float(stride)))
    corner, stride_of = torch.cat(corners), torch.cat(steps)
    return Cells(corner, corner + stride_of / 2, stride_of)


def decoded(raw: Tensor, cells: Cells) -> Tensor:
    """(..., cells, 4) as the network says them -> (x0, y0, x1, y1) in pixels of the input."""
    centre = raw[..., :2] * cells.stride + cells.corner
    half = raw[..., 2:].clamp(max=LARGEST).exp() * cells.stride / 2
    return torch.cat([centre - half, centre + half], -1)


@torch.no_grad()
def _assigned(boxes: Tensor, scores: Tensor, truth: PictureBoxes, cells: Cells) -> Pairs:
    """SimOTA of one image. boxes: (cells, 4), pixels; scores: (cells, 1 + C) before the sigmoid."""
    crowds = torch.from_numpy(np.ascontiguousarray(truth.boxes[truth.crowd], np.float32))
    counts = ~_inside(cells.centre, crowds).any(1)
    true = torch.from_numpy(np.ascontiguousarray(truth.boxes[~truth.crowd], np.float32))
    index = torch.from_numpy(np.ascontiguousarray(truth.index[~truth.crowd], np.int64))
    within = _inside(cells.centre, true)
    middle = (true[:, :2] + true[:, 2:]) / 2
    off = (cells.centre[:, None] - middle[None]).abs().amax(2)
    near = off < NEAR * cells.stride
    may = (within | near).any(1).nonzero()[:, 0]
    if not len(true) or not len(may):
        none = torch.zeros(0, dtype=torch.int64)
        return Pairs(none, torch.zeros(0, 4), none, torch.zeros(0), counts)
    ious = iou(boxes[may][:, None], true[None])
    cost = _kind_cost(scores[may], index) - 3.0 * ious.clamp(min=1e-8).log()
    cost = cost + FAR * ~(within & near)[may]
    cost = cost + 10 * FAR * ~(within | near)[may]  # those of another box alone
    chosen = _chosen(cost, ious)
    rows, of = chosen.nonzero(as_tuple=True)
    return Pairs(may[rows], true[of], index[of], ious[rows, of], counts)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """bool (points, boxes)"""
    after = (points[:, None] > boxes[None, :, :2]).all(2)
    return after & (points[:, None] < boxes[None, :, 2:]).all(2)


def _kind_cost(scores: Tensor, index: Tensor) -> Tensor:
    """BCE of sqrt(class · object) against one class each: (candidates, boxes)."""
    p = (scores[:, 1:].sigmoid() * scores[:, :1].sigmoid()).sqrt().clamp(1e-7, 1 - 1e-7)
    wrong = -torch.log1p(-p)  # of a class that is not the box's
    right = -p.log()
    return wrong.sum(1, keepdim=True) + (right - wrong)[:, index]


def _chosen(cost: Tensor, ious: Tensor) -> Tensor:
    """bool (candidates, boxes): of each box its cheapest cells, of each cell one box at most."""
    best = ious.topk(min(MOST_IOUS, len(ious)), 0).values
    many = (best.sum(0) + 1e-4).int().clamp(min=1, max=len(cost))  # ten times 1.0 may sum to 9.99
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    for box, k in enumerate(many.tolist()):
        chosen[cost[:, box].topk(k, largest=False).indices, box] = True
    twice = chosen.sum(1) > 1
    chosen[twice] = F.one_hot(cost[twice].argmin(1), cost.shape[1]).bool()
    return chosen


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) in pixels, broadcast: 0..1."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (_area(a) + _area(b) - shared).clamp(min=1e-9)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes (..., 4) pair by pair: IoU - d² / c² - α v, -1.5..1.

    d: between centres. c: the diagonal of what encloses both. v: how far the aspects are apart
    """
    shared = iou(a, b)
    span = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    wide_a, high_a = (a[..., 2:] - a[..., :2]).clamp(min=1e-6).unbind(-1)
    wide_b, high_b = (b[..., 2:] - b[..., :2]).clamp(min=1e-6).unbind(-1)
    v = 4 / math.pi**2 * (torch.atan(wide_b / high_b) - torch.atan(wide_a / high_a)) ** 2
    with torch.no_grad():
        alpha = v / (1 - shared + v).clamp(min=1e-7)
    return shared - apart.square().sum(-1) / span.square().sum(-1).clamp(min=1e-7) - alpha * v
