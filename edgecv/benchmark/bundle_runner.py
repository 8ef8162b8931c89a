"""A bundle as a subject of `edgecv.benchmark.sampling`: opened, fed a golden input, closed.

    single-stream   one session; a call runs `batch` images one after the other
    offline         `threads` sessions of one engine thread each; a call shares `batch` images out

`batch` is of runs: a bundle's network is compiled for so many images as it says (`images`), one as
a rule, and a larger batch is that many runs.

Imported on devices: numpy and the standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.errors import MissingExtraError
from edgecv.runtime.archive import Contents, read_bundle
from edgecv.runtime.bundle import Bundle, opened
from edgecv.runtime.spec import image_of

SCENARIOS = ("single-stream", "offline")
Feeds = Mapping[str, np.ndarray]


class BundleSubject:
    """One bundle. Raises BundleError: damaged; MissingExtraError: made where it did not run."""

    def __init__(
        self, path: Path, threads: int = 1, scenario: str = "single-stream", batch: int = 1
    ) -> None:
        self.path, self.name = path, path.name
        self.contents: Contents = read_bundle(path)
        if not self.contents.golden_inputs:
            notes = self.contents.manifest.get("notes") or ["its engine could not run"]
            what = f"has no golden inputs to run: where it was made, {notes[0]}"
            raise MissingExtraError(str(path), what, "make it again where it runs")
        image = image_of(self.contents.inputs)
        self.images = image.shape[0] if image else 1  # that one run takes
        self.threads, self.scenario, self.batch = threads, scenario, batch
        self._open: list[Bundle] = []
        self._pool: ThreadPoolExecutor | None = None

    def open(self) -> Callable[[], Any]:
        """Load it anew; the function that runs one call of `batch` images."""
        before, pool = self._open, self._pool
        streams = self.threads if self.scenario == "offline" else 1
        engine_threads = 1 if self.scenario == "offline" else self.threads
        # The one before is closed after, and what is taken in between is of random size: else the
        # new one would come to lie in the same place, or always in an equally unlucky one.
        self._gap = np.empty(64 * random.randrange(1024), np.uint8)
        self._open = [opened(self.contents, engine_threads) for _ in range(streams)]
        _close(before, pool)
        self._pool = None
        feeds = self._feeds()
        if self.scenario == "offline":
            self._pool = ThreadPoolExecutor(streams)
            return _shared([b.session.run for b in self._open], feeds, self._pool)
        run = self._open[0].session.run
        return _one_by_one(run, feeds)

    def close(self) -> None:
        """Free the engine's memory."""
        _close(self._open, self._pool)
        self._open, self._pool = [], None

    def _feeds(self) -> list[Feeds]:
        """`batch` golden inputs, from the first on, over and over."""
        golden = self.contents.golden_inputs
        count = len(next(iter(golden.values())))
        single = [self.contents.golden_feed(i) for i in range(min(count, self.batch))]
        return [single[i % len(single)] for i in range(self.batch)]


def _one_by_one(run: Callable[[Feeds], Any], feeds: list[Feeds]) -> Callable[[], Any]:
    if len(feeds) == 1:
        only = feeds[0]
        return lambda: run(only)

    def call() -> None:
        for one in feeds:
            run(one)

    return call


def _shared(
    runs: list[Callable[[Feeds], Any]], feeds: list[Feeds], pool: ThreadPoolExecutor
) -> Callable[[], Any]:
    """Every session takes its share of the images at the same time; engines let go of the GIL."""
    shares = [feeds[i :: len(runs)] for i in range(len(runs))]
    jobs = [_one_by_one(run, share) for run, share in zip(runs, shares, strict=True) if share]

    def call() -> None:
        for done in [pool.submit(job) for job in jobs]:
            done.result()

    return call


def _close(bundles: list[Bundle], pool: ThreadPoolExecutor | None) -> None:
    if pool:
        pool.shutdown()
    for bundle in bundles:
        bundle.close()
