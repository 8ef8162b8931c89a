"""By what mechanism a tensor's grid does not hold what the tensor has: found by what it held.

inside    it lies inside of an activation function, and is wide where the function is flat
joined    quantities of different size side by side on one scale
uneven    a depthwise layer reads it, and on one scale its small channels have no levels
clipped   values lie beyond its grid, and that costs more than rounding
outlier   its grid reaches far beyond what it nearly always holds
rounding  none of these: 8 bits are what is left

levels of a range = its width / step
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgecv.diagnosis.why.rounding.held import Held
from edgecv.diagnosis.why.rounding.network import Tensor
from edgecv.graphs.onnx.epilogues import FUNCTIONS

KINDS = ("inside", "joined", "uneven", "clipped", "outlier", "rounding")
CALLED = {"silu": "SiLU", "hardswish": "HardSwish", "mish": "Mish", "gelu": "GELU"}
FLAT = 2.0**-6  # of an activation function's answer: it says nothing more
APART = 8.0  # times: magnitudes that do not belong on one scale
POOR = 0.01  # of the signal: the mean over channels of what rounding adds (-20 dB)
FEW_LEVELS, PART_LEVELS = 4, 32
RARE, RARELY = 4.0, 0.05  # times what is usual; of the images, at the most


@dataclass(frozen=True)
class Mechanism:
    """kind: of KINDS. what: a sentence with the tensor's name and the numbers. noise: `Held.noise`
    of its grid"""

    kind: str
    what: str
    noise: float


def mechanism(tensor: Tensor, found: Mapping[str, Held]) -> Mechanism:
    """found: what the tensor and its parts held in the float network."""
    own = found[tensor.name]
    noise = own.noise(tensor.step, tensor.low, tensor.high)
    if tensor.inside:
        return Mechanism("inside", _inside(tensor, own), noise)
    for kind, said in (
        ("joined", _joined(tensor, found)),
        ("uneven", _uneven(tensor, own)),
        ("clipped", _clipped(tensor, own)),
        ("outlier", _outlier(tensor, own)),
    ):
        if said:
            return Mechanism(kind, said, noise)
    levels = (min(own.largest, tensor.high) - max(own.least, tensor.low)) / tensor.step
    what = f"{tensor.shown} spans {_span(own)} in {levels:.0f} levels"
    return Mechanism("rounding", what, noise)


def useful(kind: str, own: Held) -> tuple[float, float]:
    """The part of what an activation function reads that its answer hangs on: from where it is no
    longer flat up to what nearly all values lie below."""
    x = np.linspace(-20.0, 0.0, 2001)
    answers = np.abs(FUNCTIONS[kind][0](x))
    flat = np.maximum.accumulate(answers) < FLAT
    start = float(x[flat][-1]) if flat.any() else float(x[0])
    return max(start, own.least), max(own.percentile(99.9), start)


def _inside(tensor: Tensor, own: Held) -> str:
    name = CALLED[tensor.inside]
    if own.least >= 0.0 and own.largest <= 1.0:
        return f"{tensor.shown} lies inside of {name}, between two of its steps"
    low, high = useful(tensor.inside, own)
    levels = (high - low) / tensor.step
    return (
        f"{tensor.shown} is what {name} reads: it spans {_span(own)}, and the useful part is "
        f"{_real(low)} to {_real(high)}: one scale leaves {levels:.0f} levels there"
    )


def _joined(tensor: Tensor, found: Mapping[str, Held]) -> str:
    parts = [(name, share, found[name]) for name, share in tensor.parts if name in found]
    if len(parts) < 2 or tensor.several:
        return ""
    parts.sort(key=lambda part: float(part[2].reach.max()))
    small, large = parts[0], parts[-1]
    reach, most = (float(part[2].reach.max()) for part in (small, large))
    levels = (small[2].largest - min(small[2].least, 0.0)) / tensor.step
    if most < APART * reach or levels >= PART_LEVELS:
        return ""
    shares = " (probabilities)" if small[1] else ""
    return (
        f"{tensor.shown} joins {large[0]} to {_real(most)} and {small[0]}{shares} to "
        f"{_real(reach)} on one scale: the latter has {_count(levels, 'level')}"
    )


def _uneven(tensor: Tensor, own: Held) -> str:
    alive = own.variance > 0.0
    if not tensor.depthwise or tensor.several or alive.sum() < 2:
        return ""
    noise = np.minimum(tensor.step**2 / 12 / own.variance[alive], 1.0).mean()
    reach = own.reach[alive]
    if noise <= POOR or reach.max() < APART * np.median(reach):
        return ""
    levels = (own.high - own.low)[alive] / tensor.step
    few = int((levels < FEW_LEVELS).sum())
    return (
        f"{tensor.shown} is read channel by channel (depthwise {tensor.depthwise[0]}): its "
        f"channels' maxima are {_real(reach.min())} to {_real(reach.max())}, and {few} of "
        f"{len(reach)} have fewer than {FEW_LEVELS} levels"
    )


def _clipped(tensor: Tensor, own: Held) -> str:
    values = np.concatenate(own.some).astype(np.float64)
    lost = float(np.square(values - np.clip(values, tensor.low, tensor.high)).mean())
    if tensor.several or lost <= tensor.step**2 / 12:
        return ""
    return (
        f"{tensor.shown} holds {_span(own)} and its grid ends at {_real(tensor.low)} and "
        f"{_real(tensor.high)}: clipping costs {lost / (tensor.step**2 / 12):.0f} times what "
        "rounding does"
    )


def _outlier(tensor: Tensor, own: Held) -> str:
    reach, images = max(abs(tensor.low), abs(tensor.high)), len(own.lows)
    usual = float(np.percentile(np.abs(np.concatenate(own.some)), 99.99))
    sizes = own.sizes()
    have = int((sizes >= reach / 2).sum())
    others = float(sizes[sizes < reach / 2].max(initial=0.0))
    if tensor.several or min(usual, others) <= 0.0:
        return ""
    if reach >= RARE * usual:
        said = f"{reach / usual:.0f} times its 99.99th percentile ({_real(usual)})"
    elif have <= RARELY * images and reach >= RARE * others:
        said = f"{reach / others:.0f} times what all other images hold ({_real(others)})"
    else:
        return ""
    return (
        f"{tensor.shown} has a grid to {_real(reach)}, {said}: {have} of "
        f"{_count(images, 'image')} come to half of it"
    )


def _count(number: float, noun: str) -> str:
    whole = round(number)
    return f"{whole} {noun}{'' if whole == 1 else 's'}"


def _span(own: Held) -> str:
    return f"{_real(own.least)} to {_real(own.largest)}"


def _real(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
