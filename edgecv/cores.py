"""Cores that a step may use while no other is made: what it finds is the same on any count of them.

`edgecv.side_by_side` frees them for a step that it makes alone; one beside others has its own. They
are used by Python's threads: numpy and the engines let go of the interpreter while they compute, on
one thread each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import pairwise
from typing import TypeVar

X = TypeVar("X")
Y = TypeVar("Y")

_FREE = ContextVar("edgecv_free_cores", default=1)


@contextmanager
def free(count: int) -> Iterator[None]:
    """Let what is done inside, in this thread, use so many cores."""
    token = _FREE.set(count)
    try:
        yield
    finally:
        _FREE.reset(token)


def ahead(make: Callable[[X], Y], items: Iterable[X]) -> Iterator[Y]:
    """make(x) for every x, in order. With cores to spare, some are made before they are asked for:
    as many as there are cores, the one that is given away among them.

    Raises what `make` raises, when its turn comes.
    """
    count = _FREE.get()
    if count < 2:
        yield from map(make, items)
        return
    waiting: deque[Future[Y]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                waiting.append(_begun(pool, partial(make, item)))
                if len(waiting) == count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def beside(make: Callable[[], Y]) -> Callable[[], Y]:
    """Begin make() on another core, where there is one; what is returned waits for it to end and
    gives its result, or raises what it raised. Without such a core it is made then.
    """
    if _FREE.get() < 2:
        return make
    pool = ThreadPoolExecutor(1)
    made = _begun(pool, make)
    pool.shutdown(wait=False)
    return made.result


def shares(count: int) -> list[slice]:
    """`count` things in a row, cut into one piece for each core."""
    pieces = max(1, min(_FREE.get(), count))
    ends = [count * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


def _begun(pool: ThreadPoolExecutor, make: Callable[[], Y]) -> Future[Y]:
    """make() in a thread of the pool, which knows what this one does, on a core of its own."""

    def alone() -> Y:
        with free(1):
            return make()

    return pool.submit(copy_context().run, alone)
