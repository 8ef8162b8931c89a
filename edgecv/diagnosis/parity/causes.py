"""From a rung that does not agree to a sentence: which layer, the numbers on both sides, and why.

The cheapest explanation comes first: another input (`inputs`), other constants (`constants`),
another operator or attribute, an integer grid that does not fit (`noise`), an engine's arithmetic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.diagnosis.parity.bisection import Divergence, first_divergence
from edgecv.diagnosis.parity.constants import differences
from edgecv.diagnosis.parity.distance import Energy
from edgecv.diagnosis.parity.images import Inputs, Samples
from edgecv.diagnosis.parity.inputs import explain
from edgecv.diagnosis.parity.layers import Form, image_in
from edgecv.diagnosis.parity.matching import Pair, match, unfused
from edgecv.diagnosis.parity.noise import Noise, per_layer
from edgecv.errors import ModelError
from edgecv.fidelity import Parity, Tolerance
from edgecv.runtime.preprocess import Preprocess

Finding = dict[str, Any]
IMAGES = 8
FIELDS = (
    *("size", "channels", "mean", "std", "crop_pct", "interpolation"),
    *("resize", "pad_value", "pad_at", "color"),
)
OF_ONE_RESIZE = (("crop_pct", "crop"), ("pad_value", "letterbox"), ("pad_at", "letterbox"))
SATURATED, NARROW, WIDE = 0.01, 1.5, 0.25
ALIKE_DB = 6.0
POOR_DB = 15.0  # own SQNR of a layer that is no longer int8's rounding alone


def check_classes(a: Form, b: Form, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises ModelError where two forms do not answer the same question."""
    if ours.shape != theirs.shape:
        what = f"answers {theirs.shape[1]} classes, {a.title} answers {ours.shape[1]}"
        raise ModelError(b.title, what, "these are different networks")


def of_preprocessing(theirs: Preprocess, own: Preprocess, some: Samples) -> Finding | None:
    """Which fields differ, with both values, and whether taking the reference's mends it."""
    of_one = {f for f, way in OF_ONE_RESIZE if (theirs.resize, own.resize) != (way, way)}
    wrong = [f for f in FIELDS if f not in of_one
             and not _same(getattr(theirs, f), getattr(own, f), theirs.channels)]  # fmt: skip
    if not wrong:
        return None
    said = [f"{f} {_short(getattr(own, f))} where the reference has {_short(getattr(theirs, f))}"
            for f in wrong]  # fmt: skip
    mended = replace(own, **{f: getattr(theirs, f) for f in (*wrong, *of_one)})
    energy = Energy()
    for a, b in zip(Inputs(some, theirs), Inputs(some, mended), strict=True):
        energy.add(image_in(a), image_in(b))
    how = " and ".join(f"{f} {_short(getattr(theirs, f))}" for f in wrong)
    verb = "normalised" if set(wrong) <= {"mean", "std"} else "prepared"
    return {
        "kind": "preprocessing",
        "layer": None,
        "fields": {f: [getattr(own, f), getattr(theirs, f)] for f in wrong},
        "cause": f"the bundle's preprocessing has {'; '.join(said)}: it agrees "
        f"({energy.sqnr_db:.0f} dB) once {verb} with the reference's {how}",
    }


def _same(one: Any, other: Any, channels: int) -> bool:
    """Whether two values are equal; of mean and std, one value stands for every channel's."""
    if not isinstance(one, tuple):
        return bool(one == other)
    sizes = {len(one), len(other)}
    if len(sizes) > 1 and sizes != {1, channels}:
        return False
    first, second = (np.broadcast_to(v, max(sizes)) for v in (one, other))
    return np.allclose(first, second, rtol=1e-4, atol=1e-4)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{v:g}" for v in dict.fromkeys(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_graph(
    a: Form, b: Form, xs: Inputs, reference: np.ndarray, preprocess: Preprocess, limit: Tolerance,
    now: Parity,
) -> Finding:  # fmt: skip
    """Why b does not answer as a does on the same images."""
    where = first_divergence(a, b, xs, limit.min_sqnr_db)
    at_once = where is None or not where.before  # else the image arrives as it should
    found = explain(b, reference, xs, preprocess, limit.min_sqnr_db, now, at_once)
    if found:
        changes, parity = found
        how = " and ".join(c.name for c in changes)
        return {
            "kind": changes[0].kind,
            "layer": "input",
            "changes": [c.name for c in changes],
            "cause": f"{b.title} wants another input: it agrees ({parity.sqnr_db:.0f} dB) "
            f"once the image is {how}",
        }
    if a.precision == "fp32" and b.precision == "int8":
        worst = _worst(per_layer(a, b, xs))
        if worst is not None:
            return _of_noise(a, b, worst)
    if where is None:
        return _unnamed(a, b)
    return _of_layer(a, b, xs, where, limit)


def _unnamed(a: Form, b: Form) -> Finding:
    pairs, way = match(a, b)
    said = f"{len(pairs)} layers of {a.title} and {b.title} match by {way}, and all agree"
    return {
        "kind": "unknown",
        "layer": None,
        "cause": f"{said}: the difference is behind them, or in how the engine fuses them",
    }


def _of_layer(a: Form, b: Form, xs: Inputs, where: Divergence, limit: Tolerance) -> Finding:
    pair = where.pair
    before = where.inputs_db
    told = "what it reads agrees" if before is None else f"its inputs agree ({before:.0f} dB)"
    if before is not None and before < limit.min_sqnr_db:
        told = f"its inputs differ too ({before:.0f} dB)"
    kind, why = _why(a, b, xs, pair)
    return {
        "kind": kind,
        "layer": pair.b.name,
        "layer_before": pair.a.name,
        "sqnr_db": round(where.energy.sqnr_db, 2),
        "cosine": round(where.energy.cosine, 6),
        "inputs_db": None if before is None else round(before, 2),
        "matched_by": where.found_by,
        "looked_at": where.looked_at,
        "layers": where.layers,
        "cause": f"{pair.b.name} ({pair.b.kind}) is the first layer that differs: "
        f"{where.energy.sqnr_db:.1f} dB against {pair.a.name} of {a.title}, while {told}; {why}",
    }


def _why(a: Form, b: Form, xs: Inputs, pair: Pair) -> tuple[str, str]:
    inner = unfused(a, b, pair)
    wrong = differences(a, b, inner, _image(b, inner))
    if wrong:
        return "weights", str(wrong[0])
    if order := _turned(a, b, xs, pair):
        return "layout", f"its result agrees once transposed {order}"
    if other := _otherwise(inner):
        return other
    same = "its constants are equal" if wrong == [] else "its constants cannot be read"
    if b.precision != "fp32" or b.one_by_one:
        return "engine", f"{same}: the engine computes it otherwise (precision, rounding, fusion)"
    return "operator", f"{same}: an attribute or an operator between its input and it differs"


def _otherwise(pair: Pair) -> tuple[str, str] | None:
    """What the two layers do differently, as far as their files say; None when nothing."""
    if pair.a.kind != pair.b.kind:
        return "operator", f"it is {pair.b.kind} where the reference has {pair.a.kind}"
    other = [
        f"{k} {pair.b.attributes[k]} where the reference has {v}"
        for k, v in pair.a.attributes.items()
        if k in pair.b.attributes and pair.b.attributes[k] != v
    ]
    return ("attributes", "; ".join(other)) if other else None


def _image(b: Form, pair: Pair) -> tuple[int, ...]:
    """The image that a dense layer's input was flattened from."""
    made = {layer.tensor: layer for layer in b.layers}
    name = next(iter(pair.b.inputs), "")
    while name in made and len(made[name].shape) != 4:
        name = next(iter(made[name].inputs), "")
    return made[name].shape if name in made else ()


def _turned(a: Form, b: Form, xs: Inputs, pair: Pair) -> str:
    """The permutation of the axes after which a result is the reference's; "" for none."""
    x = xs[0]
    one = a.values(x, [pair.a.tensor])[pair.a.tensor]
    two = b.values(x, [pair.b.tensor])[pair.b.tensor]
    if one.ndim != 4 or one.size != two.size:
        return ""
    n, c, h, w = one.shape
    turns = {
        "NHWC→NCHW": two.reshape(n, h, w, c).transpose(0, 3, 1, 2),
        "NCWH→NCHW": two.reshape(n, c, w, h).transpose(0, 1, 3, 2),
    }
    for name, turned in turns.items():
        energy = Energy()
        energy.add(*pair.values(one, np.ascontiguousarray(turned)))
        if energy.sqnr_db >= 40.0:
            return name
    return ""


def weakest(a: Form, b: Form, rows: list[Noise]) -> str:
    """A sentence about a layer that no longer holds int8's rounding alone; "" when none does."""
    worst = _worst(rows)
    poor = worst is not None and (worst.own_db or 0.0) < POOR_DB
    return str(_of_noise(a, b, worst)["cause"]) if worst and poor else ""


def _worst(rows: list[Noise]) -> Noise | None:
    """The first of the layers whose own rounding is worst, where they can be run on their own."""
    own = [(r.own_db, r) for r in rows if r.own_db is not None]
    if not own:
        return None
    # a grid that does not fit spoils its layer and, where kernels take integers, its readers
    least = min(db for db, _ in own)
    return next(r for db, r in own if db <= least + ALIKE_DB)


def _of_noise(a: Form, b: Form, worst: Noise) -> Finding:
    pairs, _ = match(a, b)
    pair = next(p for p in pairs if p.b.name == worst.layer)
    assert worst.own_db is not None
    inner = unfused(a, b, pair)
    wrong = differences(a, b, inner) if worst.own_db < POOR_DB else []
    kind, why = "noise", "its grid fits: eight bits are not enough here, keep it in float"
    if wrong:
        kind, why = "weights", str(wrong[0])
    elif worst.own_db < POOR_DB and (other := _otherwise(inner)):
        kind, why = other
    elif worst.saturated > SATURATED or (worst.used or 0.0) > NARROW:
        kind = "range"
        why = (
            f"its range is too narrow: {100 * worst.saturated:.1f}% of the float values lie beyond "
            f"its ends, they need {worst.used or 0:.2f} of it"
        )
    elif worst.used is not None and worst.used < WIDE:
        kind = "range"
        why = f"its range is too wide: the float values need {worst.used:.2f} of it"
    return {
        "kind": kind,
        "layer": worst.layer,
        "layer_before": pair.a.name,
        "sqnr_db": round(worst.sqnr_db, 2),
        "own_db": round(worst.own_db, 2),
        "saturated": round(worst.saturated, 4),
        "cause": f"{worst.layer} ({worst.kind}) loses most by itself: {worst.own_db:.1f} dB fed "
        f"the float network's own tensors, {worst.sqnr_db:.1f} dB in place; {why}",
    }
