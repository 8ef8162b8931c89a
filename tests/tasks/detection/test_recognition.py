"""Which decoder reads a graph: told by shapes where one alone fits, asked where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecv.errors import EdgecvError, RecipeError, UnsupportedError
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.detection import DetectionTask, published
from edgecv.tasks.detection.decoders import TABLE
from edgecv.tasks.detection.fits import FITS


def of_graph(shapes, size, classes=None, **said) -> DetectionTask:
    """shapes: by name, or of outputs named a, b, c"""
    if not isinstance(shapes, dict):
        shapes = dict(zip("abcdefghi", shapes, strict=False))
    outputs = [TensorSpec(name, "float32", tuple(shape)) for name, shape in shapes.items()]
    return DetectionTask.of_graph(outputs, size, classes, said)


def maps(channels: int, side: int = 640) -> list[tuple[int, ...]]:
    return [(1, channels, side // s, side // s) for s in (8, 16, 32)]


P5 = (8, 16, 32)
CERTAIN = [  # shapes, input, classes, decoder, what else is told
    ([(1, 3549, 85)], (416, 416), None, "yolox", {"strides": P5}),
    ([(1, 8400, 85)], (640, 640), 80, "yolox", {"strides": P5}),
    ([(1, 11935, 15)], (896, 640), None, None, {}),
    ([(1, 11760, 15)], (896, 640), 10, "yolox", {"strides": P5}),
    ([(1, 34000, 85)], (1280, 1280), None, "yolox", {"strides": (8, 16, 32, 64)}),
    (maps(85), (640, 640), 80, "yolox", {"strides": P5, "outputs": ("a", "b", "c")}),
    (maps(85)[::-1], (640, 640), 80, "yolox", {"strides": P5, "outputs": ("c", "b", "a")}),
    ([(1, 10647, 85)], (416, 416), None, "yolov5", {"strides": P5}),
    ([(1, 25200, 85)], (640, 640), 80, "yolov5", {"strides": P5}),
    ([(1, 102000, 85)], (1280, 1280), None, "yolov5", {"strides": (8, 16, 32, 64)}),
    ([(1, 84, 8400)], (640, 640), None, "yolov8", {"strides": P5}),
    ([(1, 84, 8400)], (640, 640), 80, "yolov8", {"strides": P5}),
    ([(1, 8400, 84)], (640, 640), 80, "yolov8", {"strides": P5}),
    ([(1, 5, 2100)], (320, 320), 1, "yolov8", {"strides": P5}),
    (maps(144), (640, 640), 80, "yolov8", {"strides": P5}),
    (
        [s for pair in zip(maps(64), maps(3), strict=True) for s in pair], (640, 640), 3,
        "yolov8", {"outputs": ("a", "b", "c", "d", "e", "f")},
    ),
    ([(1, 85, 22, 22)], (352, 352), None, "fastestdet", {"strides": (16,)}),
    (
        {"reg": (1, 2, 128, 128), "hm": (1, 80, 128, 128), "wh": (1, 2, 128, 128)}, (512, 512),
        None, "centernet", {"strides": (4,), "outputs": ("hm", "wh", "reg")},
    ),
    ([(1, 8732, 4), (1, 8732, 21)], (300, 300), None, "ssd",
     {"background": 0, "strides": published.SSD[300].strides}),
    ([(1, 3234, 91), (1, 3234, 4)], (320, 320), 90, "ssd", {"outputs": ("b", "a")}),
    ([(1, 1917, 4), (1, 1917, 91)], (300, 300), 90, "ssd",
     {"form": "cycxhw", "strides": published.TENSORFLOW[300].strides, "background": 0}),
    ([(1, 4420, 2), (1, 4420, 4)], (240, 320), None, "ultraface", {"outputs": ("b", "a")}),
    ([(1, 16800, 4), (1, 16800, 2), (1, 16800, 10)], (640, 640), 1, "retinaface",
     {"anchors": published.RETINAFACE.anchors}),
    ([(1, 300, 80), (1, 300, 4)], (640, 640), 80, "detr", {"background": None}),
    ([(1, 100, 92), (1, 100, 4)], (800, 800), 91, "detr", {"background": -1}),
    ([(1, 300, 6)], (640, 640), None, "end2end", {}),
    ([(1, 77, 6)], (640, 640), None, "end2end", {}),
    ([(1, 189, 6)], (96, 96), 1, "yolox", {}),
    ({"b": (1, 100, 4), "scores": (1, 100), "labels": (1, 100)}, (640, 640), None,
     "suppressed", {"outputs": ("b", "scores", "labels")}),
    ({"num": (1, 1), "boxes": (1, 100, 4), "classes": (1, 100), "x": (1, 100)}, (640, 640), 3,
     "suppressed", {"outputs": ("boxes", "x", "classes", "num")}),
    ({"dets": (1, 100, 5), "labels": (1, 100)}, (640, 640), None, "suppressed", {}),
    ({"detection_boxes": (1, 10, 4), "detection_scores": (1, 10), "detection_classes": (1, 10),
      "num_detections": (1,)}, (320, 320), None, "suppressed",
     {"form": "yxyx", "unit": "relative"}),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "size", "classes", "decoder", "told"), CERTAIN)
def test_what_is_certain(shapes, size, classes, decoder, told) -> None:
    if decoder is None:
        with pytest.raises(UnsupportedError):
            of_graph(shapes, size, classes)
        return
    task = of_graph(shapes, size, classes)
    assert task.decoder == decoder
    assert task.input == size
    assert {key: getattr(task, key) for key in told} == told
    assert task.confidence == TABLE[decoder].confidence
    assert DetectionTask.of(json.loads(json.dumps(task.described()))) == task


@pytest.mark.parametrize(
    ("shapes", "size", "classes"),
    [
        (maps(85), (640, 640), None),  # 5 + 80 of YOLOX or 64 + 21 of YOLOv8
        (maps(255), (640, 640), 80),  # whose anchors?
        ([(1, 100, 92), (1, 100, 4)], (800, 800), None),  # is one of them "no object"?
        ([(1, 500, 6)], (320, 320), 1),  # 500 cells of one class, or 500 rows
        ([(1, 1000)], (224, 224), 1000),
        ([(1, 21, 512, 512)], (512, 512), 21),
        ([(1, 100, 4), (1, 100), (1, 100)], (640, 640), None),  # which are the scores?
        ([(1, 8400, 85)], (640, 640), 3),
    ],
)
def test_what_is_not_certain_is_asked(shapes, size, classes) -> None:
    with pytest.raises(UnsupportedError) as error:
        of_graph(shapes, size, classes)
    assert str(tuple(shapes[0])) in error.value.what
    assert "--decoder" in error.value.hint


def test_what_is_asked_is_what_reads_as_many_axes() -> None:
    maps = [(1, 1, 8, 8), (1, 2, 8, 8), (1, 2, 8, 8), (1, 10, 8, 8)]
    with pytest.raises(UnsupportedError) as error:
        of_graph(maps, (32, 32), None)
    assert "centernet reads" in error.value.hint
    assert "detr" not in error.value.hint
    with pytest.raises(UnsupportedError) as error:
        of_graph([(1, 1000)], (224, 224), None)
    assert "yolox, yolov5" in error.value.hint  # a classifier is nobody's


def test_another_count_of_classes_is_said() -> None:
    with pytest.raises(
        UnsupportedError, match=r"1 classes: they are of .*80 \(fastestdet\) cl"
    ) as e:
        of_graph([(1, 85, 22, 22)], (352, 352), 1)
    assert "--labels" in e.value.hint
    with pytest.raises(
        UnsupportedError, match=r"they are of 80 \(yolox\) or 81 \(yolov8\) classes"
    ):
        of_graph([(1, 8400, 85)], (640, 640), 3)


def test_two_that_fit_are_named() -> None:
    with pytest.raises(UnsupportedError, match="may be yolox or end2end"):
        of_graph([(1, 500, 6)], (320, 320), 1)
    assert of_graph([(1, 500, 6)], (320, 320), 1, decoder="end2end").decoder == "end2end"


def test_a_decoder_that_does_not_fit_says_what_it_expected() -> None:
    with pytest.raises(UnsupportedError) as error:
        of_graph([(1, 3549, 85)], (416, 416), 80, decoder="yolov8")
    assert error.value.what == (
        "yolov8 reads (1, 4 + C, N) decoded, or maps (1, 64 + C, H, W) or, of each stride, "
        "(1, 64, H, W) and (1, C, H, W) with C = 80, N = 3549, not a (1, 3549, 85) of an input of "
        "416x416 and 80 classes"
    )
    assert error.value.hint == "yolox would fit"


@pytest.mark.parametrize("decoder", list(TABLE))
def test_every_decoder_refuses_a_classifier(decoder: str) -> None:
    with pytest.raises(UnsupportedError, match=decoder):
        of_graph([(1, 1000)], (224, 224), 1000, decoder=decoder)


def test_every_decoder_has_its_shapes() -> None:
    assert FITS.keys() == TABLE.keys()


@pytest.mark.parametrize("shape", [(0, 4), (-1, 6), (1, -1, 4), (1000, 81), ()])
def test_two_stage_networks_are_refused_with_the_reason(shape) -> None:
    with pytest.raises(UnsupportedError, match="proposals") as error:
        of_graph([shape, (1, 8400, 85)], (640, 640))
    assert "two-stage" in error.value.hint


def test_a_batch_is_of_many_images() -> None:
    assert of_graph([(8, 3549, 85)], (416, 416)).decoder == "yolox"
    with pytest.raises(UnsupportedError, match="proposals"):
        of_graph([(1000, 4), (1000, 81)], (416, 416))


def test_what_is_said_wins_over_what_is_told() -> None:
    task = of_graph([(1, 85, 22, 22)], (352, 352), confidence=0.4, agnostic=True, iou=None)
    assert (task.confidence, task.agnostic, task.iou) == (0.4, True, 0.45)


def test_priors_said_are_counted() -> None:
    said = {"decoder": "ssd", "priors": [[0.5, 0.5, 0.1, 0.1]] * 50, "form": "cycxhw"}
    task = of_graph([(1, 50, 4), (1, 50, 4)], (96, 96), 3, **said, outputs=["a", "b"])
    assert (task.form, task.background, len(task.priors)) == ("cycxhw", 0, 50)
    assert of_graph([(1, 50, 4), (1, 50, 6)], (96, 96), 5, priors=said["priors"]).decoder == "ssd"
    assert of_graph([(1, 50, 4), (1, 50, 6)], (96, 96), 5, **said, background=-1).background == -1
    with pytest.raises(UnsupportedError, match="ssd reads"):
        of_graph([(1, 51, 4), (1, 51, 6)], (96, 96), 5, **said)


def test_anchors_said_make_raw_maps_certain_and_priors_countable() -> None:
    anchors = [[[10, 10], [20, 20]]] * 3
    task = of_graph(maps(2 * 8), (640, 640), 3, anchors=anchors)
    assert (task.decoder, len(task.anchors[0]), task.strides) == ("yolov5", 2, P5)
    rows = 2 * 8400
    task = of_graph([(1, rows, 4), (1, rows, 4)], (640, 640), None, anchors=anchors, strides=[8, 16,
                    32], decoder="ssd", outputs=["b", "a"])  # fmt: skip
    assert task.outputs == ("b", "a")
    with pytest.raises(UnsupportedError):
        of_graph([(1, rows, 4), (1, rows, 4)], (640, 640), anchors=anchors, strides=[8, 16, 32])


def test_said_yolov5_maps_have_its_published_anchors() -> None:
    task = of_graph(maps(255), (640, 640), 80, decoder="yolov5")
    assert task.anchors == published.YOLOV5[0].anchors


def test_an_output_that_alone_fits_the_classes_is_read() -> None:
    shapes = {"out": (1, 25200, 85)} | {n: (1, 3, s, s, 85) for n, s in zip("abc", (80, 40, 20),
                                                                          strict=True)}  # fmt: skip
    assert of_graph(shapes, (640, 640), 80).outputs == ("out",)
    assert of_graph(shapes, (640, 640), 80, decoder="yolov5").outputs == ("out",)
    with pytest.raises(UnsupportedError):  # 32 of the 116 are no classes
        of_graph([(1, 116, 8400), (1, 32, 160, 160)], (640, 640))


def test_outputs_that_are_said_leave_the_others_out() -> None:
    shapes = {"raw": (1, 3, 80, 80, 85), "out": (1, 25200, 85)}
    with pytest.raises(UnsupportedError):
        of_graph(shapes, (640, 640))
    task = of_graph(shapes, (640, 640), outputs=["out"])
    assert (task.decoder, task.outputs) == ("yolov5", ("out",))
    with pytest.raises(UnsupportedError, match="'none'"):
        of_graph(shapes, (640, 640), outputs=["none"])


@pytest.mark.parametrize(
    "said",
    [
        {"decoder": "yolo"}, {"confidence": 2}, {"confidence": "high"}, {"iou": -1},
        {"strides": [0]}, {"strides": 8}, {"max_detections": 0}, {"max_detections": 1.5},
        {"agnostic": "yes"}, {"anchors": [[[1]]]}, {"anchors": [[[8, 8]]], "strides": [8, 16]},
        {"form": "xy"}, {"unit": "inches"}, {"nonsense": 1}, {"variances": [0.1]},
        {"background": 3}, {"outputs": 5}, {"anchors": [8, 8]}, {"anchors": [[]]},
    ],
)  # fmt: skip
def test_values_that_are_wrong_are_said(said) -> None:
    with pytest.raises(RecipeError) as error:
        of_graph([(1, 3549, 85)], (416, 416), 80, **said)
    assert next(iter(said)) in str(error.value)
    assert isinstance(error.value, EdgecvError)


def test_the_page_has_every_decoder_with_its_thresholds() -> None:
    page = (Path(__file__).parents[3] / "docs" / "detection.md").read_text()
    for word, decoder in TABLE.items():
        (row,) = (r for r in page.splitlines() if r.startswith("|") and f"`{word}`" in r)
        shown = [f"{decoder.confidence:g}", *([f"{decoder.iou:g}"] if decoder.suppress else [])]
        assert row.rsplit("|", 2)[1].strip() == ", ".join(shown)
