"""A teacher is a network, a Model folder or an .onnx file, and speaks the student's units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import StageError  # noqa: E402
from edgecv.methods.distillation import teacher  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.runtime.preprocess import Preprocess  # noqa: E402
from tests import networks as nets  # noqa: E402

ARGS = {"width": 8, "classes": nets.CLASSES}
PRE = Preprocess((nets.SIZE, nets.SIZE), 3, (127.0,), (64.0,), crop_pct=1.0)
X = torch.randn(4, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
ABCD = tuple("abcd")


def saved(out: Path, labels=ABCD, **units) -> nn.Module:
    """A Model folder, and its network."""
    module = nets.seeded(lambda: zoo.build("resnet8", **ARGS)).eval()
    Model("zoo:resnet8", ARGS, (), replace(PRE, **units).to_json(), labels).save(out, module)
    return module


def exported(path: Path, module: nn.Module) -> Path:
    torch.onnx.export(module, (X[:1],), path, dynamo=True, verbose=False, opset_version=18)
    return path


def test_a_folder_gives_its_network(tmp_path: Path) -> None:
    module = saved(tmp_path)
    found = teacher.load(tmp_path, PRE, ABCD, "small")
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    torch.testing.assert_close(found(X), module(X))


def test_pixels_are_put_into_the_teachers_units(tmp_path: Path) -> None:
    module = saved(tmp_path, mean=(100.0, 110.0, 120.0), std=(50.0,))
    found = teacher.load(tmp_path, PRE, ABCD, "small")
    pixels = X * 64 + 127
    own = (pixels - torch.tensor([100.0, 110.0, 120.0]).reshape(1, 3, 1, 1)) / 50
    torch.testing.assert_close(found(X), module(own), rtol=1e-4, atol=1e-4)


def test_classes_are_put_into_the_students_order(tmp_path: Path) -> None:
    module = saved(tmp_path, labels=tuple("dbca"))
    found = teacher.load(tmp_path, PRE, ABCD, "small")
    torch.testing.assert_close(found(X), module(X)[:, [3, 1, 2, 0]])


@pytest.mark.parametrize("labels", [None, ABCD, tuple("0123")])
def test_numbers_and_no_names_move_nothing(tmp_path: Path, labels) -> None:
    module = saved(tmp_path, labels=labels)
    torch.testing.assert_close(teacher.load(tmp_path, PRE, ABCD, "s")(X), module(X))


def test_a_class_the_teacher_does_not_know_is_an_error(tmp_path: Path) -> None:
    saved(tmp_path, labels=tuple("abcx"))
    with pytest.raises(StageError, match=r"^small: the teacher has no class 'd' \(it knows a, b"):
        teacher.load(tmp_path, PRE, ABCD, "small")


def test_other_images_are_an_error(tmp_path: Path) -> None:
    saved(tmp_path, size=(20, 20))
    with pytest.raises(
        StageError, match=r"teacher's size is \(20, 20\) and the student's \(16, 16"
    ):
        teacher.load(tmp_path, PRE, ABCD, "small")


def test_an_onnx_file_gives_the_same_logits(tmp_path: Path) -> None:
    module = saved(tmp_path / "m")
    path = exported(tmp_path / "net.onnx", module)
    torch.testing.assert_close(
        teacher.load(path, PRE, ABCD, "s")(X), module(X), rtol=1e-4, atol=1e-4
    )


def test_an_onnx_file_that_torch_cannot_read_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecv.errors import UnsupportedError
    from edgecv.methods.distillation.teacher_onnx import OnnxTeacher
    from edgecv.models import importing

    module = saved(tmp_path / "m")
    path = exported(tmp_path / "net.onnx", module)

    def refuse(*_: object) -> nn.Module:
        raise UnsupportedError("net.onnx", "operator Foo")

    monkeypatch.setattr(importing, "onnx_to_torch", refuse)
    found = teacher.load(path, PRE, ABCD, "s")
    assert isinstance(found, OnnxTeacher)
    channels_last = X.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found(channels_last), module(X), rtol=1e-4, atol=1e-4)


def test_a_file_that_takes_bytes_sees_pixels(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    opset = [helper.make_opsetid("", 12)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=opset, ir_version=8
    )
    onnx.save(model, tmp_path / "bytes.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    found = teacher.load(tmp_path / "bytes.onnx", PRE, None, "s")
    answers = found(torch.from_numpy(PRE.normalise(pixels))).numpy()
    np.testing.assert_allclose(answers, pixels.mean((1, 2)), rtol=1e-3)


def test_both_counts_are_told() -> None:
    small, large = (zoo.build("resnet8", width=8, classes=n) for n in (4, 10))
    with pytest.raises(StageError) as e:
        teacher.check_classes(large, small, X[:1], "small")
    assert str(e.value) == (
        "small: the teacher has 10 classes and the student 4 "
        "(use a teacher of the same classes, or `teacher: none`)"
    )
    teacher.check_classes(large, large, X[:1], "small")
    assert small.training


def test_a_teacher_that_does_not_take_the_images_is_an_error() -> None:
    grey = zoo.build("resnet8", width=8, classes=4, channels=1)
    with pytest.raises(StageError, match=r"small: the teacher fails on a 1x3x16x16 input"):
        teacher.check_classes(grey, zoo.build("resnet8", width=8, classes=4), X[:1], "small")
