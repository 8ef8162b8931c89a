"""What the fuzzers share: how inputs are changed, and what counts as a fault.

A fault is an exception that is no EdgecvError (or one that speaks a library's words), more than 2 s
of processor time for one input, more than 512 MB of memory, or a process that ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from edgecv.errors import EdgecvError

LIMIT_S = 2.0
LIMIT_MB = 512
# An error's text that was written by no one for a user.
FOREIGN = re.compile(
    r"Traceback|\w+Error\b|(?<!-)0x[0-9a-f]{6,}|<\w+ object|[\x00-\x08\x0b-\x1f\x7f\x9b]"
)

# JSON of what stands where something else was expected.
VALUES = (
    *("null", "true", "false", "0", "-1", "1", "0.5", "-0.0", "1e308", "1e999", "-1e999", "NaN"),
    *("9223372036854775807", "8589934592", "1" + "0" * 400, "1e-320", "4294967296", "2", "1.0"),
    *(
        '""',
        '" "',
        '"x"',
        '"\\u001b[31m"',
        '"\\ud800"',
        '"\\u0000"',
        '"../x"',
        '"é模型"',
        '"a\\nb"',
    ),
    *("[]", "[[]]", "{}", '{"a": 1}', "[1, 8589934592]", "[[[[[]]]]]", '["x"]', "[null]"),
    *('"cpu"', '"c"', '"openvino"', '"float64"', '"bool"', '"NHWC"', "[0]", "[-1]", "[1, 0]"),
    '"' + "y" * 10_000_000 + '"',
    "[" * 200 + "]" * 200,
)

Cases = Callable[[int, int], Iterator[Any]]
Check = Callable[[Any], None]


class Slow(BaseException):
    """One input took longer than LIMIT_S."""


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """Some bytes flipped, replaced, inserted, taken out, moved or repeated."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(max(1, len(made)))
        end = at + rng.choice((1, 1, 2, 4, 32))
        how = rng.randrange(6)
        if how == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif how == 1:
            made[at:end] = rng.randbytes(end - at)
        elif how == 2:
            made[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        elif how == 3:
            del made[at:end]
        elif how == 4:
            made[at:at] = made[rng.randrange(len(made) + 1) :][: rng.choice((4, 64, 512))]
        else:
            made[at:end] = bytes([rng.choice((0, 0x7F, 0x80, 0xFF, 0x0A, 0x20))]) * (end - at)
    return bytes(made)


def changed_json(rng: random.Random, data: Any) -> None:
    """One value or key somewhere in a JSON document is another; or is gone, or there twice."""
    places = [(data, key) for key in data] if data else []
    for holder, key in places:
        inner = holder[key]
        if isinstance(inner, dict | list):
            places += [(inner, k) for k in _keys(inner)]
    if not places:
        return
    holder, key = rng.choice(places)
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice((f"{key}s", "", "\x1b[31m", "x" * 5000, "é"))] = holder.pop(key)
    elif how == 2:
        other, place = rng.choice(places)
        taken = other[place] if _has(other, place) else None
        holder[key] = json.loads(json.dumps(taken))
    elif how == 3 and isinstance(holder[key], list) and holder[key]:
        holder[key] = holder[key] * rng.choice((2, 1000))
    else:
        holder[key] = json.loads(rng.choice(VALUES))


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def _has(holder: Any, key: Any) -> bool:
    return key in _keys(holder)


def fault(check: Check, case: Any) -> str:
    """What is wrong with how one input is met; "" for nothing, "refused" inputs among them."""

    def late(*_: Any) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        check(case)
    except EdgecvError as e:
        found = FOREIGN.search(str(e))
        return f"speaks no user's words: {found[0]!r} in {str(e)[:300]!r}" if found else ""
    except Slow:
        return f"more than {LIMIT_S} s"
    except Exception as e:
        place = traceback.extract_tb(e.__traceback__)[-1]
        return f"{type(e).__name__} at {place.name}:{place.lineno}: {str(e)[:200]}"
    finally:
        # ignored from here on: one that is on its way, to any thread, would end the process
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def peak_mb() -> float:
    """Memory that this process took at the most so far (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def faults(cases: Cases, check: Check, seed: int, count: int) -> list[tuple[int, str]]:
    """(number of the case, what was wrong), memory included."""
    found = []
    for i, case in enumerate(cases(seed, count)):
        start = peak_mb()
        said = fault(check, case)
        if said.startswith("more than"):  # what the first of a kind imports is imported once
            said = fault(check, case)
        if peak_mb() - start > LIMIT_MB:
            said = f"more than {LIMIT_MB} MB"
        if said:
            found.append((i, said))
    return found


def main(cases: Cases, check: Check, count: int) -> int:
    """Run and tell; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    began = time.process_time()
    found = faults(cases, check, options.seed, options.count)
    for said, number in Counter(said for _, said in found).most_common(20):
        first = next(i for i, s in found if s == said)
        print(f"{number} x {said} (first: case {first})")
    seconds = time.process_time() - began
    print(f"{options.count} inputs, seed {options.seed}: {len(found)} faults, {seconds:.0f} s, "
          f"peak {peak_mb():.0f} MB")  # fmt: skip
    return bool(found)
