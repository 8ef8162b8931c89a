"""How far a network's answers are from what they should be. One definition, used by every command.

    SQNR = 10 log10( sum (ref - mean)^2 / sum (ref - out)^2 ) dB

mean is the reference's own over the images, element by element: what is the same for every image
says nothing of any. With fewer than four images, or where nothing varies at all, it is left out.
Of scores for classes each row's own mean goes first, on both sides: softmax does not see it.

Agreement is the share of images (of pixels, where every pixel has a class) with the same best
class. It is judged where the reference's best two are clearly apart, by more than four standard
deviations of the noise allowed; closer than that, either may win.

An output that holds several quantities side by side (boxes in pixels, then probabilities) is judged
by each: one figure over all says how the largest numbers fare.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edgecv.runtime.spec import TensorSpec, ungrouped

BEST_DB = 200.0
FEW = 4  # images, below which a mean over them says too little
FLAT = 1e-8  # of the reference's energy: less variation than that is none
TIE_DB = 25.0  # the noise that best classes are compared under where a tolerance allows more
CLEAR = 4.0  # margins of this many standard deviations of the allowed noise are clear
_INDICES = "indices"
KINDS = ("classes", "map", "values", "indices")
NOTHING = 1e-6  # of an output's own size: what float kernels leave where a group of it is zero


class Parts(str):
    """The kind "values" of an output that holds several quantities along one of its axes.

    axis: batch first, channels first. ends: 0, and where each ends
    """

    axis: int
    ends: tuple[int, ...]

    def __new__(cls, axis: int, ends: Sequence[int]) -> Parts:
        made = super().__new__(cls, "values")
        made.axis, made.ends = axis, tuple(ends)
        return made

    def cut(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """The groups of (N, ...) by what they are called: "boxes[0:4]"."""
        spans = zip(self.ends, self.ends[1:], strict=False)
        at = (slice(None),) * self.axis
        return {group(name, a, b): values[(*at, slice(a, b))] for a, b in spans}


def group(name: str, start: int, stop: int) -> str:
    """What a group of an output is called."""
    return f"{name}[{start}:{stop}]"


def kind_of(shape: Sequence[int]) -> str:
    """What an output of this shape, batch first, is taken for where nothing else is known.

    "classes": a row of two scores or more, (1, C) or (1, C, 1, 1); "map": such a row for every
    pixel, (1, C, H, W); "values": anything else.
    """
    wide = [n for n in shape[1:] if n > 1]
    if len(shape) in (2, 4) and len(wide) == 1:
        return "classes"
    return "map" if len(shape) == 4 and len(wide) > 1 and shape[1] > 1 else "values"


def kinds(outputs: Sequence[TensorSpec]) -> dict[str, str]:
    """What each output holds, by its name: as it says, or by its type and shape; `Parts` of several
    quantities."""
    found = {}
    for t in outputs:
        kind = t.kind or (_INDICES if _whole(t) else kind_of(_first_shape(t)))
        parted = t.groups and kind in ("map", "values")
        found[t.name] = Parts(t.groups[0], t.groups[1:]) if t.groups and parted else kind
    return found


def _whole(spec: TensorSpec) -> bool:
    """Whether its numbers are no quantities: integers of no scale, wider than pixels; booleans."""
    return spec.scale is None and spec.dtype in ("int32", "int64", "uint32", "uint64", "bool")


def width(spec: TensorSpec) -> int:
    """How many scores a row has: for an image, or of a map for each pixel."""
    kind = kinds([ungrouped(spec)])[spec.name]
    if kind == "map":
        return _first_shape(spec)[1]
    return int(np.prod(spec.shape[1:] if kind == "classes" else spec.shape))


def _first_shape(spec: TensorSpec) -> tuple[int, ...]:
    if spec.layout != "NHWC" or len(spec.shape) != 4:
        return spec.shape
    n, h, w, c = spec.shape
    return (n, c, h, w)


@dataclass
class Energy:
    """Sums over a tensor: of the reference and its square, the other squared, the product, the
    error squared; and how many images were added. Memory holds one image's values."""

    ref: float = 0.0
    out: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    finite: bool = True
    count: int = 0
    total: np.ndarray | None = None

    def add(self, ref: np.ndarray, out: np.ndarray) -> None:
        """One image's values, of equal size."""
        a = np.asarray(ref, np.float64).reshape(-1)
        b = np.asarray(out, np.float64).reshape(-1)
        with np.errstate(invalid="ignore"):  # of infinities; the sums say so
            error = a - b
            noise, ref_energy, out_energy = (float(v @ v) for v in (error, a, b))
        if not np.isfinite(noise + ref_energy + out_energy):
            self.finite = False
            return
        self.ref += ref_energy
        self.out += out_energy
        self.product += float(a @ b)
        self.noise += noise
        self.count += 1
        self.total = a if self.total is None else self.total + a

    @property
    def varying(self) -> float:
        """Energy of what differs between the images."""
        if self.total is None:
            return 0.0
        return max(0.0, self.ref - float(self.total @ self.total) / self.count)

    @property
    def flat(self) -> bool:
        """Whether the reference is the same for all of several images."""
        return self.count > 1 and self.varying <= FLAT * self.ref

    @property
    def signal(self) -> float:
        """What an error is measured against."""
        return self.ref if self.count < FEW or self.flat else self.varying

    @property
    def sqnr_db(self) -> float:
        """At most 200; -200 where a number is not finite."""
        if not self.finite:
            return -BEST_DB
        if self.noise <= 1e-20 * self.ref:
            return BEST_DB
        ratio = max(self.signal, 1e-30) / self.noise
        return float(np.clip(10 * np.log10(ratio), -BEST_DB, BEST_DB))

    @property
    def cosine(self) -> float:
        size = (self.ref * self.out) ** 0.5
        return self.product / size if size else float(self.ref == self.out)


@dataclass(frozen=True)
class Parity:
    """How a network's outputs compare with the reference's.

    sqnr_db:        as above; -200 where a number is not finite
    top1_agreement: share of all images (pixels) with the same best class; None where the output is
                    no row of classes, or the images were made up
    samples:        images compared
    clear, agreed:  images (pixels) whose best class is clear, and those of them that agree
    answers:        how many classes the reference gave; None as above
    flat:           the reference answers the same for every image
    indices:        whole numbers are compared: the agreement is the share of equal ones
    axis:           the axis of the output along which this group of it lies; None for the whole
    outputs:        each output's own figures by its name, where there are several, and those of its
                    groups in its place ("boxes[0:4]"); the fields above are then the worst of them
    """

    cosine: float
    max_abs_error: float
    sqnr_db: float
    top1_agreement: float | None
    samples: int
    clear: int = 0
    agreed: int = 0
    answers: int | None = None
    flat: bool = False
    indices: bool = False
    axis: int | None = None
    outputs: Mapping[str, Parity] = field(default_factory=dict)

    @property
    def clear_agreement(self) -> float | None:
        """Share of the clear images that agree; None where there is none."""
        return self.agreed / self.clear if self.clear else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a number that is not finite is null."""
        data = {k: _plain(v) for k, v in asdict(replace(self, outputs={})).items()}
        del data["outputs"]
        if not self.indices:
            del data["indices"]
        if self.axis is None:
            del data["axis"]
        if self.outputs:
            data["outputs"] = {name: one.to_json() for name, one in self.outputs.items()}
        return data


def compare(
    reference: np.ndarray, outputs: np.ndarray, kind: str | None = None, tie_db: float = TIE_DB
) -> Parity:
    """One output over N images: arrays of equal size, (N, ...), channels first, float.

    kind: as `kind_of` says; None takes it from the shape. tie_db: the noise allowed, as an SQNR,
    within which either of two classes may win
    """
    kind = kind or kind_of((1, *reference.shape[1:]))
    if kind == _INDICES:
        return _same(reference.reshape(len(reference), -1), outputs.reshape(len(outputs), -1))
    ref, out = _rows(reference, kind), _rows(outputs, kind)
    energy = Energy()
    offsets = kind == "classes"  # what softmax does not see
    with np.errstate(invalid="ignore"):  # of infinities; the sums say so
        for a, b in zip(ref, out, strict=True):
            energy.add(a - a.mean(), b - b.mean()) if offsets else energy.add(a, b)
    error = np.abs(ref - out).max(initial=0.0) if energy.finite else np.inf
    found = Parity(
        energy.cosine if energy.finite else 0.0, float(error), energy.sqnr_db, None, len(ref),
        flat=energy.flat,
    )  # fmt: skip
    return found if kind == "values" else _agreeing(found, ref, out, energy, tie_db)


def _same(ref: np.ndarray, out: np.ndarray) -> Parity:
    """Whole numbers, (N, values): which are equal."""
    equal = ref == out
    share = float(equal.mean()) if equal.size else 1.0
    apart = np.abs(ref.astype(np.float64) - out.astype(np.float64))
    return Parity(
        cosine=share,
        max_abs_error=float(apart.max(initial=0.0)),
        sqnr_db=BEST_DB if share == 1.0 else float(-10 * np.log10(2 * (1 - share))),
        top1_agreement=share,
        samples=len(ref),
        clear=equal.size,
        agreed=int(equal.sum()),
        answers=len(np.unique(ref)),
        flat=len(ref) > 1 and bool((ref == ref[0]).all()),
        indices=True,
    )


def compare_all(
    references: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    kinds: Mapping[str, str | None],
    tie_db: float = TIE_DB,
) -> Parity:
    """Several outputs, each (N, ...), in the order of kinds (name -> kind): the worst of each
    figure, and every output's own among `outputs`. One output of one quantity is `compare`."""
    found: dict[str, Parity] = {}
    for (name, kind), a, b in zip(kinds.items(), references, outputs, strict=True):
        if isinstance(kind, Parts):
            found |= _grouped(name, kind, a, b)
        else:
            found[name] = compare(a, b, kind, tie_db)
    if len(found) == 1:
        return next(iter(found.values()))
    every = list(found.values())
    rows = [p for p in every if p.top1_agreement is not None]
    least = min(rows, key=lambda p: (_share(p), p.top1_agreement), default=None)
    return Parity(
        cosine=min(p.cosine for p in every),
        max_abs_error=max(p.max_abs_error for p in every),
        sqnr_db=min(p.sqnr_db for p in every),
        top1_agreement=least.top1_agreement if least else None,
        samples=every[0].samples,
        clear=least.clear if least else 0,
        agreed=least.agreed if least else 0,
        answers=least.answers if least else None,
        flat=all(p.flat for p in every),
        indices=all(p.indices for p in every),
        outputs=found,
    )


def _grouped(name: str, parts: Parts, ref: np.ndarray, out: np.ndarray) -> dict[str, Parity]:
    """Each group's own figures. One that is zero for every image has no signal: an error in it is
    none where it is rounding of the output's other numbers."""
    found = {}
    size = float(np.sqrt(np.mean(np.square(ref, dtype=np.float64)))) if ref.size else 0.0
    theirs = parts.cut(name, out)
    for called, own in parts.cut(name, ref).items():
        one = replace(compare(own, theirs[called], "values"), axis=parts.axis)
        if not own.any() and one.max_abs_error <= NOTHING * size:
            one = replace(one, sqnr_db=BEST_DB, cosine=1.0)
        found[called] = one
    return found


def without_agreement(parity: Parity) -> Parity:
    """The distance alone: of made-up images, best classes say nothing (whole numbers do)."""
    if parity.indices:
        return parity
    parts = {name: without_agreement(p) for name, p in parity.outputs.items()}
    return replace(parity, top1_agreement=None, clear=0, agreed=0, answers=None, outputs=parts)


def _rows(values: np.ndarray, kind: str) -> np.ndarray:
    """float64: (N, C) of classes, (N, pixels, C) of a map, (N, values) of the rest."""
    found = values.astype(np.float64)
    if kind != "map":
        return found.reshape(len(found), -1)
    return found.reshape(*found.shape[:2], -1).transpose(0, 2, 1)


def _agreeing(
    found: Parity, ref: np.ndarray, out: np.ndarray, energy: Energy, tie_db: float
) -> Parity:
    """The same with how best classes agree."""
    ref, out = np.nan_to_num(ref), np.nan_to_num(out)
    best, same = ref.argmax(-1), ref.argmax(-1) == out.argmax(-1)
    top = np.partition(ref, -2, axis=-1)[..., -2:]
    noise = np.sqrt(energy.signal / max(1, ref.size)) * 10 ** (-max(tie_db, TIE_DB) / 20)
    clear = top[..., 1] - top[..., 0] > CLEAR * noise
    return replace(
        found,
        top1_agreement=float(same.mean()),
        clear=int(clear.sum()),
        agreed=int((clear & same).sum()),
        answers=len(np.unique(best)),
    )


def _share(parity: Parity) -> float:
    found = parity.clear_agreement
    return 1.0 if found is None else found


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 6) if np.isfinite(value) else None
