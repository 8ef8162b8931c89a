"""What may have been done to the image on its way in, tried one change at a time, then in pairs.

    layout      the same memory read as (H, W, C) instead of (C, H, W), or the other way round
    orientation height and width exchanged, mirrored, upside down
    channels    BGR instead of RGB
    scale       0..255, 0..1, -1..1, ImageNet's mean and std, or normalised twice

Each is a function of the correct input. Where the network, fed one of them, answers as the
reference does with the correct one, the change is what the network expects; it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgecv.diagnosis.parity.distance import FEW, outputs
from edgecv.diagnosis.parity.layers import Form, Sample, image_in
from edgecv.errors import EdgecvError
from edgecv.fidelity import Parity
from edgecv.runtime.preprocess import Preprocess

IMAGES = FEW  # for trying; a candidate is then confirmed on all
CLEARLY_DB = 6.0  # an alternative must be better than nothing by this much
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Alternative:
    """kind: which of the above; name: what the image must be turned into to agree."""

    kind: str
    name: str
    change: Change


def alternatives(shape: tuple[int, ...], preprocess: Preprocess | None) -> list[Alternative]:
    """Single changes of a float32 (1, C, H, W) input that preprocess made."""
    _, c, h, w = shape
    found = []
    if c > 1:
        found += [
            Alternative("layout", "transposed NCHW→NHWC in memory", _memory_last),
            Alternative("layout", "transposed NHWC→NCHW in memory", _memory_first),
            Alternative("channels", _swapped(preprocess), lambda x: x[:, ::-1]),
        ]
    if h == w:
        turned = "turned so that height and width are exchanged"
        found.append(Alternative("orientation", turned, lambda x: x.transpose(0, 1, 3, 2)))
    found += [
        Alternative("orientation", "mirrored left to right", lambda x: x[..., ::-1]),
        Alternative("orientation", "turned upside down", lambda x: x[..., ::-1, :]),
    ]
    if preprocess is not None:
        found += list(_scales(preprocess))
    return found


def _swapped(preprocess: Preprocess | None) -> str:
    return f"swapped {'BGR→RGB' if preprocess and preprocess.color == 'bgr' else 'RGB→BGR'}"


def _scales(preprocess: Preprocess) -> Iterator[Alternative]:
    mean, std = (
        np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std)
    )

    def pixels(x: np.ndarray) -> np.ndarray:
        return x * std + mean

    def scaled(m: Sequence[float], s: Sequence[float]) -> Change:
        to, by = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (m, s))
        return lambda x: (pixels(x) - to) / by

    own = (tuple(preprocess.mean), tuple(preprocess.std))
    known: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "left as 0..255 pixels, not normalised": ((0.0,), (1.0,)),
        "scaled to 0..1 only (mean 0, std 255)": ((0.0,), (255.0,)),
        "scaled to -1..1 (mean 127.5, std 127.5)": ((127.5,), (127.5,)),
        "normalised with mean 127, std 128": ((127.0,), (128.0,)),
    }
    if preprocess.channels == 3:
        turn = -1 if preprocess.color == "bgr" else 1
        m, s = MEAN[::turn], STD[::turn]
        known[f"normalised with ImageNet's mean {m} and std {s}"] = (m, s)
    for name, (m, s) in known.items():
        if (m, s) != own:
            yield Alternative("scale", name, scaled(m, s))
    yield Alternative("scale", "normalised twice", lambda x: (x - mean) / std)
    yield Alternative("scale", "divided by 255 once more", lambda x: x / np.float32(255))


def _memory_last(x: np.ndarray) -> np.ndarray:
    """The numbers in the order (H, W, C), under the shape (1, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(x.shape)


def _memory_first(x: np.ndarray) -> np.ndarray:
    """What the order (H, W, C) is read from, for a network that transposes it once more."""
    _, c, h, w = x.shape
    return np.ascontiguousarray(x).reshape(1, h, w, c).transpose(0, 3, 1, 2)


def explain(
    form: Form, reference: np.ndarray, xs: Sequence[Sample], preprocess: Preprocess | None,
    least_db: float, now: Parity, two: bool = True,
) -> tuple[tuple[Alternative, ...], Parity] | None:  # fmt: skip
    """The change or two of the input after which the form agrees with the reference's answers.

    reference: logits (N, classes) for xs; least_db: what counts as agreeing; now: without changes;
    two: also try two changes at once. None where no change helps.
    """
    if isinstance(xs[0], Mapping):
        return None
    single = alternatives(xs[0].shape, preprocess)
    wanted = max(least_db, now.sqnr_db + CLEARLY_DB)
    singles = [(one,) for one in single]
    pairs = [(one, two) for one, two in combinations(single, 2) if one.kind != two.kind]
    for tried in (singles, pairs if two else []):  # one change is enough where one explains it
        found = [(_with(form, some, xs[:IMAGES], reference[:IMAGES]), some) for some in tried]
        good = [(p.sqnr_db, some) for p, some in found if p is not None]
        if not good:
            continue
        changes = max(good, key=lambda g: g[0])[1]
        confirmed = _with(form, changes, xs, reference)
        if confirmed is not None and confirmed.sqnr_db >= wanted:
            return changes, confirmed
    return None


def _with(
    form: Form, changes: Sequence[Alternative], xs: Sequence[Sample], reference: np.ndarray
) -> Parity | None:
    def changed(x: Sample) -> np.ndarray:
        image = image_in(x)
        for one in changes:
            image = one.change(image)
        return np.ascontiguousarray(image, np.float32)

    try:
        rows = [form.answers(changed(x))[0].reshape(-1) for x in xs]
        return outputs(reference, np.stack(rows))
    except EdgecvError:  # a shape that the network does not take
        return None
