"""Does this device answer as the machine that made the bundle did?

CPUs round differently (fused multiply-add, saturating int8 products), so equality is not asked
for: an output passes when its SQNR (`edgecv.runtime.fidelity`) reaches its precision's floor and
the best class of each sample is the same, where the golden output's best class is clear. One that
holds several quantities passes where each of them does, or is off by no more than rounding.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import BundleError
from edgecv.runtime import parts
from edgecv.runtime.bundle import Bundle, opened, read_bundle
from edgecv.runtime.fidelity import Parity, compare_all
from edgecv.runtime.goldens import thinned
from edgecv.runtime.parts import Part
from edgecv.runtime.spec import (
    TensorSpec,
    channels_first,
    dequantise,
    joined,
    joined_shape,
    of_call,
    on_grid,
)

# As far as a compiled network may be from its graph (`edgecv.fidelity.COMPILE`).
SQNR_FLOOR_DB = {"fp32": 50.0, "fp16": 35.0, "bf16": 20.0, "int8": 15.0}


@dataclass(frozen=True)
class VerifyReport:
    """What a replay of the golden inputs showed.

    ok:            digests match and every output is within tolerance
    reason:        why not, one line; empty when ok
    exact:         every output is equal bit for bit
    max_abs_error: in real units, over all outputs and samples
    sqnr_db:       of the worst output; None when exact
    floor_db:      the SQNR asked for at this precision
    compared:      samples whose golden margin is clear; agreed: those with the same best class
    outputs:       the figures of each output by its name, in its place of each of its groups
                   ("boxes[0:4]"); None of a group of which no value is kept
    """

    bundle: str
    engine: str
    precision: str
    samples: int
    ok: bool
    reason: str
    exact: bool
    max_abs_error: float
    sqnr_db: float | None
    floor_db: float
    compared: int
    agreed: int
    outputs: Mapping[str, Part | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; max_abs_error is null when an output is not finite."""
        data = asdict(self)
        data["outputs"] = {k: part and _finite(part) for k, part in data["outputs"].items()}
        return _finite(data)


def verify(path: str | Path, threads: int | None = None, engine: str | None = None) -> VerifyReport:
    """Check a bundle's digests, replay its golden inputs, compare with its golden outputs.

    Raises BundleError (damaged, or without golden inputs) and what open_bundle raises. A
    difference beyond tolerance is a report whose ok is False.
    """
    contents = read_bundle(path)
    if not contents.golden_inputs:
        raise BundleError(str(path), "has no golden inputs", "make it again with edgecv export")
    bundle = opened(contents, threads, engine)
    try:
        replayed = replay(bundle, contents.golden_inputs)
    finally:
        bundle.close()
    precision = bundle.manifest["precision"]
    floor = SQNR_FLOOR_DB.get(precision, SQNR_FLOOR_DB["int8"])
    ends = contents.outputs
    pairs = {s.name: _paired(contents.golden_outputs[s.name], replayed[s.name]) for s in ends}
    exact = all(np.array_equal(a, b) for a, b in pairs.values())
    goldens, found = ([_shown(pairs[t.name][side], t) for t in ends] for side in (0, 1))
    kinds = {t.name: parts.kind(t, _is_whole(pairs[t.name][0], t)) for t in ends}
    parity = compare_all(goldens, found, kinds, floor)
    reason = _reason(parity, floor, parts.rounding(ends, precision))
    return VerifyReport(
        bundle=Path(path).name,
        engine=engine or bundle.manifest["engine"],
        precision=precision,
        samples=parity.samples,
        ok=not reason,
        reason=reason,
        exact=exact,
        max_abs_error=parity.max_abs_error,
        sqnr_db=None if exact else parity.sqnr_db,
        floor_db=floor,
        compared=parity.clear,
        agreed=parity.agreed,
        outputs=parts.figures(ends, parity),
    )


def replay(bundle: Bundle, golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each golden sample through the session, one at a time; outputs stacked, engine dtype."""
    count = len(next(iter(golden.values())))
    session = bundle.session
    rows = [
        session.run({s.name: of_call(golden[s.name], s, i) for s in session.inputs})
        for i in range(count)
    ]
    return {s.name: joined([row[s.name] for row in rows]) for s in session.outputs}


def _paired(golden: np.ndarray, replayed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, with as many values of each sample."""
    same = golden.shape == replayed.shape
    return golden, replayed if same else thinned(replayed, golden.shape[1])


def _is_whole(golden: np.ndarray, spec: TensorSpec) -> bool:
    return golden.shape[1:] == joined_shape(spec)


def _shown(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Real numbers, channels first."""
    real = _as_real(values, spec)
    return channels_first(real, spec) if _is_whole(values, spec) else real


def _as_real(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    real = dequantise(values, spec) if on_grid(spec) else values
    return real.astype(np.float64)


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in data.items()}


def _reason(parity: Parity, floor: float, rounding: Mapping[str, float]) -> str:
    """Why it is not the same; "" where it is. rounding: of groups (`parts.rounding`)"""
    if not np.isfinite(parity.max_abs_error):
        return "an output is not finite"
    for name, one in (parity.outputs or {"": parity}).items():
        if one.sqnr_db < floor and one.max_abs_error > rounding.get(name, 0.0):
            which = f"output {name!r} differs" if name else "outputs differ"
            return f"{which}: SQNR {one.sqnr_db:.1f} dB is below {floor:.0f} dB"
    differ = parity.clear - parity.agreed
    return f"{differ} samples have another best class" if differ else ""
