"""Golden inputs for a bundle: as many and as fine as fit beside its engine's file.

Fewer pictures first, then coarser ones (each pixel repeated), then fewer values of large outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.bundling.inference import sample
from edgecv.runtime.goldens import Goldens, deflated, repeated, thinned
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import batch_of, image_of, joined
from edgecv.samples import Feeds, Given, Samples, samples_of

COUNTS = (4, 2, 1)
SHARE, LEAST = 0.2, 16 << 10  # of the engine's bytes, and bytes: what a bundle has beside them
FRAME = 1 << 10  # bytes of the zip itself and of digests
FOR_INPUTS = 0.6  # of what there is
FEWEST = 16  # values of an output


def room(engine_bytes: int, manifest_bytes: int) -> int:
    """How many bytes golden inputs and outputs may take."""
    return max(int(SHARE * engine_bytes), LEAST) - manifest_bytes - FRAME


def goldens(session: Any, given: Given, preprocess: Preprocess, most: int) -> Goldens:
    """Real inputs with what the session answers. most: bytes, as they are packed"""
    samples, image = samples_of(given), image_of(session.inputs)
    whole = image is None or batch_of(session.inputs) > 1 or image.name in samples.arrays
    pixels, repeat = _pixels(samples, most, whole)
    count = len(pixels)
    some = sample(samples, count)
    if image is not None and not whole:
        fine = repeated(pixels, repeat, preprocess.size)
        some = replace(some, pixels=fine)
    feeds = list(Feeds(some, session.inputs, preprocess))
    runs = [session.run(feed) for feed in feeds]
    others = {t.name: joined([f[t.name] for f in feeds]) for t in session.inputs
              if whole or t is not image}  # fmt: skip
    outputs = {t.name: joined([r[t.name] for r in runs]) for t in session.outputs}
    packed = Goldens(None if whole else pixels, repeat, others)
    left = most - sum(len(data) for _, data in packed.members())
    return Goldens(packed.pixels, repeat, others, _fitting(outputs, left))


def _pixels(samples: Samples, most: int, whole: bool) -> tuple[np.ndarray, int]:
    """Pictures that fit, and how often each of their pixels is repeated."""
    if whole:
        return sample(samples.pixels, 1), 1
    repeat = 1
    while True:
        for count in COUNTS:
            pixels = np.ascontiguousarray(sample(samples.pixels, count)[:, ::repeat, ::repeat])
            packed = Goldens(pixels, repeat)
            fits = sum(len(data) for _, data in packed.members()) <= FOR_INPUTS * most
            if fits or max(pixels.shape[1:3]) == 1:
                return pixels, repeat
        repeat *= 2


def _fitting(outputs: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """The outputs, of the larger ones as many values as fit."""
    found = {}
    for i, (name, values) in enumerate(sorted(outputs.items(), key=lambda o: o[1].nbytes)):
        share, size = most // (len(outputs) - i), values.size // len(values)
        while len(deflated(values)) > share and values.size // len(values) > FEWEST:
            size = max(FEWEST, size // 2)
            values = thinned(outputs[name], size)
        found[name] = values
        most -= len(deflated(values))
    return {name: found[name] for name in outputs}
