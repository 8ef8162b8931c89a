"""z_t = f_t((x · σ + μ − μ_t) / σ_t): a teacher that sees the student's images in its own units.

A Model folder says how its pixels were normalised and what its classes are called: where that
differs from the student's, images are converted and classes put into the student's order.
`teacher_onnx.py` reads .onnx files.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.behaviour import as_trained, tensors
from edgecv.errors import EngineError, StageError, one_line
from edgecv.models.model import Model
from edgecv.runtime.preprocess import Preprocess


def own(module: nn.Module) -> nn.Module:
    """A copy of the network as it is, to teach what will become of it."""
    return settled(copy.deepcopy(module))


def settled(teacher: nn.Module) -> nn.Module:
    """In eval mode, nothing of it trained, and with the memory format that the trainer uses: the
    same kernels, no copies."""
    teacher.eval().requires_grad_(False)
    return teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load(
    path: Path,
    preprocess: Preprocess,
    labels: tuple[str, ...] | None,
    where: str,
    classifies: bool = True,
) -> nn.Module:
    """The teacher in a Model folder or an .onnx file, for images normalised by `preprocess`.

    labels: the student's class names. classifies: its answers are a row of classes, which can be
    put into another order. Raises StageError for other classes or another input size, ModelError
    where the folder or file is damaged.
    """
    if path.is_dir() and (path / "source.onnx").is_file():
        path = path / "source.onnx"
    if not path.is_dir():  # by name: no other training hangs on what reads and runs files
        files = import_module(f"edgecv.methods.distillation.teacher_{path.suffix[1:].lower()}")
        module, taken = files.load(path, preprocess)
        units = (preprocess, taken) if taken != preprocess else None
        return settled(Translated(module, units, None) if units else module)
    model, module = Model.load(path)
    order = _order(model.labels, labels, where)
    if order and not classifies and order != sorted(order):
        hint = "train a teacher on data whose classes are in the student's order"
        raise StageError(where, "the teacher has the student's classes in another order", hint)
    if not model.input:
        return settled(Translated(module, None, order) if order else module)
    taken = Preprocess.from_json(model.input)
    for key in ("size", "channels", "color"):
        a, b = getattr(taken, key), getattr(preprocess, key)
        if a != b:
            hint = "train a teacher for these images"
            raise StageError(where, f"the teacher's {key} is {a} and the student's {b}", hint)
    same = (taken.mean, taken.std) == (preprocess.mean, preprocess.std)
    units = None if same else (preprocess, taken)
    return settled(Translated(module, units, order) if units or order else module)


def check_classes(
    teacher: nn.Module, student: nn.Module, sample: Tensor, where: str, classifies: bool = True
) -> None:
    """Raises StageError with both counts when they have different classes, and when the teacher
    does not take the images. classifies: no: with both shapes of what they answer in the form
    that the student trains in."""
    counts: list[Any] = []
    for module in (teacher, student):
        was = module.training
        module.eval()
        try:
            with torch.no_grad(), nullcontext() if classifies else as_trained(module):
                said = module(sample)
                counts.append(said.shape[-1] if classifies else [*map(_shape, tensors(said))])
        except (RuntimeError, ValueError, EngineError) as e:
            if module is student:
                raise
            shape, first = "x".join(map(str, sample.shape)), one_line(e, 200)
            raise StageError(where, f"the teacher fails on a {shape} input: {first}") from e
        finally:
            module.train(was)
    if counts[0] != counts[1] and not classifies:
        theirs, ours = (", ".join(shapes) for shapes in counts)
        what = f"the teacher answers {theirs} and the student, as it trains, {ours}"
        hint = "a teacher of the same classes and outputs, as a step or a Model, or `teacher: none`"
        raise StageError(where, what, hint)
    if counts[0] != counts[1]:
        raise StageError(
            where,
            f"the teacher has {counts[0]} classes and the student {counts[1]}",
            "use a teacher of the same classes, or `teacher: none`",
        )


def _shape(answer: Tensor) -> str:
    return "x".join(map(str, answer.shape))


class Translated(nn.Module):
    """A teacher behind a change of units and of the order of classes."""

    def __init__(
        self,
        net: nn.Module,
        units: tuple[Preprocess, Preprocess] | None,
        order: list[int] | None,
    ) -> None:
        """units: (of the images that come, of those that the net takes)"""
        super().__init__()
        self.net, self.order = net, order
        self.scale: Any = 1.0
        self.shift: Any = 0.0
        if units:
            mean, std, own_mean, own_std = (
                torch.tensor(v).reshape(1, -1, 1, 1) for p in units for v in (p.mean, p.std)
            )
            self.scale, self.shift = std / own_std, (mean - own_mean) / own_std

    def forward(self, x: Tensor) -> Any:
        out: Any = self.net(x * self.scale + self.shift)
        return out if self.order is None else out[:, self.order]


def _order(
    theirs: tuple[str, ...] | None, ours: tuple[str, ...] | None, where: str
) -> list[int] | None:
    """Where the student's classes are among the teacher's; None where nothing is to be moved.

    Numbers are no names: sets without class names call theirs "0", "1", ...
    """
    if not theirs or not ours or theirs == ours or len(theirs) != len(ours):
        return None
    if any(all(n.isdecimal() for n in names) for names in (theirs, ours)):
        return None
    if set(theirs) != set(ours):
        unknown = next(n for n in ours if n not in theirs)
        hint = f"it knows {', '.join(theirs[:5])}"
        raise StageError(where, f"the teacher has no class {unknown!r}", hint)
    return [theirs.index(name) for name in ours]
