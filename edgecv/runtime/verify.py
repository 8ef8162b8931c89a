"""Does this device answer as the machine that made the bundle did?

    SQNR = 10 log10(sum y^2 / sum (y - y')^2) dB,  y golden, y' replayed, both in real units

CPUs round differently (fused multiply-add, saturating int8 products), so equality is not asked
for: an output passes when SQNR reaches its precision's floor and the best class of each sample
is the same. Where the best two golden classes are closer than four times the noise which that
floor allows, either may win and the class is not compared.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import BundleError
from edgecv.runtime.bundle import Bundle, dequantise, on_grid, opened, read_bundle
from edgecv.runtime.spec import TensorSpec

SQNR_FLOOR_DB = {"fp32": 60.0, "fp16": 40.0, "bf16": 20.0, "int8": 25.0}
_CLEAR = 4.0  # margins of this many standard deviations of the allowed noise are clear


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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; max_abs_error is null when an output is not finite."""
        data = asdict(self)
        return {
            k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in data.items()
        }


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
    pairs = {s.name: (contents.golden_outputs[s.name], replayed[s.name]) for s in bundle.outputs}
    exact = all(np.array_equal(a, b) for a, b in pairs.values())
    reals = [(_as_real(pairs[s.name][0], s), _as_real(pairs[s.name][1], s)) for s in bundle.outputs]
    error, sqnr = _distance(reals)
    compared, agreed = _classes(*reals[0], floor)
    reason = _reason(error, sqnr, floor, compared - agreed)
    return VerifyReport(
        bundle=Path(path).name,
        engine=engine or bundle.manifest["engine"],
        precision=precision,
        samples=len(reals[0][0]),
        ok=not reason,
        reason=reason,
        exact=exact,
        max_abs_error=error,
        sqnr_db=None if np.isinf(sqnr) and sqnr > 0 else sqnr,
        floor_db=floor,
        compared=compared,
        agreed=agreed,
    )


def replay(bundle: Bundle, golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each golden sample through the session, one at a time; outputs stacked, engine dtype."""
    count = len(next(iter(golden.values())))
    rows = [
        bundle.session.run({n: np.ascontiguousarray(a[i : i + 1]) for n, a in golden.items()})
        for i in range(count)
    ]
    return {s.name: np.concatenate([row[s.name] for row in rows]) for s in bundle.outputs}


def _as_real(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    real = dequantise(values, spec) if on_grid(spec) else values
    return real.astype(np.float64)


def _distance(reals: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """(largest absolute error, lowest SQNR in dB) over the outputs; NaN when not finite."""
    error, worst = 0.0, float("inf")
    for golden, found in reals:
        noise = found - golden
        if not np.isfinite(noise).all():
            return float("nan"), float("nan")
        error = max(error, float(np.abs(noise).max(initial=0.0)))
        if power := float(np.square(noise).sum()):
            signal = float(np.square(golden).sum())
            worst = min(worst, float(10 * np.log10(max(signal, 1e-300) / power)))
    return error, worst


def _classes(golden: np.ndarray, found: np.ndarray, floor: float) -> tuple[int, int]:
    """(samples with a clear golden winner, those of them where the same class won)."""
    golden, found = golden.reshape(len(golden), -1), found.reshape(len(found), -1)
    if golden.shape[1] < 2:
        return 0, 0
    ordered = np.sort(golden, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    noise = np.sqrt(np.square(golden).mean(axis=1)) * 10 ** (-floor / 20)
    clear = margin > _CLEAR * noise
    same = golden.argmax(axis=1) == found.argmax(axis=1)
    return int(clear.sum()), int((clear & same).sum())


def _reason(error: float, sqnr: float, floor: float, differ: int) -> str:
    if np.isnan(error):
        return "an output is not finite"
    if sqnr < floor:
        return f"outputs differ: SQNR {sqnr:.1f} dB is below {floor:.0f} dB"
    return f"{differ} samples have another best class" if differ else ""
