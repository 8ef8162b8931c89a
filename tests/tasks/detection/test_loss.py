"""The detector's loss: IoU as COCO's code has it, assignment by its rules, what it teaches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.data.annotations import PictureBoxes
from edgecv.errors import ModelError
from edgecv.models import zoo
from edgecv.runtime.placement import Placement
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.detection import DetectionTask
from edgecv.tasks.detection import loss as losses

CLASSES, SIDE = 3, 96
SURE = 15.0  # a logit


def truth(boxes, index=None, crowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(boxes)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    index = np.zeros(n, np.int64) if index is None else np.array(index, np.int64)
    return PictureBoxes(boxes, index, np.zeros(n, bool) if crowd is None else np.array(crowd), area)


def levels(images=1, fill=-SURE):
    """What a network returns that sees nothing anywhere, its boxes a pixel large."""
    made = [torch.full((images, 5 + CLASSES, SIDE // s, SIDE // s), fill) for s in losses.STRIDES]
    for level in made:
        level[:, :4] = -4.0
    return made


def say(level, stride, cell, box, index):
    """Let one cell of one level say a box (x0, y0, x1, y1) of a class."""
    y, x = cell
    low, high = torch.tensor(box[:2]), torch.tensor(box[2:])
    level[0, :2, y, x] = (low + high) / 2 / stride - torch.tensor([x, y])
    level[0, 2:4, y, x] = ((high - low) / stride).log()
    level[0, 4, y, x] = level[0, 5 + index, y, x] = SURE


BOX = st.tuples(st.floats(0, 80), st.floats(0, 80), st.floats(1, 40), st.floats(1, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(st.lists(BOX, min_size=1, max_size=5), st.lists(BOX, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_iou_is_cocos(a, b):
    mask = pytest.importorskip("pycocotools.mask")
    wide = [np.array([(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]) for boxes in (a, b)]
    found = losses.iou(torch.tensor(a)[:, None], torch.tensor(b)[None])
    np.testing.assert_allclose(found, mask.iou(*wide, [0] * len(b)), atol=1e-4)


@given(BOX, BOX, st.floats(-30, 30), st.floats(0.2, 5))
@settings(max_examples=20, deadline=None)
def test_ciou_is_one_where_boxes_agree_and_less_elsewhere(a, b, by, times):
    a, b = torch.tensor([a]), torch.tensor([b])
    torch.testing.assert_close(losses.ciou(a, a), torch.ones(1))
    found = losses.ciou(a, b)
    assert -1.5 - 1e-5 <= found <= losses.iou(a, b) + 1e-5
    other = losses.ciou((a + by) * times, (b + by) * times)
    torch.testing.assert_close(found, other, atol=2e-3, rtol=0)


def test_ciou_by_hand():
    """Boxes 4x2 and 2x2 side by side: centres 3 apart, what encloses them 6x2."""
    a, b = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[4.0, 0.0, 6.0, 2.0]])
    v = 4 / np.pi**2 * (np.arctan(1) - np.arctan(2)) ** 2
    expected = 0 - 9 / (36 + 4) - v * v / (1 + v)
    torch.testing.assert_close(losses.ciou(a, b), torch.tensor([expected], dtype=torch.float32))


def test_a_network_that_is_right_has_next_to_no_loss_and_one_that_is_wrong_has():
    true = truth([(20, 24, 60, 56), (64, 64, 92, 90)], [2, 0])
    made = levels()
    for cell in ((2, 1), (2, 2), (2, 3)):
        say(made[1], 16, cell, true.boxes[0].tolist(), 2)
    say(made[0], 8, (9, 9), true.boxes[1].tolist(), 0)
    right = losses.loss(made, [true])
    assert right < 1e-3
    for wrong in ("class", "place", "missed", "extra"):
        other = [level.clone() for level in made]
        if wrong == "class":
            say(other[0], 8, (9, 9), true.boxes[1].tolist(), 1)
        elif wrong == "place":
            say(other[0], 8, (9, 9), (true.boxes[1] + 6).tolist(), 0)
        elif wrong == "missed":
            other[0][0, 4, 9, 9] = -SURE
        else:
            say(other[2], 32, (0, 2), (70, 0, 90, 20), 1)
        assert losses.loss(other, [true]) > 0.2, wrong


@given(st.lists(BOX, max_size=6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_every_box_has_cells_near_it_and_no_cell_has_two(boxes, seed):
    torch.manual_seed(seed)
    made = [torch.randn(1, 5 + CLASSES, SIDE // s, SIDE // s) for s in losses.STRIDES]
    cells = losses._cells(made, losses.STRIDES)
    said = torch.cat([level.flatten(2) for level in made], 2).transpose(1, 2)[0]
    boxes = [b for b in boxes if (b[0] + b[2]) / 2 < SIDE and (b[1] + b[3]) / 2 < SIDE]
    true = truth(boxes, [i % CLASSES for i in range(len(boxes))])
    pairs = losses._assigned(losses.decoded(said[:, :4], cells), said[:, 4:], true, cells)
    assert len(set(pairs.cells.tolist())) == len(pairs.cells)
    if len(boxes) == 1:
        assert 1 <= len(pairs.cells) <= losses.MOST_IOUS
    assert (len(pairs.cells) > 0) == (len(boxes) > 0)
    centre, stride = cells.centre[pairs.cells], cells.stride[pairs.cells]
    middle = (pairs.boxes[:, :2] + pairs.boxes[:, 2:]) / 2
    near = ((centre - middle).abs() < losses.NEAR * stride).all(1)
    within = ((centre > pairs.boxes[:, :2]) & (centre < pairs.boxes[:, 2:])).all(1)
    assert (near | within).all()
    assert bool(pairs.counts.all())


def test_cells_in_a_crowd_say_nothing_of_objects():
    made = levels()
    say(made[0], 8, (2, 2), (10, 10, 30, 30), 0)
    assert losses.loss(made, [truth([])]) > 5
    assert losses.loss(made, [truth([(0, 0, 48, 48)], crowd=[True])]) < 1e-3


def test_pictures_of_a_batch_add_up_and_their_order_is_nothing():
    torch.manual_seed(0)
    made = [torch.randn(2, 5 + CLASSES, SIDE // s, SIDE // s) for s in losses.STRIDES]
    truths = [truth([(20, 24, 60, 56)], [2]), truth([(4, 4, 12, 16), (50, 50, 90, 70)], [0, 1])]
    both = losses.loss(made, truths)
    turned = losses.loss([level.flip(0) for level in made], truths[::-1])
    torch.testing.assert_close(both, turned)


STEPS = 160


def test_descent_leads_to_the_boxes():
    """What is said is free, and no network's: each box is found, and nothing besides."""
    torch.manual_seed(0)
    made = [torch.zeros(1, 5 + CLASSES, SIDE // s, SIDE // s) for s in losses.STRIDES]
    for level in made:
        level[:, 4:] = -4.0
        level.requires_grad_()
    true = truth([(20, 24, 60, 56), (64, 64, 92, 90), (70, 6, 84, 20)], [2, 0, 1])
    optimizer = torch.optim.Adam(made, lr=0.2)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        value = losses.loss(made, [true])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        slower.step()
    said = torch.cat([level.detach().flatten(2) for level in made], 2)[0].T
    scores = said[:, 4:5].sigmoid() * said[:, 5:].sigmoid()
    boxes = losses.decoded(said[:, :4], losses._cells(made, losses.STRIDES))
    sure = scores.amax(1) > 0.5
    ious = losses.iou(boxes[sure][:, None], torch.from_numpy(true.boxes)[None])
    assert set(ious.argmax(1).tolist()) == {0, 1, 2}
    assert ious.amax(1).min() > 0.8
    assert (scores[sure].argmax(1).numpy() == true.index[ious.argmax(1)]).all()


def test_every_weight_of_the_zoos_detector_is_reached():
    torch.manual_seed(0)
    model = zoo.build("tiny_detector", width=4, classes=CLASSES)
    boxes = [(20, 24, 60, 56), (2, 2, 90, 92), (70, 6, 78, 14)]
    losses.loss(model(torch.randn(2, 3, SIDE, SIDE)), [truth(boxes), truth([])]).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_what_is_learned_is_what_the_device_reads():
    """One truth for each class, said rightly: the runtime's decoder finds those boxes."""
    size = (64, SIDE)
    model = zoo.build("tiny_detector", width=4, classes=CLASSES).eval()
    with torch.no_grad():
        shape = tuple(model(torch.zeros(1, 3, *size)).shape)
    task = DetectionTask.of_graph([TensorSpec("output", "float32", shape)], size, CLASSES, {})
    assert (task.decoder, task.strides) == ("yolox", losses.STRIDES)
    made = [torch.full((1, 5 + CLASSES, 64 // s, SIDE // s), -SURE) for s in losses.STRIDES]
    boxes = [(8.5, 4, 20, 19), (30, 20, 70, 60), (2, 3, 90, 61)]
    for index, (level, cell) in enumerate(zip(made, ((1, 2), (2, 3), (0, 1)), strict=True)):
        say(level, losses.STRIDES[index], cell, boxes[index], index)
    rows = torch.cat([y.permute(0, 2, 3, 1).flatten(1, 2) for y in made], 1)
    rows[..., 4:] = rows[..., 4:].sigmoid()
    lies = Placement(size, (0, 0), (1.0, 1.0))
    found = task.read({"output": rows.numpy()}, lies, size)
    assert sorted(found.index.tolist()) == [0, 1, 2]
    for box, index in zip(found.boxes, found.index, strict=True):
        np.testing.assert_allclose(box, boxes[index], atol=1e-3)


@pytest.mark.parametrize(
    ("outputs", "truths", "says"),
    [
        (torch.zeros(1, 189, 8), [truth([])], "returns one tensor in train mode"),
        (levels()[:2], [truth([])], "returns 2 tensors in train mode"),
        (levels(2), [truth([])], r"level 0 is \(2, 8, 12, 12\), expected \(1, 5 \+ classes"),
        (levels(), [truth([(1, 1, 9, 9)], [3])], "a box is of class 3 and the network has 3"),
    ],
)
def test_refusals(outputs, truths, says):
    with pytest.raises(ModelError, match=says):
        losses.loss(outputs, truths)
